"""BucketPathInfos: path infos as objects, one each."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from weakref import WeakValueDictionary

from tvix_store.backends.objectstore.bucket import Bucket, Found, Listed
from tvix_store.backends.objectstore.presence import Presence
from tvix_store.backends.objectstore.sealed import HEAD, PRESENT, State, seal, unseal
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import CorruptError, IncompleteError, UnavailableError
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts, PathInfo, belongs_to
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust

FOLDER = "path_infos"
_AT_ONCE = 32
_LISTED = 256
"""Path infos that are read before the first of them is given out."""
_TRIES = 30
"""Writers of one path info that a put may lose against, one after the other."""
_PAUSE = 0.02
"""Seconds before the second try; more before later ones, and each is a random part of it."""
_LONGEST_PAUSE = 2.0
_KEY = re.compile(f"{FOLDER}/[0-9a-f]{{40}}")


def key_of(output_hash: bytes) -> str:
    """In hex, so that the order of keys is that of output hashes; hash first, so that servers spread them."""
    return f"{FOLDER}/{output_hash.hex()}"


def output_hash_of(key: str) -> bytes:
    return bytes.fromhex(key.rpartition("/")[2])


def is_one(listed: Listed) -> bool:
    """Whether an object is one of a path info that may be there. Others do not count, which somebody else has put."""
    return listed.size > HEAD and _KEY.fullmatch(listed.key) is not None


def read(key: str, found: Found | None) -> PathInfo | None:
    """The path info in an object. None where there is no object, or its path info is condemned or removed."""
    if found is None:
        return None
    state, encoded = unseal(key, found.data)
    if state not in PRESENT:
        return None
    if not belongs_to(encoded, output_hash_of(key)):
        raise CorruptError(f"the object {key} has the path info of another path")
    return PathInfo.stored(encoded)


def _is_verified(key: str, found: Found | None) -> bool:
    return found is not None and unseal(key, found.data)[0] is State.VERIFIED


def _nothing(_: Node, __: NarFacts) -> None:
    pass


class BucketPathInfos:
    """A PathInfoService over a bucket. It tells `note_facts` of NARs that were calculated before their path info was put."""

    def __init__(self, bucket: Bucket, note_facts: Callable[[Node, NarFacts], None] = _nothing) -> None:
        self._bucket = bucket
        self._note_facts = note_facts
        self.presence = Presence(bucket, self._is_there)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, output_hash: bytes) -> PathInfo | None:
        key = key_of(output_hash)
        found = await self._bucket.get(key)
        path_info = read(key, found)
        if path_info is not None and _is_verified(key, found):
            self._note_facts(path_info.node, path_info.nar)
        return path_info

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        distinct = list(dict.fromkeys(output_hashes))
        found = await each_at_once(self.get, distinct, _AT_ONCE)
        return {each: path_info for each, path_info in zip(distinct, found, strict=True) if path_info is not None}

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        return {each: path_info.store_path for each, path_info in (await self.get_many(output_hashes)).items()}

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        required = {each.output_hash: each for each in requires}
        epoch = await self.presence.begin() if required else b""
        self._refuse_missing(path_info, required, await self.presence.missing(required, epoch))
        stored, new = await self._put(path_info, trust, State.VERIFIED if calculated else State.THERE, renews=bool(required))
        if required and await self.presence.has_changed(epoch):
            missing = await self.presence.missing(required, await self.presence.begin())
            if missing and new:
                await self._take_back(key_of(path_info.store_path.output_hash), new)
            self._refuse_missing(path_info, required, missing)
        self.presence.note(path_info.store_path.output_hash, epoch)
        return stored

    async def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        async for page in self._bucket.list(FOLDER, key_of(after) if after else ""):
            hashes = [output_hash_of(each.key) for each in page if is_one(each)]
            for at in range(0, len(hashes), _LISTED):
                for path_info in await each_at_once(self.get, hashes[at : at + _LISTED], _AT_ONCE):
                    if path_info is not None:
                        yield path_info

    async def _put(self, path_info: PathInfo, trust: Trust, state: State, *, renews: bool) -> tuple[PathInfo, bytes]:
        """The path info as it is stored, and its object, if there was no path info before; else nothing.

        With `renews`, the object is written in any case. Then it has another nonce, so that who has put the same path before, and
        learns that what it requires goes, does not take it back.
        """
        key = key_of(path_info.store_path.output_hash)
        data = seal(key, path_info.encoded, state)
        async with self._locks.setdefault(key, asyncio.Lock()):  # those of this process need not race
            if await self._bucket.create(key, data):  # most are new
                return path_info, data
            for number in range(_TRIES):
                found = await self._bucket.get(key)
                known = read(key, found)
                merged = path_info if known is None else known.merged(path_info, trust)
                if merged == known and not renews:
                    return merged, b""
                is_verified = merged.node == path_info.node if state is State.VERIFIED else _is_verified(key, found)
                data = seal(key, merged.encoded, State.VERIFIED if is_verified else State.THERE)
                if await (self._bucket.create(key, data) if found is None else self._bucket.replace(key, data, found.version)):
                    return merged, data if known is None else b""
                await asyncio.sleep(random.uniform(0, min(_PAUSE * 2**number, _LONGEST_PAUSE)))  # noqa: S311  # no secret
        raise UnavailableError(f"{self._bucket.name}: {path_info.store_path} is written by others all the time; try again later")

    async def _take_back(self, key: str, data: bytes) -> None:
        """Remove the object that was just put, unless somebody has put the path again."""
        found = await self._bucket.get(key)
        if found is not None and found.data == data:
            await self._bucket.replace(key, seal(key, b"", State.REMOVED), found.version)

    async def _is_there(self, output_hash: bytes) -> bool:
        return await self.get(output_hash) is not None

    def _refuse_missing(self, path_info: PathInfo, required: dict[bytes, StorePath], missing: set[bytes]) -> None:
        for each in missing:
            raise IncompleteError(f"{path_info.store_path} refers to {required[each]}, not in the store; put that first")
