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

    async def test_what_was_deleted_is_not_there(self, records: RecordService) -> None:
        await records.put({b"test:a": b"1", b"test:b": b"2", b"test:c": b""})
        await records.delete([b"test:a", b"test:c", b"test:never"])
        assert [await records.get(key) for key in (b"test:a", b"test:b", b"test:c", b"test:never")] == [None, b"2", None, None]
        await records.delete([])
        await records.delete([b"test:a"])
        await records.put({b"test:a": b"again"})
        assert await records.get(b"test:a") == b"again"

    async def test_records_are_listed_by_prefix_in_the_order_of_their_keys(self, records: RecordService) -> None:
        pairs = {b"test:%d" % n: b"%d" % n for n in range(600)} | {b"test:": b"the prefix itself", b"test:\xff\xff": b"last"}
        others = {b"tesu:": b"x", b"test": b"x", b"tes\xff": b"x", b"\xff": b"x", b"a": b"x"}
        await records.put(pairs | others)
        await records.delete([b"test:7", b"test:300"])
        del pairs[b"test:7"], pairs[b"test:300"]
        assert [each async for each in records.list(b"test:")] == sorted(pairs.items())
        assert [each async for each in records.list(b"test:59")] == [(b"test:%d" % n, b"%d" % n) for n in (59, *range(590, 600))]
        assert [each async for each in records.list()] == sorted((pairs | others).items())
        assert [each async for each in records.list(b"test:\0")] == []

    async def test_records_with_another_value_are_not_changed(self, records: RecordService) -> None:
        await records.put({b"test:a": b"1", b"test:b": b"2", b"test:c": b"3", b"test:d": b""})
        changes: dict[bytes, tuple[bytes | None, bytes | None]] = {
            b"test:a": (b"1", b"new"),
            b"test:b": (b"other", b"new"),
            b"test:c": (b"3", None),
            b"test:d": (b"", b"4"),
            b"test:e": (b"", b"never there"),
            b"test:f": (None, b"6"),
            b"test:b2": (None, b""),
        }
        assert await records.exchange(changes) == 5
        there = {b"test:a": b"new", b"test:b": b"2", b"test:b2": b"", b"test:d": b"4", b"test:f": b"6"}
        assert {key: value async for key, value in records.list()} == there
        assert await records.exchange(changes) == 0
        assert await records.exchange({}) == 0
        with pytest.raises(InvalidError):
            await records.exchange({b"test:a": (b"new", bytes(MAX_VALUE + 1))})
        await records.delete([b"test:f"])
        assert await records.exchange({b"test:c": (None, b"again"), b"test:f": (None, b"again")}) == 2
        assert [await records.get(key) for key in (b"test:c", b"test:f")] == [b"again", b"again"]

    async def test_records_may_be_put_and_deleted_while_they_are_listed(self, records: RecordService) -> None:
        await records.put({b"test:%03d" % n: b"" for n in range(600)})
        listed = []
        async for key, _ in records.list(b"test:"):
            listed.append(key)
            if len(listed) % 100 == 1:
                await records.delete(listed)
                await records.put({b"other:" + key: b""}, durable=False)
        assert listed == [b"test:%03d" % n for n in range(600)]
        assert len([each async for each in records.list(b"test:")]) == 99

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
