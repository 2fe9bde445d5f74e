"""Path infos of a closure go to a server together; an error costs the paths that need it and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tests.backends.test_grpc_granular import bulk, watched
from tvix_store.backends.grpc import open_store
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.config import verified
from tvix_store.errors import CorruptError, IncompleteError
from tvix_store.model.directory import SizeRule
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.paths.copy import copy_paths
from tvix_store.operations.paths.path_copies import Status
from tvix_store.protocol.dialects import DIALECTS
from tvix_store.protocol.settings import PATH_INFOS_VERSION, StoreSettings
from tvix_store.rpc.handlers.settings import settings_methods
from tvix_store.services.store import Store
from tvix_store.testing.content import file_nar, noise

pytestmark = pytest.mark.usefixtures("protocol")

DEPTH = 30
SINGLE = [dialect.path_info("Put") for dialect in DIALECTS]


@asynccontextmanager
async def served(version: int | None = None) -> AsyncIterator[tuple[Store, dict[str, list[int]]]]:
    """A client of a server that wants all references to be there, and the calls for path infos that reach the server."""
    async with await open_memory() as memory:
        methods = await store_methods(store=verified(memory, require_references=True), granular=True)
        if version is not None:
            methods |= settings_methods(StoreSettings(SizeRule.DOCUMENTED, "/nix/store", version))
        calls = watched(methods, bulk("PutPathInfos"), *SINGLE)
        async with serve(methods) as url, await open_store(url) as store:
            yield store, calls


async def chain(store: Store) -> list[PathInfo]:
    """Paths each of which refers to the one before it and to itself, with their contents in the store."""
    path_infos: list[PathInfo] = []
    for number in range(DEPTH):
        content = b"%d" % number
        path = StorePath(noise(20, str(number)), f"n{number}")
        references = (*(each.store_path for each in path_infos[-1:]), path)
        [digest] = await store.blobs.put_many([content])
        path_infos.append(PathInfo(path, FileNode(digest, len(content), False), file_nar(content), references))
    return path_infos


async def recorded(store: Store) -> list[PathInfo]:
    path_infos = await chain(store)
    return [await store.path_infos.put(each) for each in path_infos]


async def test_path_infos_may_refer_to_others_of_the_same_call() -> None:
    async with served() as (store, calls):
        path_infos = await chain(store)
        assert store.many_path_infos is not None
        assert await store.many_path_infos.put_many(path_infos) == path_infos
        assert len(calls[bulk("PutPathInfos")]) == 1
        found = await store.path_infos.get_many([each.store_path.output_hash for each in path_infos])
        assert list(found.values()) == path_infos


async def test_path_infos_in_the_wrong_order_are_refused() -> None:
    async with served() as (store, _):
        path_infos = await chain(store)
        assert store.many_path_infos is not None
        with pytest.raises(IncompleteError):
            await store.many_path_infos.put_many(path_infos[::-1])


async def test_a_deep_closure_is_recorded_in_few_calls() -> None:
    async with served() as (target, calls), await open_memory() as source:
        path_infos = await recorded(source)
        outcomes = [each async for each in copy_paths(source, target, path_infos)]
        assert {each.status for each in outcomes} == {Status.COPIED}
        assert sum(map(len, calls.values())) < DEPTH // 3


async def test_a_wrong_path_info_costs_the_paths_that_need_it_and_no_others() -> None:
    async with served() as (target, _), await open_memory() as source:
        path_infos = await recorded(source)
        wrong = replace(path_infos[20], nar=file_nar(b"else"))
        stated = [*path_infos[:20], wrong, *path_infos[21:]]
        outcomes = [each async for each in copy_paths(source, target, stated)]
        assert [each.status for each in outcomes] == [Status.COPIED] * 20 + [Status.FAILED] + [Status.LEFT_OUT] * (DEPTH - 21)
        there = await target.path_infos.existing([each.store_path.output_hash for each in path_infos])
        assert len(there) == 20


async def test_an_older_server_gets_references_first() -> None:
    async with served(PATH_INFOS_VERSION) as (target, calls), await open_memory() as source:
        assert target.many_path_infos is None
        path_infos = await recorded(source)
        outcomes = [each async for each in copy_paths(source, target, path_infos)]
        assert {each.status for each in outcomes} == {Status.COPIED}
        assert sum(map(len, calls.values())) == DEPTH


async def test_a_store_that_says_it_stored_something_else_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as (store, _):
        path_infos = await chain(store)
        monkeypatch.setattr(PathInfo, "decode", lambda _: path_infos[0])
        assert store.many_path_infos is not None
        with pytest.raises(CorruptError, match="stored something else"):
            await store.many_path_infos.put_many(path_infos)
