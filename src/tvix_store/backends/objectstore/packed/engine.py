"""Engine: what the services of the packed layout share. It finds contents, reads and checks them, and forgets what is damaged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.packed.chunk_lists import ChunkListSegment
from tvix_store.backends.objectstore.packed.committer import Committer
from tvix_store.backends.objectstore.packed.contents import Kind, Place
from tvix_store.backends.objectstore.packed.hints import Hints
from tvix_store.backends.objectstore.packed.pack_check import PackCheck, opened
from tvix_store.backends.objectstore.packed.pack_reader import PackReader
from tvix_store.backends.objectstore.packed.refresher import Refresher
from tvix_store.backends.objectstore.packed.tree_writer import TreeWriter
from tvix_store.backends.objectstore.packed.view import Record, Segment, View
from tvix_store.chunking import DEFAULT_SIZES, ChunkSizes
from tvix_store.errors import CorruptError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.services.held_graphs import HeldGraphs

T = TypeVar("T")

_INLINE = 64 << 10
"""Bytes that are decompressed and checked on the event loop: it takes as long as a hop to a thread."""
_INLINE_LOOKUPS = 200
Found = Place | int | None
_NAMES = {Kind.CHUNK: "blob", Kind.DIRECTORY: "directory", Kind.LIST: "blob"}


@dataclass(frozen=True, slots=True)
class PackedSettings:
    """How content is packed.

    pack_size: Bytes of a full pack.
    fresh: Seconds that an answer about missing content may be old. Such an answer costs an upload in vain, and nothing else.
    """

    sizes: ChunkSizes = DEFAULT_SIZES
    pack_size: int = 32 << 20
    fresh: float = 2.0


class Engine:
    """One bucket, its view on this machine, and what is under way."""

    def __init__(self, bucket: Bucket, view: View, settings: PackedSettings) -> None:
        self.bucket = bucket
        self.view = view
        self.settings = settings
        self.reader = PackReader(bucket)
        self.hints = Hints()
        self.pack_check = PackCheck(bucket, view)
        self.refresher = Refresher(bucket, view)
        self._beside: set[asyncio.Task[None]] = set()
        self.committer = Committer(bucket, view, self.refresher, TreeWriter(bucket, view, self.reader), settings.pack_size)
        self.graphs = HeldGraphs()

    @classmethod
    async def open(cls, bucket: Bucket, directory: Path, identity: bytes, settings: PackedSettings) -> Engine:
        """Open the view in `directory` of the bucket with this identity. Nothing is asked of the bucket yet.

        Raises:
            DeniedError, ExhaustedError, UnavailableError: there can be no view.
        """
        return cls(bucket, await asyncio.to_thread(View.acquire, directory, identity), settings)

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """Do `work` beside. It is done before the engine is closed."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self.committer.close()
        await self.refresher.close()
        await self.reader.close()
        await asyncio.to_thread(self.view.release)

    async def find(self, blobs: Sequence[bytes], *, age: float = 0.0, hints: bool = True) -> list[Found]:
        """Where blobs lie that are a chunk; the sizes (bytes) of those that were cut; None for each that is not there.

        For those that are not known, the view is refreshed, unless it is at most `age` seconds old. Without `hints`, only what the
        view knows counts.
        """

        found = await self.find_now(blobs, hints=hints)
        if None not in found:
            return found
        await self.refresher.refresh(age)
        now = await self.find_now(blobs, hints=False)
        return [old if old is not None else new for old, new in zip(found, now, strict=True)]

    async def find_now(self, blobs: Sequence[bytes], *, hints: bool = True) -> list[Found]:
        """As `find`, without asking the bucket."""

        def known() -> list[Found]:
            places: list[Found] = [*self.view.places(Kind.CHUNK, blobs)]
            for number, place in enumerate(places):
                if place is None and (segment := self.view.segment(blobs[number], 0)) is not None:
                    places[number] = segment.size
            return places

        found = await self._on_view(known, len(blobs))
        if None in found and hints:
            found = [each if each is not None else self._hinted(blob) for each, blob in zip(found, blobs, strict=True)]
        return found

    def _hinted(self, blob: bytes) -> Found:
        place = self.hints.place(Kind.CHUNK, blob)
        segment = self.hints.segment(blob) if place is None else None
        return place if segment is None else segment.size

    async def locate(self, kind: Kind, digests: Sequence[bytes], *, age: float = 0.0) -> list[Place | None]:
        """As `find`, of chunks or directories."""
        places = await self._known_places(kind, digests)
        if None not in places:
            return places
        places = [place or self.hints.place(kind, digest) for place, digest in zip(places, digests, strict=True)]
        if None not in places:
            return places
        await self.refresher.refresh(age)
        now = await self._known_places(kind, digests)
        return [place or new for new, place in zip(now, places, strict=True)]

    async def locate_all(self, kind: Kind, digests: Sequence[bytes]) -> list[Place]:
        """As `locate`.

        Raises:
            NotFoundError: one is not there.
        """
        places: list[Place] = []
        for digest, place in zip(digests, await self.locate(kind, digests), strict=True):
            if place is None:
                raise NotFoundError(_NAMES[kind], Digest(digest))
            places.append(place)
        return places

    async def contents(self, kind: Kind, digests: Sequence[bytes], places: Sequence[Place]) -> list[bytes]:
        """Chunks or directories, which lie at `places`: decompressed, and verified.

        Raises:
            CorruptError: one is damaged. It is forgotten, and counts as missing.
        """
        stored = await self.reader.read(places)

        def all_opened() -> list[bytes | None]:
            return [opened(*each) for each in zip(digests, places, stored, strict=True)]

        found = all_opened() if sum(place.length for place in places) <= _INLINE else await asyncio.to_thread(all_opened)
        contents: list[bytes] = []
        damage: CorruptError | None = None
        for digest, place, content in zip(digests, places, found, strict=True):
            try:
                contents.append(await self._mended(kind, digest, place) if content is None else content)
            except CorruptError as error:
                damage = damage or error  # the others are looked at first, and forgotten too
        if damage is not None:
            raise damage
        return contents

    async def segment(self, blob: Digest, at: int) -> ChunkListSegment | None:
        """The segment of a blob's chunk list that has its byte `at`; None where the blob has no list.

        Raises:
            CorruptError: it is damaged.
        """
        found = self.view.segment(blob.raw, at)
        hinted = self.hints.segment(blob.raw) if found is None else None
        if hinted is not None:
            return hinted
        if found is None:
            await self.refresher.refresh()
            found = self.view.segment(blob.raw, at)
        return None if found is None else await self._read_segment(blob, found)

    async def segments(self, blob: Digest) -> AsyncIterator[ChunkListSegment]:
        """All of a blob's chunk list.

        Raises:
            NotFoundError: it has none.
            CorruptError: as `segment`.
        """
        at, size = 0, 1
        while at < size:
            segment = await self.segment(blob, at)
            if segment is None:
                raise NotFoundError("blob", blob)
            if segment.end <= at:
                raise CorruptError(f"blob {blob} is damaged: the part of its chunk list from byte {at} on is missing")
            at, size = segment.end, segment.size
            yield segment

    async def forget_list(self, blob: Digest) -> None:
        """Forget the list of a blob of which a chunk is missing or damaged: the blob counts as missing."""
        found = self.view.segment(blob.raw, 0)
        self.hints.drop(blob.raw)
        if found is not None:
            await asyncio.to_thread(self.view.forget, [Record(Kind.LIST, blob.raw, 0, found.place)])

    async def _on_view(self, call: Callable[[], T], size: int) -> T:
        """What `call` returns, which makes so many lookups in the view."""
        return call() if size <= _INLINE_LOOKUPS else await asyncio.to_thread(call)

    async def _known_places(self, kind: Kind, digests: Sequence[bytes]) -> list[Place | None]:
        return await self._on_view(lambda: self.view.places(kind, digests), len(digests))

    async def _read_segment(self, blob: Digest, found: Segment) -> ChunkListSegment:
        segment: Segment | None = found
        tried: set[Place] = set()
        while segment is not None and segment.place not in tried:
            place = segment.place
            tried.add(place)
            for again in (False, True):
                stored = await self.reader.read_again(place) if again else (await self.reader.read([place]))[0]
                try:
                    if stored is not None:
                        return ChunkListSegment.decode(stored, blob.raw)
                except CorruptError:
                    pass
            await self.pack_check.check(place.key)
            await self.refresher.refresh()  # others may have put it again
            segment = self.view.segment(blob.raw, found.start)
        await self.forget_list(blob)  # also where this is not the first segment
        raise CorruptError(f"the list of the chunks of blob {blob} is damaged, in {self.bucket.name}/{found.place.key}")

    async def _mended(self, kind: Kind, digest: bytes, place: Place) -> bytes:
        """A content that was read and is not right: read once more, or from another place."""
        tried: set[Place] = set()
        found: Place | None = place
        while found is not None and found not in tried:
            tried.add(found)
            content = opened(digest, found, await self.reader.read_again(found))
            if content is not None:
                return content
            self.hints.drop(digest)
            await self.pack_check.check(found.key)
            [found] = await self.locate(kind, [digest])
        raise CorruptError(f"{_NAMES[kind]} {Digest(digest)} is damaged, in {self.bucket.name}/{place.key} at {place.offset}")
