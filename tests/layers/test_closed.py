"""Where references are required, no path is there without its closure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.rpc.drive import request
from tvix_store.backends.memory import open_store
from tvix_store.config import verified
from tvix_store.errors import IncompleteError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.protocol.dialects import DIALECTS, Dialect
from tvix_store.rpc.framing import frame
from tvix_store.rpc.services import serve_store
from tvix_store.rpc.status import Status
from tvix_store.services.store import Store
from tvix_store.testing.content import put_file

OTHER = StorePath(b"r" * 20, "reference")
OWN = StorePath(b"o" * 20, "path")


@pytest.fixture
async def store() -> Store:
    return await open_store()


async def path_info(store: Store, path: StorePath, *references: StorePath) -> PathInfo:
    node = await put_file(store.blobs, b"content")
    return PathInfo(path, node, await store.nar.calculate(node), references)


@pytest.mark.parametrize("absent", [[OTHER], [OTHER, StorePath(b"s" * 20, "second")], [StorePath(b"o" * 20, "of-another-name")]])
async def test_a_path_is_refused_before_what_it_refers_to(store: Store, absent: list[StorePath]) -> None:
    closed = verified(store, require_references=True)
    info = await path_info(store, OWN, *absent)
    with pytest.raises(IncompleteError, match=f"refers to {absent[0]}.*not in the store; put that first"):
        await closed.path_infos.put(info)
    assert await store.path_infos.get(OWN.output_hash) is None


async def test_a_path_is_taken_after_what_it_refers_to_and_may_refer_to_itself(store: Store) -> None:
    closed = verified(store, require_references=True)
    await closed.path_infos.put(await path_info(store, OTHER))
    info = await path_info(store, OWN, OWN, OTHER)
    assert await closed.path_infos.put(info) == info
    assert await closed.path_infos.get(OWN.output_hash) == info
    assert len([each async for each in closed.path_infos.list()]) == 2


async def test_references_are_looked_up_before_the_nar_is_calculated(store: Store) -> None:
    info = await path_info(store, OWN, OTHER)
    wrong = replace(info, nar=replace(info.nar, size=1))
    with pytest.raises(IncompleteError, match="refers to"):
        await verified(store, require_references=True).path_infos.put(wrong)


async def test_they_are_not_required_unless_wanted(store: Store) -> None:
    info = await path_info(store, OWN, OTHER)
    assert await verified(store).path_infos.put(info) == info


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_a_put_over_grpc_is_refused_as_one_over_http(store: Store, dialect: Dialect) -> None:
    app, _ = serve_store(verified(store, require_references=True))
    outcome = await request(app, dialect.path_info("Put"), [frame((await path_info(store, OWN, OTHER)).encoded)])
    assert (outcome.status, "put that first" in outcome.message) == (Status.FAILED_PRECONDITION, True)
