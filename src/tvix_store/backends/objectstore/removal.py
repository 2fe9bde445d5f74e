"""BucketRemoval: path infos are removed from a bucket while others put and use paths, anywhere.

An object store has no transactions. So a path is condemned first: it counts as absent, but its object still says what it was. Then
a new epoch is written, and all that was put since the beginning is looked at. A path that is needed or used after all comes back,
and the rest is removed (docs/design/objectstore.md). Each step replaces an object that is as it was seen, and no other.

A removal that dies leaves paths that are condemned. The next one takes these back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.path_infos import FOLDER, is_one, key_of, output_hash_of
from tvix_store.backends.objectstore.presence import Presence
from tvix_store.backends.objectstore.sealed import PRESENT, State, seal, unseal
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import StoreError, UnavailableError
from tvix_store.model.path_info import PathInfo
from tvix_store.services.batches import parts
from tvix_store.services.records import RecordService
from tvix_store.services.reference_order import References, closure, waves
from tvix_store.services.removal import Guard, read_hour, used_key

_AT_ONCE = 32
_BATCH = 1000
"""Paths that are condemned between two looks at the guard."""
_GIVEN_UP_AFTER = 600.0
"""Seconds after which a condemned path is one that a removal has left behind."""
_CLOCK = 2.0
"""Seconds by which times of one object store may be inexact."""


@dataclass(slots=True)
class _Look:
    """A look at path infos, for those that are `wanted`.

    references: Those of the wanted ones that are there, each with the wanted ones to which it refers.
    needed: Those to which others refer.
    """

    wanted: Collection[bytes]
    references: dict[bytes, Sequence[bytes]] = field(default_factory=dict)
    needed: set[bytes] = field(default_factory=set)

    def at(self, path_info: PathInfo) -> None:
        output_hash, references = path_info.output_hashes
        to = [each for each in references if each in self.wanted and each != output_hash]
        if output_hash in self.wanted:
            self.references[output_hash] = to
        else:
            self.needed.update(to)


class BucketRemoval:
    """The Removal of a store in a bucket."""

    def __init__(self, bucket: Bucket, presence: Presence, records: RecordService) -> None:
        self._bucket = bucket
        self._presence = presence
        self._records = records

    async def remove(
        self,
        output_hashes: Collection[bytes],
        *,
        unused_since: int | None,
        ignore_references: bool = False,
        guard: Guard | None = None,
    ) -> set[bytes]:
        if not output_hashes:
            return set()
        if not self._bucket.is_conditional:
            raise UnavailableError(f"{self._bucket.name} makes no conditional writes: no path can be removed safely")
        began = await self._presence.advance()
        look = _Look(set(output_hashes))
        async for path_info in self._all(began) if not ignore_references else self._named(look.wanted):
            look.at(path_info)
        references = look.references if not ignore_references else dict.fromkeys(look.references, ())
        staying = closure(references, look.needed if not ignore_references else ())
        staying |= closure(references, await self._used(references.keys() - staying, unused_since))
        doomed = {each: to for each, to in references.items() if each not in staying}
        try:
            condemned = await self._condemned(doomed, guard)
            if not condemned:
                return set()
            await self._presence.advance()
            back = closure(doomed, await self._wanted_again(condemned, began, unused_since, ignore_references=ignore_references))
            if not await self._holds(guard):
                back = set(condemned)
        except BaseException:
            with suppress(StoreError):  # then the next removal does it
                await self._take_all_back(doomed)
            raise
        await self._take_all_back({each: to for each, to in doomed.items() if each in back})
        removed = await self._each(self._remove, [each for each in condemned if each not in back])
        await self._records.delete([used_key(each) for each in removed])
        return removed

    async def _condemned(self, doomed: References, guard: Guard | None) -> list[bytes]:
        """Condemn paths, each after those that refer to it, until the guard has changed. Those that were condemned."""
        condemned: list[bytes] = []
        for wave in waves(doomed):
            for some in parts(wave, _BATCH):
                if not await self._holds(guard):
                    return condemned
                condemned += await self._each(self._condemn, some)
        return condemned

    async def _take_all_back(self, condemned: References) -> None:
        """Take back what is condemned, each after those that it refers to: so what is there is complete at any time."""
        for wave in reversed(waves(condemned)):
            await self._each(self._take_back, wave)

    async def _wanted_again(
        self, condemned: Collection[bytes], since: float, unused_since: int | None, *, ignore_references: bool
    ) -> set[bytes]:
        """Those of the condemned paths that were used, or to which a path refers that was put, since the removal began."""
        look = _Look(set(condemned))
        if not ignore_references:
            async for state, path_info, _ in self._written(since):
                if state in PRESENT:
                    look.at(path_info)
        return look.needed | await self._used(condemned, unused_since)

    async def _used(self, output_hashes: Iterable[bytes], since: int | None) -> set[bytes]:
        async def is_used(output_hash: bytes) -> bool:
            value = await self._records.get(used_key(output_hash))
            return value is not None and since is not None and read_hour(value) >= since

        asked = list(output_hashes) if since is not None else []
        return {each for each, used in zip(asked, await each_at_once(is_used, asked, _AT_ONCE), strict=True) if used}

    async def _holds(self, guard: Guard | None) -> bool:
        return guard is None or await self._records.get(guard.key) == guard.value

    async def _named(self, output_hashes: Collection[bytes]) -> AsyncIterator[PathInfo]:
        for state, path_info in await each_at_once(self._read, list(output_hashes), _AT_ONCE):
            if path_info is not None and state in PRESENT:
                yield path_info

    async def _all(self, now: float) -> AsyncIterator[PathInfo]:
        """All path infos. Those that a removal has left condemned are taken back."""
        left: dict[bytes, Sequence[bytes]] = {}
        async for state, path_info, written in self._written(0.0):
            if state is State.CONDEMNED and written < now - _GIVEN_UP_AFTER:
                output_hash, left[output_hash] = path_info.output_hashes
            elif state is State.CONDEMNED:
                continue
            yield path_info
        await self._take_all_back(left)

    async def _written(self, since: float) -> AsyncIterator[tuple[State, PathInfo, float]]:
        """The path infos that were written since some time, with their states and times; not those that are removed."""
        async for page in self._bucket.list(FOLDER):
            due = [each for each in page if is_one(each) and each.written >= since - _CLOCK]
            for some in parts(due, _BATCH):
                read = await each_at_once(self._read, [output_hash_of(each.key) for each in some], _AT_ONCE)
                for listed, (state, path_info) in zip(some, read, strict=True):
                    if path_info is not None:
                        yield state, path_info, listed.written

    async def _read(self, output_hash: bytes) -> tuple[State, PathInfo | None]:
        key = key_of(output_hash)
        found = await self._bucket.get(key)
        if found is None:
            return State.REMOVED, None
        state, encoded = unseal(key, found.data)
        return state, PathInfo.stored(encoded) if encoded else None

    async def _condemn(self, output_hash: bytes) -> bool:
        return await self._change(output_hash, PRESENT, State.CONDEMNED)

    async def _take_back(self, output_hash: bytes) -> bool:
        return await self._change(output_hash, {State.CONDEMNED}, State.THERE)

    async def _remove(self, output_hash: bytes) -> bool:
        return await self._change(output_hash, {State.CONDEMNED}, State.REMOVED)

    async def _change(self, output_hash: bytes, before: Collection[State], after: State) -> bool:
        """Change the state of a path info, if it has one of those `before`; whether that is done."""
        key = key_of(output_hash)
        found = await self._bucket.get(key)
        if found is None:
            return False
        state, encoded = unseal(key, found.data)
        data = seal(key, b"" if after is State.REMOVED else encoded, after)
        return state in before and await self._bucket.replace(key, data, found.version)

    async def _each(self, change: Callable[[bytes], Awaitable[bool]], output_hashes: Sequence[bytes]) -> set[bytes]:
        """Those for which the change was made."""
        done = await each_at_once(change, output_hashes, _AT_ONCE)
        return {each for each, is_done in zip(output_hashes, done, strict=True) if is_done}
