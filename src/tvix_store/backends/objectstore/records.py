"""BucketRecords: records as objects, one each."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping

from tvix_store.backends.objectstore.bucket import Bucket, Found
from tvix_store.backends.objectstore.sealed import State, seal, unseal
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.services.records import Changes, check_records

FOLDER = "records"
_SEGMENT = 200
"""Characters of a part of a key: a file system takes 255 in a name."""
_MORE = "-"
"""Ends a part that is not the last: so a file and a directory never have the same name. It sorts before digits."""
_AT_ONCE = 32
_LISTED = 256


def key_of(key: bytes) -> str:
    """The object of a record. The order of objects is that of records, byte by byte."""
    return f"{FOLDER}/" + f"{_MORE}/".join(re.findall(f".{{1,{_SEGMENT}}}", key.hex()))


def record_of(key: str) -> bytes | None:
    """The key of the record in an object; None where there is none in it, since somebody else has put it."""
    try:
        record = bytes.fromhex(key.removeprefix(f"{FOLDER}/").replace(f"{_MORE}/", ""))
    except ValueError:
        return None
    return record if key_of(record) == key else None


class BucketRecords:
    """A RecordService over a bucket. A batch is not written at once: a crash leaves some of it (docs/object-storage.md)."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def get(self, key: bytes) -> bytes | None:
        name = key_of(key)
        return _value(name, await self._bucket.get(name))

    async def put(self, records: Mapping[bytes, bytes], *, durable: bool = True) -> None:
        check_records(records)
        await each_at_once(self._put, list(records.items()), _AT_ONCE)
        if durable:
            await self._bucket.sync()

    async def delete(self, keys: Collection[bytes]) -> None:
        await self._bucket.delete([key_of(key) for key in keys])

    async def exchange(self, changes: Changes) -> int:
        check_records({key: new for key, (_, new) in changes.items() if new is not None})
        return sum(await each_at_once(self._exchange, list(changes.items()), _AT_ONCE))

    async def list(self, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        async for page in self._bucket.list(FOLDER, _before(prefix)):
            keys = [key for each in page if (key := record_of(each.key)) is not None]
            there = [key for key in keys if key.startswith(prefix)]
            for at in range(0, len(there), _LISTED):
                some = there[at : at + _LISTED]
                for key, value in zip(some, await each_at_once(self.get, some, _AT_ONCE), strict=True):
                    if value is not None:
                        yield key, value
            if keys and not keys[-1].startswith(prefix) and keys[-1] > prefix:
                return

    async def _put(self, record: tuple[bytes, bytes]) -> None:
        key, value = record
        name = key_of(key)
        await self._bucket.put(name, seal(name, value))

    async def _exchange(self, change: tuple[bytes, tuple[bytes | None, bytes | None]]) -> bool:
        key, (expected, new) = change
        name = key_of(key)
        found = await self._bucket.get(name)
        if _value(name, found) != expected:
            return False
        data = seal(name, b"", State.REMOVED) if new is None else seal(name, new)
        return await (self._bucket.create(name, data) if found is None else self._bucket.replace(name, data, found.version))


def _value(name: str, found: Found | None) -> bytes | None:
    """The value of the record in an object; None where there is none."""
    if found is None:
        return None
    state, value = unseal(name, found.data)
    return value if state is State.THERE else None


def _before(prefix: bytes) -> str:
    """A key behind which all objects of records with this prefix stand."""
    if not prefix:
        return ""
    name = key_of(prefix)
    # The shortest of them is this very name. What ends one digit lower, and more behind it than a digit can be, is before it.
    digits = f"{_MORE}0123456789abcdef"
    return f"{name[:-1]}{digits[digits.index(name[-1]) - 1]}z"
