"""A process that dies between writing the entry of a path info and committing it: `dying_writer.py STORE needs|again|many`.

`needs` puts a path that refers to the path `reference`, and `again` puts that one once more, with a signature. `many` does
that behind others, in the same commit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.backends.local.test_checkpoint import engine_of
from tvix_store.backends.local import open_store
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import Kind, NewRecord
from tvix_store.backends.local.requests import Commit, PutPathInfo, Request, Result
from tvix_store.model.path_info import PathInfo
from tvix_store.testing.contracts.path_infos import path, signature
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
            puts = [replace(known, signatures=(signature("key"),))]
            if what == "many":
                puts = [*(replace(known, store_path=path(f"other-{n}")) for n in range(20)), *puts]
            await asyncio.wrap_future(engine_of(store).committer.submit(PutAll(puts)))


class PutAll(Request):
    """Several path infos in one commit."""

    is_durable = True
    appends = True

    def __init__(self, path_infos: Sequence[PathInfo]) -> None:
        super().__init__()
        self._path_infos = path_infos

    def apply(self, commit: Commit) -> Result:
        for each in self._path_infos:
            PutPathInfo(each).apply(commit)
        return None


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
