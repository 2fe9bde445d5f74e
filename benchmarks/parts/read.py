"""Reading a big blob from the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.blob_client import import_blob, stream_blobs
from benchmarks.daemon import running_daemon
from benchmarks.figures import GIGABYTES_A_SECOND, Row, Series, Target
from benchmarks.h2load import h2load

_HEAD = b"\0\0\0\0\x22\x0a\x20"
"""Before a digest: gRPC's prefix (not compressed, 34 bytes), and the field `digest` (32 bytes)."""
_WIDE_WINDOWS = ("--window-bits=22", "--connection-window-bits=22")
"""4 MiB, as our own client has."""


def measure(bench: Bench) -> Sequence[Row]:
    inputs = bench.fresh()
    blob = import_blob(inputs / "store", bench.big)
    body = inputs / "body"
    body.write_bytes(_HEAD + bytes.fromhex(blob.digest))
    with running_daemon(inputs / "store") as daemon:

        def by_h2load(directory: Path) -> dict[str, float]:
            load = h2load(daemon, "tvix.castore.v1.BlobService/Read", body, "--clients=1", "--requests=1", *_WIDE_WINDOWS)
            assert load.data > blob.size, load
            return {"h2load, GB/s": blob.size / 1e9 / load.seconds}

        def by_ours(directory: Path) -> dict[str, float]:
            return {"grpc-go, GB/s": blob.size / 1e9 / stream_blobs(daemon, blob, readers=1)}

        measured = bench.interleaved(by_h2load, by_ours)
    return [
        Row(
            f"Blob Read of Big into {client}",
            GIGABYTES_A_SECOND,
            Series("tvix-store daemon", measured[f"{client}, GB/s"]),
            target=Target("at least", 1.2),
        )
        for client in ("h2load", "grpc-go")
    ]
