"""A deleted record stays deleted when the index is made anew from the packs, in which it still lies."""

from __future__ import annotations

import shutil
from pathlib import Path

from tvix_store.backends.local import open_store
from tvix_store.services.store import Store


async def listed(store: Store) -> dict[bytes, bytes]:
    assert store.records is not None
    return {key: value async for key, value in store.records.list()}


async def test_a_deleted_record_does_not_come_back_with_the_packs(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        assert store.records is not None
        await store.records.put({b"test:kept": b"1", b"test:deleted": b"2", b"test:put-again": b"3", b"test:loose": b"4"})
        await store.records.put({b"test:loose": b"5"}, durable=False)
        await store.records.delete([b"test:deleted", b"test:put-again", b"test:loose"])
        await store.records.put({b"test:put-again": b"6"})
        there = await listed(store)
    assert there == {b"test:kept": b"1", b"test:put-again": b"6"}
    for _ in range(2):
        shutil.rmtree(tmp_path / "store/index")
        async with await open_store(tmp_path / "store") as store:
            assert await listed(store) == there
            assert store.records is not None
            assert await store.records.get(b"test:deleted") is None
