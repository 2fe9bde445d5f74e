"""A process that dies between writing the entry of a path info and committing it: `dying_writer.py STORE needs|again`.

`needs` puts a path that refers to the path `reference`, and `again` puts that one once more, with a signature.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tvix_store.backends.local import open_store
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import Kind, NewRecord
from tvix_store.testing.contracts.path_infos import signature
from tvix_store.testing.contracts.removal import hash_of, put

_append = PackWriter.append


def append_and_die(writer: PackWriter, records: Sequence[NewRecord]) -> list[Place]:
    places = _append(writer, records)
    if any(record.kind is Kind.PATH_INFO for record in records):
        os.kill(os.getpid(), signal.SIGKILL)
    return places


async def main(directory: str, what: str) -> None:
    async with await open_store(Path(directory)) as store:
        await store.blobs.put_many([b"so that it has a pack of its own"])
        setattr(PackWriter, "append", append_and_die)  # noqa: B010 - mypy takes an assignment for a fault
        if what == "needs":
            await put(store, "needs", "reference")
        else:
            known = await store.path_infos.get(hash_of("reference"))
            assert known is not None
            await store.path_infos.put(replace(known, signatures=(signature("key"),)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
