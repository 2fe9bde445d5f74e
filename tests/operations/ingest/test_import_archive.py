"""import_archive: NARs and tars in any compression, to their very end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compression.samples import FORMATS, compress
from tvix_store.backends.local import open_store as open_local_store
from tvix_store.backends.memory import open_store
from tvix_store.errors import InvalidError
from tvix_store.operations.export.tar import render_tar
from tvix_store.operations.ingest.import_archive import Form, archive_name, import_archive
from tvix_store.testing.content import collect, noise, put_tree
from tvix_store.testing.trees import Tree, TreeFile, castore, nar

TREE: Tree = {bytes([name]): TreeFile(noise(400_000)[name:]) for name in b"abc"}


async def archive_of(form: Form) -> bytes:
    if form == "nar":
        return nar(TREE)
    store = await open_store()
    return await collect(render_tar(store.blobs, store.directories.tree(await put_tree(store, TREE)), b"tree"))


@pytest.fixture(params=["nar", "tar"])
def form(request: pytest.FixtureRequest) -> Form:
    return "nar" if request.param == "nar" else "tar"


@pytest.mark.parametrize("compression", ["none", *FORMATS])
async def test_any_compression_is_found(form: Form, compression: str) -> None:
    packed = compress(compression, await archive_of(form))
    suffix = ".br" if compression == "br" else ".misleading"
    done = await import_archive(await open_store(), io.BytesIO(packed), form, name="tree", suffix=suffix)
    assert done.node == castore(TREE).root
    assert done.path_info is not None
    assert done.path_info.store_path == done.store_path


def flipped(packed: bytes, at: int) -> bytes:
    return packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :] if at >= 0 else flipped(packed, len(packed) + at)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda archive: archive[:1_000_000], "cut short"),
        (lambda archive: archive + b"x", "behind|at byte"),
        (lambda archive: gzip.compress(archive + b"x"), "behind|at byte"),
        (lambda archive: gzip.compress(archive)[:-4], "^gzip: the compressed data is cut short"),
        (lambda archive: flipped(gzip.compress(archive, 0), -8), "^gzip: .*damaged"),
        (lambda archive: bz2.compress(archive)[:-50], "^bzip2: |cut short"),
        (lambda archive: lzma.compress(archive, preset=0) + b"x", "^xz: "),
        (lambda _: b"", "the file is empty"),
        (lambda _: b"neither of them" * 100, "neither a (NAR|tar) nor a known compression of one"),
        (lambda _: b"short", "cut short|neither a tar"),
    ],
)
async def test_a_damaged_archive_leaves_nothing(
    tmp_path: Path, form: Form, damage: Callable[[bytes], bytes], complaint: str
) -> None:
    async with await open_local_store(tmp_path / "store") as store:
        with pytest.raises(InvalidError, match=complaint):
            await import_archive(store, io.BytesIO(damage(await archive_of(form))), form, name="tree")
        assert store.statistics is not None
        counted = await store.statistics.stats()
    assert (counted.path_infos, counted.directories, counted.chunks) == (0, 0, 0)


async def test_a_nar_is_no_tar() -> None:
    with pytest.raises(InvalidError, match="this is a NAR, and not a tar"):
        await import_archive(await open_store(), io.BytesIO(await archive_of("nar")), "tar", name="tree")


async def test_the_name_is_checked_before_anything_is_read(form: Form) -> None:
    file = io.BytesIO(await archive_of(form))
    with pytest.raises(InvalidError, match="not a store path name"):
        await import_archive(await open_store(), file, form, name="a b")
    assert file.tell() == 0


async def test_content_alone_has_no_path_info(form: Form) -> None:
    store = await open_store()
    done = await import_archive(store, io.BytesIO(await archive_of(form)), form, name="tree", path_info=False)
    assert done.path_info is None
    assert await store.path_infos.get(done.store_path.output_hash) is None


async def test_progress_counts_files_and_bytes(form: Form) -> None:
    told: list[tuple[int, int]] = []
    archive = io.BytesIO(await archive_of(form))
    await import_archive(await open_store(), archive, form, name="tree", progress=lambda *some: told.append(some))
    files, size = map(sum, zip(*told, strict=True))
    assert files == 3
    assert size >= sum(400_000 - name for name in b"abc")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("hello-2.12.tar.gz", "hello-2.12"),
        ("hello.tgz", "hello"),
        ("hello.nar.xz", "hello"),
        ("hello.nar", "hello"),
        ("hello.tar", "hello"),
        ("hello.zst", "hello"),
        ("hello-1.0", "hello-1.0"),
        ("a.b.tar.br", "a.b"),
        (".tar", ".tar"),
        (".tgz", ".tgz"),
    ],
)
def test_the_name_is_that_of_the_file_without_what_it_is(file: str, name: str) -> None:
    assert archive_name(file) == name
