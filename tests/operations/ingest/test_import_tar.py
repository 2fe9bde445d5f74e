"""import_tar: the tree of any tar, by whatever program; a damaged or hostile one is refused with a line that names the entry."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tarfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from tvix_store.backends.memory import open_store
from tvix_store.cli.counted_blobs import CountedBlobs
from tvix_store.cli.progress import Bar
from tvix_store.errors import ExhaustedError, InvalidError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import SizeRule
from tvix_store.model.nodes import SymlinkNode
from tvix_store.operations.export.tar import render_tar
from tvix_store.operations.ingest import tar_reader, tar_tree
from tvix_store.operations.ingest.import_tar import TarContent, import_tar
from tvix_store.operations.ingest.tar_reader import TarReader, is_header
from tvix_store.services.blobs import SMALL_BLOB
from tvix_store.testing.content import collect, noise, put_tree
from tvix_store.testing.faults import failing, faulty
from tvix_store.testing.strategies import trees
from tvix_store.testing.trees import Tree, TreeFile, castore, nar, write

SMALL: dict[bytes, Tree] = {
    b"bin": {b"hello": TreeFile(b"hello", executable=True), b"empty": TreeFile(b"")},
    b"link": SymlinkNode(b"bin/hello"),
    b"void": {},
}
VARIED: dict[bytes, Tree] = {
    **SMALL,
    b"large": TreeFile(noise(2_000_001)),
    b"larger": TreeFile(noise(SMALL_BLOB + 1), executable=True),
    b"not UTF-8 \xff": {b"\xfe": SymlinkNode(b"\xfd" * 150)},
    "ünïcode".encode(): TreeFile(b"x" * 512),
    b"n" * 255: {b"m" * 255: TreeFile(b"long names"), b"to": SymlinkNode(b"t" * 1000)},
    b"many": {b"%d" % n: TreeFile(noise(n * 11)) for n in range(300)},
}


def cut(archive: bytes, size: int = 10_000) -> Iterator[bytes]:
    return (archive[at : at + size] for at in range(0, len(archive), size))


async def imported(archive: bytes, max_entries: int = tar_tree.MAX_ENTRIES) -> TarContent:
    return await import_tar(await open_store(), cut(archive), max_entries=max_entries)


async def assert_is(archive: bytes, tree: Tree) -> None:
    """The tree of `archive` is `tree`."""
    made = await imported(archive)
    assert made.node == castore(tree).root
    assert made.nar.size == len(nar(tree))


def header(name: str | bytes, kind: bytes = b"0", target: str = "", mode: int = 0o644, **fields: int) -> bytes:
    """A header as Python makes it, in the format of GNU."""
    made = tarfile.TarInfo(os.fsdecode(name))
    made.type, made.linkname, made.mode = kind, target, mode
    for field, value in fields.items():
        setattr(made, field, value)
    return made.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def file(name: str | bytes, contents: bytes = b"", mode: int = 0o644) -> bytes:
    return header(name, size=len(contents), mode=mode) + contents + bytes(-len(contents) % 512)


def directory(name: str) -> bytes:
    return header(name, b"5", mode=0o755)


def symlink(name: str, target: str) -> bytes:
    return header(name, b"2", target)


def hard_link(name: str, target: str) -> bytes:
    return header(name, b"1", target)


def extension(kind: bytes, contents: bytes) -> bytes:
    return header("extension", kind, size=len(contents)) + contents + bytes(-len(contents) % 512)


def pax(**records: str) -> bytes:
    lines = b""
    for keyword, value in records.items():
        line = f" {keyword.replace('_', '.')}={value}\n".encode()
        length = next(n for n in range(len(line), len(line) + 8) if n == len(line) + len(str(n)))
        lines += str(length).encode() + line
    return extension(b"x", lines)


END = bytes(1024)


# --- what programs write


@given(tree=trees())
@settings(max_examples=60)
def test_what_export_writes_is_read(tree: Tree) -> None:
    async def check() -> None:
        store = await open_store()
        node = await put_tree(store, tree)
        archive = await collect(render_tar(store.blobs, store.directories.tree(node), b"name"))
        assert (await imported(archive)).node == node

    asyncio.run(check())


@pytest.mark.parametrize("size", [1, 511, 513, 1 << 20])
async def test_pieces_may_have_any_size(size: int) -> None:
    store = await open_store()
    tree = SMALL if size == 1 else VARIED
    archive = await collect(render_tar(store.blobs, store.directories.tree(await put_tree(store, tree)), b"name"))
    assert (await import_tar(await open_store(), cut(archive, size))).node == castore(tree).root


async def test_a_single_file_or_symlink_is_read() -> None:
    await assert_is(file("hello", b"x", mode=0o755) + END, TreeFile(b"x", executable=True))
    await assert_is(file("hello", noise(SMALL_BLOB * 5)) + END, TreeFile(noise(SMALL_BLOB * 5)))
    await assert_is(symlink("link", "target") + END, SymlinkNode(b"target"))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["ustar", "gnu", "pax"])
async def test_what_python_writes_is_read(tmp_path: Path, form: int) -> None:
    tree = dict(VARIED)
    if form == tarfile.USTAR_FORMAT:  # which has no room for those
        del tree[b"n" * 255], tree[b"not UTF-8 \xff"]
    write(tree, tmp_path / "tree")
    with tarfile.open(tmp_path / "tar", "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        archive.add(tmp_path / "tree", "tree")
    await assert_is((tmp_path / "tar").read_bytes(), tree)


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "pax"])
async def test_what_tar_writes_is_read(tmp_path: Path, form: str) -> None:
    tree = dict(VARIED)
    if form in ("v7", "ustar"):
        del tree[b"n" * 255], tree[b"not UTF-8 \xff"]
    write(tree, tmp_path / "tree")
    (tmp_path / "tree/hard").hardlink_to(tmp_path / "tree/bin/hello")
    (tmp_path / "tree/zhard").hardlink_to(tmp_path / "tree/link")
    command = ["tar", f"--format={form}", "--sort=name", "-c", "tree"]
    archive = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, check=True).stdout  # noqa: ASYNC221
    await assert_is(archive, {**tree, b"hard": TreeFile(b"hello", executable=True), b"zhard": SymlinkNode(b"bin/hello")})


async def test_a_directory_that_tar_was_in_is_the_root(tmp_path: Path) -> None:
    write({b"only": {b"file": TreeFile(b"x")}}, tmp_path / "tree")
    command = ["tar", "-c", "."]
    archive = subprocess.run(command, cwd=tmp_path / "tree", stdout=subprocess.PIPE, check=True).stdout  # noqa: ASYNC221
    await assert_is(archive, {b"only": {b"file": TreeFile(b"x")}})


# --- odd ones


@pytest.mark.parametrize(
    ("members", "tree"),
    [
        (file("a/b/c", b"x"), {b"b": {b"c": TreeFile(b"x")}}),
        (file("a/b", b"x") + directory("a"), {b"b": TreeFile(b"x")}),
        (directory("a") + directory("a") + file("a//./b", b"x"), {b"b": TreeFile(b"x")}),
        (file("./a/b") + symlink("./c", "d"), {b"a": {b"b": TreeFile(b"")}, b"c": SymlinkNode(b"d")}),
        (file("./a/b"), {b"b": TreeFile(b"")}),
        (directory("./") + file("./a/b"), {b"a": {b"b": TreeFile(b"")}}),
        (directory("."), {}),
        (directory("a/"), {}),
        (header("a/", b"\0"), {}),
        (header("a", b"7", size=0), TreeFile(b"")),
        (file("z") + file("a"), {b"a": TreeFile(b""), b"z": TreeFile(b"")}),
        (file("d/a", b"x") + file("d/a", b"x"), {b"a": TreeFile(b"x")}),
        (symlink("d/a", "x") + symlink("d/a", "x"), {b"a": SymlinkNode(b"x")}),
        (file("d/a", b"x") + hard_link("d/a", "./d/a"), {b"a": TreeFile(b"x")}),
        (file("d/a", b"x", 0o755) + hard_link("d/b", "d/a"), {b"a": TreeFile(b"x", True), b"b": TreeFile(b"x", True)}),
        (file("a", mode=0o677), TreeFile(b"", executable=False)),
        (pax(path="long/name") + file("short", b"x"), {b"name": TreeFile(b"x")}),
        (pax(path="") + file("short/name", b"x"), {b"name": TreeFile(b"x")}),
        (pax(linkpath="far") + symlink("link", "near"), SymlinkNode(b"far")),
        (pax(size="3") + header("a") + b"abc" + bytes(509), TreeFile(b"abc")),
        (pax(mtime="1.5", SCHILY_xattr_user="x=y\nz") + file("a"), TreeFile(b"")),
        (extension(b"g", b"13 comment=x\n") + file("a"), TreeFile(b"")),
        (extension(b"L", b"far/name\0") + extension(b"K", b"target\0") + symlink("a", "b"), {b"name": SymlinkNode(b"target")}),
    ],
)
async def test_odd_archives_are_read(members: bytes, tree: Tree) -> None:
    await assert_is(members + END, tree)


async def test_a_prefix_is_a_part_of_the_name_in_ustar_alone() -> None:
    def prefixed(magic: bytes) -> bytes:
        block = bytearray(header("name"))
        block[257:265] = magic
        block[345:351] = b"prefix"
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)

    await assert_is(prefixed(b"ustar\x0000") + END, {b"name": TreeFile(b"")})
    await assert_is(prefixed(b"ustar  \0") + END, TreeFile(b""))  # the times of GNU's incremental archives lie there


async def test_checksums_of_old_programs_are_right() -> None:
    block = bytearray(header(b"\xff\xff"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) - 512)
    assert is_header(bytes(block))
    await assert_is(bytes(block) + END, TreeFile(b""))


async def test_sizes_of_directories_follow_the_rule() -> None:
    content = await import_tar(await open_store(), cut(file("a/b/c") + END), size_rule=SizeRule.SNIX)
    assert content.node == castore({b"b": {b"c": TreeFile(b"")}}, SizeRule.SNIX).root


@pytest.mark.parametrize(
    ("members", "depth"), [(file("a"), 1), (directory("./"), 1), (file("a/b"), 2), (file("a/b/c") + file("b"), 4)]
)
async def test_the_depth_is_told(members: bytes, depth: int) -> None:
    assert (await imported(members + END)).depth == depth


async def test_progress_counts_files_and_bytes() -> None:
    told: list[tuple[int, int]] = []
    archive = file("d/a", b"abc") + file("d/b", noise(SMALL_BLOB + 1)) + directory("d/c") + END
    await import_tar(await open_store(), cut(archive), progress=lambda files, size: told.append((files, size)))
    assert tuple(map(sum, zip(*told, strict=True))) == (2, SMALL_BLOB + 4)


# --- what is refused


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        (file("/etc/passwd"), r"entry '/etc/passwd': .* absolute"),
        (file("a/../../b"), r"entry 'a/\.\./\.\./b': .* leads out of a directory"),
        (file(".."), r"entry '\.\.': .* leads out"),
        (file("."), r"entry '\.': a file cannot be the root"),
        (symlink(".", "a"), r"entry '\.': a symlink cannot be the root"),
        (symlink("a", "/etc") + file("a/passwd"), r"entry 'a/passwd': it is below 'a', which is a symlink to '/etc'"),
        (file("a") + file("a/b/c"), r"entry 'a/b/c': it is below 'a', which is a file"),
        (file("a", b"x") + file("a", b"y"), r"entry 'a' is there twice, as two different files"),
        (file("a", b"x") + file("a", b"x", 0o755), r"entry 'a' is there twice, as two different files"),
        (file("a", noise(SMALL_BLOB + 1)) + file("a", noise(SMALL_BLOB + 1, "b")), r"entry 'a' is there twice"),
        (file("a") + directory("a"), r"entry 'a/': it is there before, as a file"),
        (file("a") + symlink("a", "b"), r"entry 'a': it is there before, as a file"),
        (directory("a") + file("a"), r"entry 'a': it is there before, as a directory"),
        (symlink("a", "b") + symlink("a", "c"), r"entry 'a': it is there before, as a symlink to 'b'"),
        (hard_link("a", "b") + file("b"), r"entry 'a': it is a hard link to 'b', which is no file before it"),
        (file("b") + hard_link("a", "/b"), r"entry 'a': '/b' is an absolute path"),
        (directory("b") + hard_link("a", "b"), r"entry 'a': it is a hard link to 'b'"),
        (symlink("b", ".") + file("c") + hard_link("a", "b/c"), r"entry 'a': it is a hard link to 'b/c'"),
        (symlink("a", ""), r"entry 'a': a symlink's target is empty"),
        (symlink("a", "x" * 5000), r"entry 'a': symlink target .* is longer"),
        (file("d/" + "x" * 256), r"entry 'd/x+'…: child name 'x+'… is longer than 255 bytes"),
        (file("x" * 256 + "/d"), r"child name 'x+'… is longer than 255 bytes"),
        (pax(path="a\0b") + file("c"), r"entry 'a\\x00b': child name 'a\\x00b' holds a slash or a NUL"),
        (header("a", b"3"), r"entry 'a' is a character device"),
        (header("a", b"4"), r"entry 'a' is a block device"),
        (header("a", b"6"), r"entry 'a' is a FIFO"),
        (header("a", b"s"), r"entry 'a' is of the unknown kind 's'"),
        (header("a", b"V"), r"entry 'a' is of the unknown kind 'V'"),
        (pax(GNU_sparse_major="1") + file("a"), r"entry 'a' is a sparse file; make the archive without --sparse"),
        (extension(b"g", b"10 path=x\n") + file("a"), r"global header before byte 1024 sets the path of all entries"),
        (extension(b"x", b"11 path=ab\n"[:-1] + b"x") + file("a"), r"byte 1024 has a record without an end"),
        (extension(b"x", b"99 path=ab\n") + file("a"), r"byte 1024 has a record without an end"),
        (extension(b"x", b"8 comment\n") + file("a"), r"byte 1024 has a record without an end"),
        (extension(b"x", b"0 a=b\n") + file("a"), r"byte 1024 has a record without an end"),
        (extension(b"x", b"x a=b\n") + file("a"), r"byte 1024 has the number 'x'"),
        (extension(b"x", b"1" * 100) + file("a"), r"byte 1024 has the number"),
        (pax(size="-1") + file("a"), r"byte 1024 has the number '-1'"),
        (pax(path="a"), r"ends where its last header announces a member"),
        (b"", r"the archive has no entries"),
        (file("a") + END + b"x", r"the archive goes on behind its end"),
        (file("a") + b"x" * 512, r"the header at byte 512 does not match its checksum"),
        (b"x" * 512, r"no tar: the header at byte 0 does not match its checksum"),
    ],
)
async def test_a_hostile_archive_is_refused(members: bytes, complaint: str) -> None:
    with pytest.raises(InvalidError, match=complaint):
        await imported(members + END)


async def test_a_sparse_file_of_gnu_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 20)
    for form in ("gnu", "oldgnu", "pax"):
        command = ["tar", f"--format={form}", "--sparse", "-c", "sparse"]
        archive = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, check=True).stdout  # noqa: ASYNC221
        with pytest.raises(InvalidError, match=r"sparse.* is a sparse file"):
            await imported(archive)


WHOLE = file("d/a", b"contents") + pax(path="d/" + "x" * 200) + file("short", b"x" * 600) + symlink("d/link", "a") + END


async def test_an_archive_that_is_cut_short_is_refused() -> None:
    await imported(WHOLE[:-512])  # one block of zeros is an end, if not a right one
    for size in {*range(1, len(WHOLE) - 512, 100), *range(512, len(WHOLE) - 512, 512)}:
        with pytest.raises(InvalidError, match=f"cut short: it ends at byte {size}$"):
            await imported(WHOLE[:size])


@pytest.mark.parametrize("at", [0, 100, 124, 148, 156, 1024, 1024 + 124])
async def test_a_damaged_header_is_refused(at: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] ^= 1
    with pytest.raises(InvalidError, match="does not match its checksum"):
        await imported(bytes(damaged))


async def test_too_many_entries_are_refused() -> None:
    archive = file("a/b/c") + file("d") + END
    await imported(archive, max_entries=4)
    with pytest.raises(InvalidError, match="more than 3 entries"):
        await imported(archive, max_entries=3)


async def test_too_many_bytes_of_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = file("n" * 200) + symlink("b", "t" * 200) + END
    monkeypatch.setattr(tar_tree, "MAX_NAMES", 256 * 2 + 401)
    await imported(archive)
    monkeypatch.setattr(tar_tree, "MAX_NAMES", 256 * 2 + 400)
    with pytest.raises(ExhaustedError, match="the names in the archive take more than 912 bytes"):
        await imported(archive)


def test_too_many_headers_are_refused() -> None:
    archive = extension(b"g", b"13 comment=x\n") * 3 + file("a") + END
    assert len(list(TarReader(cut(archive), max_headers=4).members())) == 1
    with pytest.raises(InvalidError, match="more than 3 headers"):
        list(TarReader(cut(archive), max_headers=3).members())


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_of_any_size_is_not_read(kind: bytes) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield header("extension", kind, size=tar_reader.MAX_EXTENSION + 1)
        while True:
            taken += 1
            yield bytes(512)

    with pytest.raises(ExhaustedError, match="the extended header at byte 512 has 1048577 bytes"):
        next(TarReader(endless()).members())
    assert not taken


@pytest.mark.parametrize("size", [(1 << 40) + 1, 1 << 70])
def test_a_file_of_any_size_is_not_begun(size: int) -> None:
    with pytest.raises(ExhaustedError, match=f"entry 'a' has {size} bytes; a file has at most"):
        next(TarReader(iter([header("a", size=size)])).members())


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InvalidError, match="damaged"):
        next(TarReader(iter([header("a", size=-1)])).members())


@pytest.mark.parametrize("size", [100, SMALL_BLOB * 20])
async def test_an_error_of_the_store_ends_the_import(size: int) -> None:
    store = faulty(await open_store(), failing(UnavailableError("gone")))
    with pytest.raises(UnavailableError, match="gone"):
        await import_tar(store, cut(file("a", noise(size)) + END))


class Counting(CountedBlobs):
    """Counts the bytes that are put."""

    stored = 0

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        async def counted() -> AsyncIterator[bytes]:
            async for piece in data:
                self.stored += len(piece)
                yield piece

        return await super().put(counted())


async def test_a_large_file_is_not_kept() -> None:
    base = await open_store()
    blobs = Counting(base.blobs, Bar())
    ahead = []

    def pieces() -> Iterator[bytes]:
        yield header("a", size=64 << 20)
        for n in range(64):
            ahead.append((n << 20) - blobs.stored)
            yield bytes(1 << 20)
        yield END

    await import_tar(base.with_services(blobs=blobs), pieces())
    assert blobs.stored == 64 << 20
    assert max(ahead) <= 5 << 20
