"""Our compiled client of blobs, in blobclient/: it costs little, so it shows what the server does."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import ROOT, TVIX_STORE, output
from benchmarks.daemon import Daemon
from tests import programs


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob in the store: its digest in hexadecimal, and its size in bytes."""

    digest: str
    size: int


def import_blob(store: Path, file: Path) -> Blob:
    """Put a file's contents into the local store in `store`."""
    printed = output(TVIX_STORE, "import", "--no-path-info", "--store", f"local://{store}", file)
    return Blob(printed.strip().removeprefix("b3:"), file.stat().st_size)


def stream_blobs(daemon: Daemon, blob: Blob, *, readers: int, writers: int = 0) -> float:
    """Seconds that it takes to read `blob` and write others of its size at once, each on a connection of its own."""
    client = programs.TOOLS / "blobclient"
    if not programs.go_build(ROOT / "benchmarks/blobclient", client):
        sys.exit("benchmarks/blobclient could not be built; install Go")
    printed = output(
        client,
        f"-address={daemon.address}",
        f"-digest={blob.digest}",
        f"-size={blob.size}",
        f"-readers={readers}",
        f"-writers={writers}",
    )
    seconds: float = json.loads(printed)["seconds"]
    return seconds
