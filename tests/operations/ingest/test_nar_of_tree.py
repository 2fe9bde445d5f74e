"""nar_of_tree, held against what an import finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.ingest.test_import_tree import TREE
from tvix_store.backends.memory import open_store
from tvix_store.errors import NotFoundError
from tvix_store.operations.ingest.import_tree import import_tree
from tvix_store.operations.ingest.nar_of_tree import nar_of_tree
from tvix_store.testing import trees


async def test_the_nar_is_that_of_the_imported_tree(tmp_path: Path) -> None:
    trees.write(TREE, tmp_path / "tree")
    async with await open_store() as store:
        assert nar_of_tree(tmp_path / "tree") == (await import_tree(store, tmp_path / "tree")).nar


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"cannot read .*/nothing: No such file"):
        nar_of_tree(tmp_path / "nothing")
