"""A power of a store goes with the services that it is bound to."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args

import pytest

import tvix_store
from tvix_store.backends.memory import open_store as open_memory_store
from tvix_store.config import open_store, read_only, verified
from tvix_store.errors import DeniedError
from tvix_store.layers.read_only import ReadOnlyBlobs, ReadOnlyDirectories, ReadOnlyPathInfos, ReadOnlyRecords
from tvix_store.model.digest import Digest
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.services.blobs import Chunk
from tvix_store.services.offer import POWERS, Power, Service
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, put_file, stream
from tvix_store.testing.faults import delaying, faulty


async def full(tmp_path: Path) -> Store:
    """A store that has all powers, as far as one can have them."""
    return await open_store(str(tmp_path / "store"))


def test_every_power_is_bound_to_some_services() -> None:
    assert POWERS.keys() == set(get_args(Power))
    assert all(bound and bound <= set(get_args(Service)) for bound in POWERS.values())


@pytest.mark.parametrize("service", get_args(Service))
async def test_a_replaced_service_takes_exactly_its_powers_with_it(tmp_path: Path, service: Service) -> None:
    async with await full(tmp_path) as store:
        new: Any = {
            "blobs": ReadOnlyBlobs(store.blobs),
            "directories": ReadOnlyDirectories(store.directories),
            "path_infos": ReadOnlyPathInfos(store.path_infos),
            "nar": store.nar,
            "records": ReadOnlyRecords(store.records) if store.records else None,
        }
        changed = store.with_services(**{service: new[service]})
        assert getattr(changed, service) is new[service]
        for power, bound in POWERS.items():
            assert getattr(changed, power) is (None if service in bound else getattr(store, power)), power


async def test_a_power_may_be_kept_that_the_new_service_would_let_do_the_same(tmp_path: Path) -> None:
    async with await full(tmp_path) as store:
        changed = store.with_services(blobs=ReadOnlyBlobs(store.blobs), keep=["frames"])
        assert changed.frames is store.frames is not None
        assert changed.staging is None


async def test_a_read_only_store_takes_no_records_but_what_follows_from_its_content(tmp_path: Path) -> None:
    async with await full(tmp_path) as store:
        node = await put_file(store.blobs, b"content")
        link = NarLink(await store.nar.calculate(node), node)
        reader = read_only(store)
        assert reader.records is not None
        for refused in ({b"document:log/x": b"x"}, {b"theirs:x": b"x"}, {b"document:x": b"", b"nar:x": b""}):
            with pytest.raises(DeniedError, match="read-only"):
                await reader.records.put(refused)
        links = NarLinks.of(reader)
        assert links is not None
        await links.put(link)
        assert await links.get(link.nar.sha256) == link


async def test_nothing_writes_past_the_services_of_a_read_only_store(tmp_path: Path) -> None:
    async with await full(tmp_path) as store:
        reader = read_only(store)
        kept = {power for power in POWERS if getattr(reader, power) is not None}
        assert kept == {"frames", "granular", "deltas", "named_paths", "arrivals", "statistics", "known_nars"}
        assert reader.granular is not None
        assert reader.deltas is not None
        for put in (
            reader.deltas.apply(Digest.of(b""), Chunk(Digest.of(b""), 0), b""),
            reader.granular.put_chunks([]),
            reader.granular.put_directories([]),
            reader.granular.assemble(Digest.of(b""), []),
        ):
            with pytest.raises(DeniedError, match="read-only"):
                await put


PARTLY = {"frames", "assembling", "deltas", "named_paths", "arrivals", "removal", "statistics", "known_nars"}
"""The powers of a store whose blobs alone come from one store."""


async def test_services_of_one_store_keep_the_powers_that_are_theirs(tmp_path: Path) -> None:
    content, path_infos = str(tmp_path / "content"), str(tmp_path / "path-infos")
    async with await open_store(content, path_infos=path_infos) as store:
        assert {power for power in POWERS if getattr(store, power) is not None} == PARTLY | {"staging", "granular"}
    async with await open_store(content, directories=path_infos) as store:
        assert {power for power in POWERS if getattr(store, power) is not None} == PARTLY
    async with await open_store(path_infos, blobs=content) as store:
        assert {power for power in POWERS if getattr(store, power) is not None} == PARTLY


async def test_a_verified_store_keeps_what_writes_no_path_infos(tmp_path: Path) -> None:
    async with verified(await full(tmp_path), require_references=True) as store:
        assert {power for power in POWERS if getattr(store, power) is not None} == POWERS.keys() - {"lone_files", "many_path_infos"}


async def test_no_power_reads_or_writes_past_faults(tmp_path: Path) -> None:
    async with faulty(await full(tmp_path), delaying(0)) as store:
        assert [power for power in POWERS if getattr(store, power) is not None] == ["known_nars"]


async def test_an_import_stages_its_content_alone() -> None:
    store = await open_memory_store()
    assert store.staging is not None
    stage = store.staging.begin()
    staged = store.with_services(blobs=stage.blobs, directories=stage.directories)
    await staged.blobs.put(stream([noise(1000)]))
    assert staged.assembling is None
    assert staged.records is store.records
    await stage.close()


def test_services_are_replaced_by_with_services_alone() -> None:
    """`dataclasses.replace` would keep powers that write past the new service."""
    found = []
    for module in Path(tvix_store.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(module.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "replace":
                found += [f"{module.name}:{call.lineno}" for each in call.keywords if each.arg in get_args(Service)]
    assert found == []
