"""NAR, Nix's archive format: a reader and a writer as event machines. No I/O.

    archive   = "nix-archive-1" node
    node      = "(" "type" (file | symlink | directory) ")"
    file      = "regular" ["executable" ""] "contents" <bytes>
    symlink   = "symlink" "target" <target>
    directory = "directory" { "entry" "(" "name" <name> "node" node ")" }

Every string is its length (64 bits, little-endian), its bytes, and zeros up to a multiple of 8 bytes.
Entries are sorted by name (byte order).
Source: E. Dolstra, The Purely Functional Software Deployment Model (2006), figure 5.2; nix, doc/manual, "Nix Archive (NAR) format".
"""

from tvix_store.nar.events import (
    DirectoryEnd,
    DirectoryStart,
    EntryEnd,
    EntryStart,
    Event,
    FileData,
    FileEnd,
    FileStart,
    Symlink,
)
from tvix_store.nar.reader import MAX_DEPTH, MAX_ENTRIES, NarReader
from tvix_store.nar.writer import NarWriter

__all__ = [
    "MAX_DEPTH",
    "MAX_ENTRIES",
    "DirectoryEnd",
    "DirectoryStart",
    "EntryEnd",
    "EntryStart",
    "Event",
    "FileData",
    "FileEnd",
    "FileStart",
    "NarReader",
    "NarWriter",
    "Symlink",
]
