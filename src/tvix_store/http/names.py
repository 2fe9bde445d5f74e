"""The names of things in the URLs of the cache."""

from __future__ import annotations

import re

from tvix_store.errors import InvalidError
from tvix_store.http.status import HttpError
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.store_path import OUTPUT_HASH_SIZE

_FILE = re.compile(rb"([0-9a-df-np-sv-z]{52})\.nar((?:\.[a-z0-9]+)?)")


def parse_file_name(name: bytes) -> tuple[bytes, str]:
    """The SHA-256 (32 bytes) and the suffix in the name of a NAR's file.

    Raises:
        HttpError: `name` is not one.
    """
    matched = _FILE.fullmatch(name)
    if matched is None:
        raise HttpError(404, "a NAR is named <nixbase32 of the file's SHA-256>.nar, and a suffix for its compression")
    return nixbase32.decode(matched[1].decode()), matched[2].decode()


PATH = "path"
"""The name in a query that names the path of a NAR, by the 32 characters of its hash."""


def unfetched_url(narinfo: NarInfo) -> str:
    """Where the NAR of a path is, which may have to be fetched. It says all that is needed to find the NAR at an upstream again.

    Clients remember it for a month: it leads to the stored NAR later, and other workers understand it too.
    """
    return f"nar/{nixbase32.encode(narinfo.nar.sha256)}.nar?{PATH}={nixbase32.encode(narinfo.store_path.output_hash)}"


def parse_output_hash(name: bytes) -> bytes:
    """The 20 bytes behind the 32 characters that name a path's narinfo, and its listing.

    Raises:
        HttpError: they are not that.
    """
    try:
        digest = nixbase32.decode(name.decode())
    except (UnicodeDecodeError, InvalidError):
        digest = b""
    if len(digest) != OUTPUT_HASH_SIZE:
        raise HttpError(404, "narinfos and listings are named by the 32 characters of a store path's hash")
    return digest
