"""The contract of RecordService."""

from __future__ import annotations

import asyncio

import pytest

from tvix_store.errors import InvalidError
from tvix_store.services.records import MAX_KEY, MAX_VALUE, RecordService
from tvix_store.testing.content import noise


@pytest.mark.asyncio
class RecordServiceContract:
    """Subclasses give a fixture `records`, a service without records whose keys begin with `test:`."""

    async def test_what_was_put_is_there(self, records: RecordService) -> None:
        await records.put({b"test:a": b"1", b"test:b": b""})
        assert await records.get(b"test:a") == b"1"
        assert await records.get(b"test:b") == b""

    async def test_what_was_not_put_is_not_there(self, records: RecordService) -> None:
        await records.put({b"test:a": b"1"})
        for key in (b"test:", b"test:aa", b"test:A", b"a", b"test:a\0"):
            assert await records.get(key) is None

    async def test_the_last_put_wins(self, records: RecordService) -> None:
        for value in (b"1", b"22", b"", b"3"):
            await records.put({b"test:a": value, b"test:b": b"same"})
            assert await records.get(b"test:a") == value
        assert await records.get(b"test:b") == b"same"

    async def test_keys_and_values_are_any_bytes_up_to_their_limits(self, records: RecordService) -> None:
        pairs = {b"\0": bytes(range(256)), b"\xff" * MAX_KEY: noise(MAX_VALUE), b"test:\n/..": b"\0"}
        await records.put(pairs)
        for key, value in pairs.items():
            assert await records.get(key) == value

    @pytest.mark.parametrize("pair", [(b"", b"x"), (b"k" * (MAX_KEY + 1), b"x"), (b"test:long", b"x" * (MAX_VALUE + 1))])
    async def test_a_put_with_a_key_or_value_beyond_the_limits_stores_nothing(
        self, records: RecordService, pair: tuple[bytes, bytes]
    ) -> None:
        with pytest.raises(InvalidError):
            await records.put({b"test:beside": b"1", pair[0]: pair[1]})
        assert await records.get(b"test:beside") is None

    async def test_nothing_may_be_put(self, records: RecordService) -> None:
        await records.put({})

    async def test_what_is_put_without_being_durable_is_there_as_well(self, records: RecordService) -> None:
        await records.put({b"test:a": b"1"}, durable=False)
        await records.put({b"test:b": b"2"})
        await records.put({b"test:b": b"3"}, durable=False)
        assert [await records.get(key) for key in (b"test:a", b"test:b")] == [b"1", b"3"]

    async def test_many_may_put_at_once(self, records: RecordService) -> None:
        await asyncio.gather(*(records.put({b"test:%d" % n: b"%d" % n, b"test:all": b"%d" % n}) for n in range(100)))
        assert [await records.get(b"test:%d" % n) for n in range(100)] == [b"%d" % n for n in range(100)]
        assert int(await records.get(b"test:all") or b"") in range(100)
