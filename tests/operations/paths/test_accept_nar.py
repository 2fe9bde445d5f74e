"""accept_nar: content, facts and link become visible together, or nothing does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.backends.local.committer_watch import watch_requests
from tvix_store.backends import memory
from tvix_store.backends.local import open_store as open_local_store
from tvix_store.config import open_store
from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.paths.accept_nar import accept_nar
from tvix_store.services.store import Store
from tvix_store.testing import trees
from tvix_store.testing.content import collect, noise, pieces
from tvix_store.testing.trees import Tree, TreeFile

SMALL: Tree = {b"a": TreeFile(b"small"), b"b": {b"c": TreeFile(b"another")}}
CONTENTS = TreeFile(noise(2_000_000, "accepted"))
LARGE: Tree = {b"a": TreeFile(b"small"), b"large": CONTENTS}
FILE = b"f" * 32


@pytest.fixture(params=["memory", "local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opening = memory.open_store() if request.param == "memory" else open_local_store(tmp_path / "store")
    async with await opening as store:
        yield store


def links_of(store: Store) -> NarLinks:
    links = NarLinks.of(store)
    assert links is not None
    return links


async def accepted(store: Store, tree: Tree, *, refused: bool = False) -> NarLink:
    """Accept the NAR of a tree, after looking whether something of it is visible too early."""
    data = trees.nar(tree)

    async def nar() -> AsyncIterator[bytes]:
        async for piece in pieces(data, 100_000):
            yield piece

    def check(facts: NarFacts) -> Sequence[bytes]:
        assert facts.size == len(data)
        if refused:
            raise InvalidError("it is another NAR")
        return (FILE,)

    return await accept_nar(store, nar(), FILE, check)


async def is_absent(store: Store) -> bool:
    blobs = [Digest.of(b"small"), Digest.of(b"another"), Digest.of(CONTENTS.contents)]
    return await store.blobs.missing(blobs) == set(blobs) and await links_of(store).get(FILE) is None


@pytest.mark.parametrize("tree", [SMALL, LARGE, TreeFile(b"small"), CONTENTS], ids=["small", "large", "a file", "a large one"])
async def test_all_of_it_is_there(store: Store, tree: Tree) -> None:
    for _ in range(2):  # sent again, it is looked at
        link = await accepted(store, tree)
        assert await links_of(store).get(FILE) == link
        assert await links_of(store).get(link.nar.sha256) == link
        assert await store.nar.calculate(link.node) == link.nar
        assert await collect(render_nar(store.blobs, store.directories.tree(link.node))) == trees.nar(tree)


@pytest.mark.parametrize("tree", [SMALL, LARGE], ids=["small", "large"])
async def test_of_what_is_refused_nothing_is_there(store: Store, tree: Tree) -> None:
    with pytest.raises(InvalidError, match="another NAR"):
        await accepted(store, tree, refused=True)
    assert await is_absent(store)
    await accepted(store, tree)


@pytest.mark.parametrize("tree", [SMALL, LARGE], ids=["small", "large"])
async def test_what_is_damaged_is_mended_when_the_nar_is_sent_again(tmp_path: Path, tree: Tree) -> None:
    """Also where nobody has found the damage."""
    async with await open_local_store(tmp_path / "store") as store:
        link = await accepted(store, tree)
        engine = store.blobs._engine  # type: ignore[attr-defined]
        for content in (b"small", trees.castore(tree).directories[-1].encoded):
            key = Digest.of(content).raw
            place = engine.index.chunk(key) or engine.index.directory(key)
            with (tmp_path / f"store/packs/{place.pack:08x}.pack").open("r+b") as pack:
                pack.seek(place.offset)
                pack.write(bytes(place.stored))
        assert await accepted(store, tree) == link
        assert await collect(render_nar(store.blobs, store.directories.tree(link.node))) == trees.nar(tree)


@pytest.mark.parametrize("tree", [SMALL, LARGE], ids=["small", "large"])
async def test_in_a_store_without_stages_the_link_comes_last(store: Store, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    target = replace(store, staging=None)

    async def full(_: object) -> Any:
        raise ExhaustedError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(target.directories, "put", full)
        with pytest.raises(ExhaustedError):
            await accepted(target, tree)
    assert await links_of(store).get(FILE) is None
    link = await accepted(target, tree)
    assert await links_of(store).get(FILE) == link


@pytest.mark.parametrize("tree", [SMALL, LARGE], ids=["small", "large"])
async def test_links_stand_beside_path_infos(tmp_path: Path, tree: Tree) -> None:
    async with await open_store(str(tmp_path / "content"), path_infos=str(tmp_path / "path-infos")) as store:
        with pytest.raises(InvalidError):
            await accepted(store, tree, refused=True)
        assert await is_absent(store)
        link = await accepted(store, tree)
        assert await links_of(store).get(FILE) == link
    async with await open_local_store(tmp_path / "content") as content:
        assert await links_of(content).get(FILE) is None
        assert await content.nar.calculate(link.node) == link.nar
    async with await open_local_store(tmp_path / "path-infos") as path_infos:
        assert await links_of(path_infos).get(FILE) == link


async def test_a_small_nar_waits_for_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await open_local_store(tmp_path / "store") as store:
        asked = watch_requests(monkeypatch)
        await accepted(store, SMALL)
    assert len(asked) == 1
