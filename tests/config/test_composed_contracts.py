"""Compositions keep the contracts: the last path infos in memory, path infos that are signed, layers over each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tvix_store.config import open_store
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.store import Store
from tvix_store.testing.contracts import PathInfoServiceContract, StoreWithRecordsContract

_KEY = SecretKey.from_seed("composed-1", bytes(32))
_MEMORY: dict[str, Any] = {"root": {"type": "memory"}}
_CONTENT = {"blobservices": _MEMORY, "directoryservices": _MEMORY}


class TestRecentPathInfos(PathInfoServiceContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_store(composition={**_CONTENT, "pathinfoservices": {"root": "lru://?capacity=1000"}}) as store:
            yield store


class WithoutOurs(PassingPathInfos):
    """Shows no signature of the key."""

    async def get(self, output_hash: bytes) -> PathInfo | None:
        found = await self._inner.get(output_hash)
        return found and _without(found)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        return {key: _without(found) for key, found in (await self._inner.get_many(output_hashes)).items()}

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        return _without(await self._inner.put(path_info, trust, requires=requires, calculated=calculated))

    async def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        async for path_info in self._inner.list(after):
            yield _without(path_info)


def _without(path_info: PathInfo) -> PathInfo:
    ours = [each for each in path_info.signatures if each.name == _KEY.name]
    assert [_KEY.public.verifies(each, path_info.fingerprint()) for each in ours] == [True]
    return replace(path_info, signatures=tuple(each for each in path_info.signatures if each not in ours))


class TestSigningStore(PathInfoServiceContract):
    """But for the one signature, which is right, all is as in the store itself."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        (tmp_path / "key").write_text(str(_KEY))
        signing = {"type": "keyfile-signing", "inner": "&kept", "keyfile": str(tmp_path / "key")}
        table = {"root": signing, "kept": {"type": "memory"}}
        async with await open_store(composition={**_CONTENT, "pathinfoservices": table}) as store:
            yield store.with_services(path_infos=WithoutOurs(store.path_infos))


class TestLayersOverEachOther(StoreWithRecordsContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        table = {
            "root": {"type": "observed", "name": "all", "inner": "&cached"},
            "cached": {"type": "cache", "far": "&retried", "size": "16M"},
            "retried": {"type": "retrying", "inner": "&far"},
            "far": {"type": "memory"},
        }
        everywhere = dict.fromkeys(("blobservices", "directoryservices", "pathinfoservices"), table)
        async with await open_store(composition=everywhere) as store:
            yield store
