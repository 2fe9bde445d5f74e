"""Parts of trees in a file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import SizeRule
from tvix_store.operations.ingest.tree_files import TreeFiles
from tvix_store.services.blobs import Chunk
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

SMALL, LARGE = b"small", noise(3_000_000, "large")
CONTENTS = [Chunk(Digest.of(content), len(content)) for content in (SMALL, LARGE)]


async def contents(files: TreeFiles) -> list[bytes]:
    """What the chunks of the two files are together."""
    lists = await files.list_chunks(CONTENTS)
    assert [len(lists[0]), len(lists[1]) > 5] == [1, True]
    return [b"".join(bytes(chunk.stored) for chunk in await files.get_chunks(chunks)) for chunks in lists]


def tree(directory: Path) -> Path:
    trees.write({b"small": TreeFile(SMALL), b"large": TreeFile(LARGE)}, directory)
    return directory


async def test_parts_are_there_as_long_as_a_tree_with_them_is(tmp_path: Path) -> None:
    files = TreeFiles()
    async with files.scanned(tree(tmp_path / "one"), SizeRule.DOCUMENTED, 1) as one:
        assert list(one.directories) == [one.node.digest]  # type: ignore[union-attr]
        async with files.scanned(tree(tmp_path / "other"), SizeRule.DOCUMENTED, 1) as other:
            assert other.node == one.node
            assert await contents(files) == [SMALL, LARGE]
        assert await contents(files) == [SMALL, LARGE]
    with pytest.raises(NotFoundError):
        await contents(files)
    await files.close()


async def test_a_file_that_changes_is_named(tmp_path: Path) -> None:
    files = TreeFiles()
    async with files.scanned(tree(tmp_path / "tree"), SizeRule.DOCUMENTED, 1):
        [_, chunks] = await files.list_chunks(CONTENTS)
        file = tmp_path / "tree/large"
        file.chmod(0o644)
        file.write_bytes(b"short")
        with pytest.raises(InvalidError, match="tree/large changed while it was read"):
            await files.get_chunks(chunks)
        with pytest.raises(InvalidError, match="tree/large changed while it was read"):
            await files.list_chunks(CONTENTS)
        file.unlink()
        other = tmp_path / "other"
        other.write_bytes(bytes(len(LARGE)))
        file.symlink_to(other)
        with pytest.raises(InvalidError, match="tree/large changed while it was read"):
            await files.get_chunks(chunks)
        file.unlink()
        with pytest.raises(InvalidError, match="tree/large changed while it was read"):
            await files.get_chunks(chunks)
        (tmp_path / "tree").rename(tmp_path / "before")
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets/large").write_bytes(bytes(len(LARGE)))
        (tmp_path / "tree").symlink_to("secrets")
        with pytest.raises(InvalidError, match="tree/large changed while it was read"):
            await files.get_chunks(chunks)
    await files.close()
