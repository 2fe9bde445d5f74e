"""Held: which content a named cache holds.

Content has the same digest wherever it comes from, and is stored once. A cache holds content from the moment at which somebody sent
it to this cache. The cache's own records list the held content. A record's key is `held:`, a letter for the kind, and the digest
(32 bytes). The value is empty.

Of content that the cache does not need any more, the value is the hour in which that turned out (see `retention.py`). Such content
can still be read. It counts as missing for whoever asks what to send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum

from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.services.records import RecordService
from tvix_store.services.staging import NO_RECORDS

_AT_ONCE = 512
"""Digests that are looked up before others get the event loop: some 2 ms."""
_PUT_AT_ONCE = 10_000


class Kind(Enum):
    """A kind of content: its letter in a key, and its word."""

    BLOB = b"b", "blob"
    """Also a chunk, which can be read as a blob."""
    DIRECTORY = b"d", "directory"
    """With all directories below it."""
    NAR = b"n", "NAR"
    """A root node, by the digest of its encoding. All that it reaches was held when its NAR was calculated."""

    def __init__(self, letter: bytes, word: str) -> None:
        self.prefix = b"held:" + letter
        self.word = word


class Held:
    """The content that a cache holds, by kind and digest."""

    def __init__(self, records: RecordService) -> None:
        self._records = records

    async def has(self, kind: Kind, digest: Digest) -> bool:
        """Whether the cache holds it."""
        return await self._records.get(kind.prefix + digest.raw) is not None

    async def lacking(self, kind: Kind, digests: Sequence[Digest], *, to_send: bool = False) -> dict[Digest, None]:
        """The digests that it does not hold, each once, in order. With `to_send`, also marked ones."""
        lacking: dict[Digest, None] = {}
        for number, digest in enumerate(digests):
            if number and number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            value = await self._records.get(kind.prefix + digest.raw)
            if value is None or (to_send and value):
                lacking[digest] = None
        return lacking

    async def missing(
        self, kind: Kind, digests: Sequence[Digest], stored: Callable[[Sequence[Digest]], Awaitable[set[Digest]]]
    ) -> set[Digest]:
        """The digests that the cache does not hold, and the held ones that the store has lost, as `stored` says.

        Content that is stored, but not held, is missing. A client has to send it, and it is not stored again.
        """
        lacking = await self.lacking(kind, digests, to_send=True)
        there = [digest for digest in digests if digest not in lacking]
        return set(lacking) | (await stored(there) if there else set())

    async def require(self, kind: Kind, digests: Iterable[Digest]) -> None:
        """See that the cache holds all of them.

        Raises:
            NotFoundError: it lacks one, whether others hold that or not.
        """
        for digest in await self.lacking(kind, list(digests)):
            raise NotFoundError(kind.word, digest)

    async def put(self, kind: Kind, digests: Sequence[Digest], more: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        """Hold content that was sent to the cache, and is stored; the last of it together with `more` records.

        It is as durable as what is put after it.

        Raises:
            ExhaustedError: the disk is full.
        """
        last = len(digests) - len(digests) % _PUT_AT_ONCE
        for at in range(0, last, _PUT_AT_ONCE):
            await self._put(kind, digests[at : at + _PUT_AT_ONCE], NO_RECORDS)
        await self._put(kind, digests[last:], more)

    async def _put(self, kind: Kind, digests: Sequence[Digest], more: Mapping[bytes, bytes]) -> None:
        records = {**{kind.prefix + digest.raw: b"" for digest in digests}, **more}
        if records:
            await self._records.put(records, durable=False)
