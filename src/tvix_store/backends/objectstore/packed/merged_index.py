"""Merged indexes: the footers of many commits in one object, so that a new view needs few requests.

    index/<12 hex: time of the first commit>-<12 hex: of the last one>-<16 hex: random>:
        u32 bytes of the head; the head, a zstd frame of lines `<key of a commit> <bytes of its footer>`;
        the footers, end to end

They are advice. A reader looks only for commits that it has listed, and reads the other footers itself. So nothing is lost with a
merged index, and two processes may write the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence

import zstandard

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.packed.pack import Footer, commit_time
from tvix_store.backends.objectstore.packed.view import Commit
from tvix_store.errors import CorruptError, StoreError
from tvix_store.services.batches import filling

INDEXES = "index"
WORTH = 64
"""Commits from which their footers are merged, and from which merged ones are looked for."""
_LARGEST = 8 << 20
"""Bytes of the footers in one."""
_HEAD = struct.Struct("<I")
_LARGEST_HEAD = 16 << 20
_AT_ONCE = 4

_log = logging.getLogger(__name__)


class MergedIndexes:
    """Reads and writes the merged indexes of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def read(self, wanted: dict[str, int]) -> AsyncIterator[Sequence[Commit]]:
        """The wanted commits (by key, with the bytes of their objects) that merged indexes have. They are taken out of `wanted`."""
        if len(wanted) < WORTH:
            return
        times = sorted(map(commit_time, wanted))
        keys = [
            (listed.key, listed.size)
            async for page in self._bucket.list(INDEXES)
            for listed in page
            if 0 < listed.size <= 2 * _LARGEST + _LARGEST_HEAD and _has_any(listed.key, times)
        ]
        for at in range(0, len(keys), _AT_ONCE):
            read = await asyncio.gather(*(self._commits(key, size, frozenset(wanted)) for key, size in keys[at : at + _AT_ONCE]))
            for commits in read:
                some = [commit for commit in commits if wanted.pop(commit.key, None) is not None]
                if some:
                    yield some
            if len(wanted) < WORTH:
                return

    async def offer(self, commits: Sequence[Commit]) -> None:
        """Merge the footers of commits that were read one by one, where they are many. That it fails harms nobody."""
        if len(commits) < WORTH:
            return
        try:
            for times, data in await asyncio.to_thread(_merged, commits):
                await self._bucket.put(f"{INDEXES}/{times}-{os.urandom(8).hex()}", data)
        except StoreError as error:
            _log.info("footers are not merged: %s", error)

    async def _commits(self, key: str, size: int, wanted: frozenset[str]) -> list[Commit]:
        try:
            data = await self._bucket.get_range(key, 0, size)
            return [] if data is None else await asyncio.to_thread(_read, data, wanted, f"{self._bucket.name}/{key}")
        except StoreError as error:
            _log.info("a merged index is not used: %s", error)
            return []


def _has_any(key: str, times: Sequence[int]) -> bool:
    """Whether a merged index may have a commit of one of these times, which are sorted."""
    try:
        first, last, _ = key.removeprefix(f"{INDEXES}/").split("-")
        return bisect_left(times, int(first, 16)) < bisect_right(times, int(last, 16))
    except ValueError:
        return False


def _merged(commits: Sequence[Commit]) -> list[tuple[str, bytes]]:
    """Objects with the footers of all commits, and how their keys begin."""
    objects: list[tuple[str, bytes]] = []
    encoded = ((commit, commit.footer.encode()) for commit in sorted(commits))
    for some in filling(encoded, lambda each: len(each[1]), size=_LARGEST):
        lines = "".join(f"{commit.key} {len(footer)}\n" for commit, footer in some)
        head = zstandard.compress(lines.encode(), 3)
        times = f"{commit_time(some[0][0].key):012x}-{commit_time(some[-1][0].key):012x}"
        objects.append((times, b"".join((_HEAD.pack(len(head)), head, *(footer for _, footer in some)))))
    return objects


def _read(data: memoryview, wanted: frozenset[str], what: str) -> list[Commit]:
    try:
        (size,) = _HEAD.unpack_from(data)
        at = _HEAD.size + size
        head = data[_HEAD.size : at]
        if zstandard.frame_content_size(head) > _LARGEST_HEAD:
            raise CorruptError(f"the head of {what} is too large")
        commits: list[Commit] = []
        for line in zstandard.decompress(head).decode().splitlines():
            key, length = line.split(" ")
            if key in wanted:
                commits.append(Commit(key, Footer.decode(data[at : at + int(length)], f"{key} in {what}")))
            at += int(length)
        return commits
    except (struct.error, ValueError, zstandard.ZstdError) as error:
        raise CorruptError(f"{what} is damaged: {error}") from None
