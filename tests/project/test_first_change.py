"""The examples of CONTRIBUTING.md keep the contracts, and work as parts of the whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples.first_change.backend import FileBlobs
from examples.first_change.layer import OnlyNamed
from tvix_store import CorruptError, DeniedError, import_tree, open_store
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.cli import program
from tvix_store.cli.lazy_group import Entry
from tvix_store.config import schemes
from tvix_store.services import BlobService, Store
from tvix_store.testing.content import collect, stream
from tvix_store.testing.contracts import BlobServiceContract, PathInfoServiceContract

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/first_change"


class TestFileBlobs(BlobServiceContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobService:
        return FileBlobs(tmp_path)


class TestOnlyNamed(PathInfoServiceContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_memory() as store:
            yield store.with_services(path_infos=OnlyNamed(store.path_infos, ".*"))


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheme `files` is in the table of `config/`."""
    monkeypatch.setitem(schemes.SCHEMES, "files", "examples.first_change.backend")


@pytest.mark.usefixtures("files")
async def test_the_backend_is_a_part_of_a_store(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("content")
    async with await open_store("memory://", blobs=f"files://{tmp_path}/blobs") as store:
        await import_tree(store, tmp_path / "tree")
    [blob] = (tmp_path / "blobs").iterdir()
    assert blob.read_text() == "content"


async def test_the_backend_gives_out_nothing_that_is_damaged(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    digest = await blobs.put(stream([b"content"]))
    (tmp_path / digest.hex).write_text("Content")
    with pytest.raises(CorruptError):
        await collect(blobs.read(digest))


async def test_the_layer_refuses_other_names(tmp_path: Path) -> None:
    (tmp_path / "hello-1.0").touch()
    async with await open_memory() as store:
        layered = store.with_services(path_infos=OnlyNamed(store.path_infos, "hello-.*"))
        info = (await import_tree(layered, tmp_path / "hello-1.0")).path_info
        assert info is not None
        other = replace(info, store_path=replace(info.store_path, name="world"))
        with pytest.raises(DeniedError, match="world is stored elsewhere"):
            await layered.path_infos.put(other)
        assert [each async for each in store.path_infos.list()] == [info]


def test_the_command_is_one_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(program.SECTIONS["Every day"], "names", Entry("examples.first_change.command:names", "Print the names."))
    monkeypatch.setenv("TVIX_STORE", str(tmp_path / "store"))
    for name in ("b", "a"):
        (tmp_path / name).touch()
        assert program.run_program(["import", str(tmp_path / name)]) == 0
    capsys.readouterr()
    assert program.run_program(["names"]) == 0
    assert capsys.readouterr().out == "a\nb\n"


def test_the_backend_has_60_lines() -> None:
    lines = (EXAMPLES / "backend.py").read_text().splitlines()
    assert len(list(filter(str.strip, lines))) <= 60


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_shown_to_contributors(example: Path) -> None:
    assert f"(examples/first_change/{example.name})" in (ROOT / "CONTRIBUTING.md").read_text()
