"""Memory of the objects of trees is bounded, of files too, which have no directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.objectstore.packed.counted_bucket import CountedBucket
from tests.backends.objectstore.packed.packed_stores import open_packed, put_path
from tvix_store.backends.objectstore.packed import hints, trees
from tvix_store.backends.objectstore.packed.engine import Engine
from tvix_store.backends.objectstore.packed.hints import Hints, TreeHints
from tvix_store.backends.objectstore.packed.trees import Trees
from tvix_store.testing.content import collect, noise
from tvix_store.testing.trees import TreeFile


async def test_few_trees_of_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "_KEPT", 3 * 2500)
    opened: list[Trees] = []

    def open_trees(engine: Engine) -> Trees:
        opened.append(Trees(engine))
        return opened[-1]

    monkeypatch.setattr("tvix_store.backends.objectstore.Trees", open_trees)
    bucket = CountedBucket()
    async with await open_packed(bucket, tmp_path / "one") as one:
        infos = [await put_path(one, TreeFile(noise(100, f"{number}")), f"file-{number}") for number in range(8)]
    async with await open_packed(bucket, tmp_path / "cold") as cold:
        for number, info in enumerate(infos):
            assert await collect(cold.blobs.read(info.node.digest)) == noise(100, f"{number}")  # type: ignore[union-attr]
    assert len(opened[-1]._kept) == 3


def test_few_trees_give_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "_MOST_TREES", 5)
    kept = Hints()
    for number in range(20):
        kept.add(b"%d" % (number // 2), TreeHints({}))
    assert len(kept._trees) == 5
