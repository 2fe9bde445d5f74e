"""Another process at a database: `peer.py DSN SCHEMA NAME`. It makes tables, puts signatures and records, and removes paths."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from tvix_store.backends.postgresql import Settings, open_offer
from tvix_store.errors import IncompleteError
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.testing.contracts.path_infos import path, signature

PATHS = 10
ROUNDS = 3


def path_info(name: str, *references: str) -> PathInfo:
    return PathInfo(path(name), SymlinkNode(b"x"), NarFacts(1, bytes(32)), tuple(map(path, references)))


async def work(settings: Settings, name: str) -> None:
    offer = await open_offer(settings)
    path_infos, removal, records = offer.path_infos, offer.removal, offer.records
    assert path_infos is not None
    assert removal is not None
    assert records is not None
    low = [path_info(f"low-{n}") for n in range(PATHS)]
    hashes = [each.store_path.output_hash for each in low]
    for number in range(ROUNDS):
        signed = [replace(path_info(f"signed-{n}"), signatures=(signature(f"{name}-{number}"),)) for n in range(PATHS)]
        await asyncio.gather(*map(path_infos.put, signed))
        await records.put({b"test:%d" % n: name.encode() for n in range(50)})
        await asyncio.gather(*map(path_infos.put, low))
        high = [path_info(f"{name}-{number}-{n}", f"low-{n}") for n in range(PATHS)]
        puts = asyncio.gather(*(path_infos.put(each, requires=each.references) for each in high), return_exceptions=True)
        await removal.remove(hashes, unused_since=None)
        unexpected = [each for each in await puts if isinstance(each, BaseException) and not isinstance(each, IncompleteError)]
        assert not unexpected, unexpected
        await removal.remove([each.store_path.output_hash for each in high[::2]], unused_since=None)
    await offer.close()


if __name__ == "__main__":
    asyncio.run(work(Settings(sys.argv[1], "the database", sys.argv[2]), sys.argv[3]))
