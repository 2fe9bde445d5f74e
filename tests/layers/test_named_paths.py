"""ListedNames finds the other versions of a package."""

from __future__ import annotations

from dataclasses import replace

from tvix_store.backends.memory import open_store
from tvix_store.layers.named_paths import ListedNames
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import noise
from tvix_store.testing.contracts.path_infos import stored_file


async def put(store: Store, *names: str) -> dict[str, StorePath]:
    info = await stored_file(store, "content")
    paths = {name: StorePath(noise(20, name), name) for name in names}
    for path in paths.values():
        await store.path_infos.put(replace(info, store_path=path))
    return paths


async def test_the_nearest_version_comes_first_and_newer_ones_last() -> None:
    async with await open_store() as store:
        paths = await put(
            store, "go-1.9", "go-1.22.1", "go-1.22.10", "go-1.22.3", "go-2", "go-1.22.3-doc", "gopher-1.22.3", "go", "go-1.22.2"
        )
        names = ListedNames(store.path_infos)
        found = await names.versions(paths["go-1.22.3"])
        assert [each.name for each in found] == ["go-1.22.2", "go-1.22.1", "go-1.9", "go", "go-1.22.10", "go-2"]
        assert await names.versions(paths["go-1.22.3-doc"]) == []
        rebuilt = StorePath(noise(20, "rebuilt"), "go-1.22.3")
        assert (await names.versions(rebuilt))[0] == paths["go-1.22.3"]


async def test_new_paths_are_found_after_a_while() -> None:
    async with await open_store() as store:
        await put(store, "a-1")
        names = ListedNames(store.path_infos)
        asked = StorePath(noise(20, "asked"), "a-3")
        assert len(await names.versions(asked)) == 1
        await put(store, "a-2")
        assert len(await names.versions(asked)) == 1
        names._until = 0.0  # as if that time had passed
        assert [each.name for each in await names.versions(asked)] == ["a-2", "a-1"]
