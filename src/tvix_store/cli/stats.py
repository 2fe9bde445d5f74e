"""`tvix-store stats`."""

from __future__ import annotations

from tvix_store.cli.invocation import Invocation, command, json_option


@command
@json_option
async def stats(invocation: Invocation, as_json: bool) -> None:
    """Show how much the store holds, and how much it saves by deduplication and compression.

    \b
        tvix-store stats
        tvix-store stats --json | jq .dedupRatio
    """
    from tvix_store.cli.output import print_json
    from tvix_store.cli.sizes import human
    from tvix_store.errors import UnsupportedError

    async with await invocation.open_store() as store:
        if store.statistics is None:
            raise UnsupportedError("this store cannot count what it holds; ask where it is kept, with --store local:///path")
        counted = await store.statistics.stats()
    dedup = counted.logical_bytes / counted.unique_bytes if counted.unique_bytes else None
    compression = counted.unique_bytes / counted.stored_bytes if counted.stored_bytes else None
    if as_json:
        print_json(
            {
                "pathInfos": counted.path_infos,
                "directories": counted.directories,
                "chunkedBlobs": counted.chunked_blobs,
                "chunks": counted.chunks,
                "logicalBytes": counted.logical_bytes,
                "uniqueBytes": counted.unique_bytes,
                "storedBytes": counted.stored_bytes,
                "diskBytes": counted.disk_bytes,
                "dedupRatio": _rounded(dedup),
                "compressionRatio": _rounded(compression),
            }
        )
        return
    cut = "1 blob was" if counted.chunked_blobs == 1 else f"{counted.chunked_blobs:,} blobs were"
    for label, value, remark in (
        ("Store paths", f"{counted.path_infos:,}", ""),
        ("Directories", f"{counted.directories:,}", ""),
        ("Chunks", f"{counted.chunks:,}", f"{cut} cut into several"),
        ("Logical size", human(counted.logical_bytes), "the NARs of all store paths"),
        ("Unique size", human(counted.unique_bytes), f"1 : {dedup:.2f}, since equal chunks are stored once" if dedup else ""),
        ("Stored size", human(counted.stored_bytes), f"1 : {compression:.2f} by compression" if compression else ""),
        ("Size on disk", human(counted.disk_bytes), "with the index"),
    ):
        print(f"{label + ':':<14} {value:>12}  {remark}".rstrip())


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)
