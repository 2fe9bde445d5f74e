"""A store as `tvix_store.open_store` opens it."""

from __future__ import annotations

import asyncio
import gc
import io
import lzma
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tvix_store import (
    ClosedError,
    Digest,
    Directory,
    InvalidError,
    Store,
    StorePath,
    SymlinkNode,
    copy_paths,
    export_tree,
    import_nar,
    import_tree,
    named_path_infos,
    open_store,
    read_bytes,
    read_file,
    read_text,
    render_nar,
    resolve,
    verified,
    walk,
)
from tvix_store.library import opened
from tvix_store.library.store import _FACTS, _OWN

CONTENT = b"some content\n" * 40_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "hello"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/hello").write_text("echo hällo\n")
    (tree / "link").symlink_to("bin/hello")
    return tree


@pytest.fixture(params=["memory://", "local"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"local://{tmp_path}/store" if request.param == "local" else str(request.param)


async def pieces() -> AsyncIterator[bytes]:
    yield CONTENT[:100]
    yield CONTENT[100:]


def generated() -> Iterator[bytes]:
    yield CONTENT[:100]
    yield CONTENT[100:]


async def test_it_opens_with_and_without_await() -> None:
    opening = open_store("memory://")
    assert "await it" in repr(opening)
    await (await opening).close()
    async with open_store("memory://") as store:
        digest = await store.blobs.put(CONTENT)
    async with await open_store("memory://") as store:
        assert await store.blobs.put(CONTENT) == digest
    store = await open_store("memory://")
    assert await store.blobs.put(CONTENT) == digest
    await store.close()
    await store.close()


async def test_it_opens_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store(Path("with:colon")) as store:
        assert (tmp_path / "with:colon").is_dir()
        assert str(tmp_path / "with:colon") in repr(store)


@pytest.mark.parametrize(
    "data",
    [
        lambda: CONTENT,
        lambda: bytearray(CONTENT),
        lambda: memoryview(CONTENT),
        lambda: io.BytesIO(CONTENT),
        lambda: [CONTENT[:3], CONTENT[3:]],
        generated,
        pieces,
    ],
    ids=["bytes", "bytearray", "memoryview", "file", "list", "generator", "stream"],
)
async def test_a_blob_is_put_from_whatever_is_at_hand(data: Callable[[], Any]) -> None:
    async with open_store("memory://") as store:
        assert await store.blobs.put(data()) == Digest.of(CONTENT)


@pytest.mark.parametrize(
    ("data", "said"),
    [("text", "encode it first"), (io.StringIO("text"), "mode 'rb'"), (7, "not int")],
    ids=["text", "text file", "int"],
)
async def test_what_is_no_bytes_is_refused(data: Any, said: str) -> None:
    async with open_store("memory://") as store:
        with pytest.raises(InvalidError, match=said):
            await store.blobs.put(data)


async def test_an_empty_address_is_not_the_default_store() -> None:
    with pytest.raises(InvalidError, match="is empty; leave it out"):
        await open_store("")


@pytest.mark.parametrize("part", [(-1, None), (0, -1)])
async def test_a_part_of_a_blob_is_counted_from_its_begin(part: tuple[int, int | None]) -> None:
    async with open_store("memory://") as store:
        digest = await store.blobs.put(b"content")
        with pytest.raises(InvalidError, match="counted from its begin"):
            store.blobs.read(digest, *part)
        assert [piece async for piece in store.blobs.read(digest, 4, 99)] == [b"ent"]


async def test_directories_are_put_from_a_list() -> None:
    leaf = Directory({b"hi": SymlinkNode(b"hello")})
    root = Directory({b"bin": leaf.node()})
    async with open_store("memory://") as store:
        assert await store.directories.put([leaf, root]) == root.digest


async def test_a_path_info_is_found_by_its_path_its_name_and_its_hash(tree: Path) -> None:
    async with open_store("memory://") as store:
        path = (await import_tree(store, str(tree))).store_path
        for form in (path, str(path), path.absolute(), str(path)[:32], path.output_hash):
            found = await store.path_infos.get(form)
            assert found is not None
            assert found.store_path == path
            assert path.output_hash in await store.path_infos.get_many([form])
            assert await store.path_infos.existing([form]) == {path.output_hash: path}
        assert await store.path_infos.get(StorePath(path.output_hash, "other")) is None
        assert await store.path_infos.get(bytes(20)) is None
        for bad in ("hello", b"short", "/somewhere/else", tree):
            with pytest.raises(InvalidError, match=r"not a store path: .*expected a StorePath"):
                await store.path_infos.get(bad)  # type: ignore[arg-type]


async def test_a_tree_is_read_and_walked(tree: Path, tmp_path: Path) -> None:
    async with open_store("memory://") as store:
        path = (await import_tree(store, tree)).store_path
        assert [(entry.path, type(entry.node).__name__) async for entry in walk(store, path)] == [
            ("", "DirectoryNode"),
            ("bin", "DirectoryNode"),
            ("bin/hello", "FileNode"),
            ("link", "SymlinkNode"),
        ]
        assert [entry.path async for entry in walk(store, f"{path}/bin/hello")] == [""]
        assert await read_text(store, PurePosixPath(path.absolute(), "link")) == "echo hällo\n"
        assert await read_bytes(store, f"{path}/bin/hello", 5, 7) == b"h\xc3"
        assert (await resolve(store, path)).path_info is not None
        assert [each.store_path for each in await named_path_infos(store, [path])] == [path]
        with pytest.raises(InvalidError, match="is a directory"):
            await read_bytes(store, path)
        await export_tree(store.blobs, (await resolve(store, path)).tree, str(tmp_path / "out"))
        assert (tmp_path / "out/link").read_text() == "echo hällo\n"


@pytest.mark.parametrize("pack", [bytes, lzma.compress], ids=["plain", "xz"])
async def test_a_nar_becomes_the_path_that_it_was_made_from(tree: Path, pack: Callable[[bytes], bytes]) -> None:
    async with open_store("memory://") as store, open_store("memory://") as other:
        imported = await import_tree(store, tree)
        nar = b"".join([piece async for piece in render_nar(store.blobs, store.directories.tree(imported.node))])
        for data in (pack(nar), io.BytesIO(pack(nar)), [pack(nar)]):
            again = await import_nar(other, data, name="hello")
            assert (again.store_path, again.node) == (imported.store_path, imported.node)


async def test_a_verified_store_takes_the_same_forms(tree: Path) -> None:
    async with verified(await open_store("memory://")) as store:
        path = (await import_tree(store, tree)).store_path
        assert await store.path_infos.get(str(path)) is not None
        assert isinstance(store, Store)
        await store.blobs.put(b"more")


async def test_a_closed_store_says_so(address: str, tree: Path) -> None:
    async with open_store(address) as store:
        imported = await import_tree(store, tree)
        large = await store.blobs.put([bytes(range(256)) * 20_000])
        reading = store.blobs.read(large)
        assert await anext(reading)
        listing = store.path_infos.list()
        handle = store.directories.tree(imported.node)
    assert isinstance(imported.node, type(handle.root))
    digest = Digest.of(b"x")
    for ask in (
        lambda: store.blobs.put(b"x"),
        lambda: store.blobs.stat(digest),
        lambda: store.directories.get(digest),
        lambda: store.path_infos.get(bytes(20)),
        lambda: store.nar.calculate(imported.node),
        lambda: import_tree(store, tree),
        lambda: read_text(store, imported.store_path),
        lambda: anext(reading),
        lambda: anext(listing),
        lambda: anext(store.blobs.read(digest)),
        lambda: anext(copy_paths(store, store, [imported.path_info])),  # type: ignore[list-item]
        lambda: handle.get(digest),
    ):
        with pytest.raises(ClosedError, match="is closed: use it inside of its `with` block"):
            await ask()
    assert repr(store).endswith(", closed>")


async def test_every_power_of_a_closed_store_says_so(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        pass
    powers = [each.name for each in fields(store) if each.name not in _FACTS | _OWN and getattr(store, each.name) is not None]
    assert {"staging", "records", "statistics", "sync", "keeping"} <= set(powers)
    for name in powers:
        power = getattr(store, name)
        methods = [power] if callable(power) else [getattr(power, each) for each in dir(power._inner) if not each.startswith("_")]
        for method in methods:
            if callable(method):
                with pytest.raises(ClosedError):
                    method()


def forget_a_store() -> None:
    async def forget() -> None:
        store = await open_store("memory://")
        assert repr(store) == "<Store memory://>"

    asyncio.run(forget())
    gc.collect()


def test_a_store_that_is_thrown_away_open_warns() -> None:
    with pytest.warns(ResourceWarning, match="unclosed store memory://: open it in a `with` block"):
        forget_a_store()


async def test_a_service_in_place_of_another_is_as_comfortable() -> None:
    async with open_store("memory://") as store:
        replaced = store.with_services(blobs=store.blobs, path_infos=store.path_infos)
        assert await replaced.blobs.put(b"bytes") == Digest.of(b"bytes")
        assert opened(replaced) is replaced
    with pytest.raises(ClosedError):
        await replaced.blobs.put(b"bytes")


async def test_a_read_of_a_stream_in_pieces(tree: Path) -> None:
    async with open_store("memory://") as store:
        path = (await import_tree(store, tree)).store_path
        assert b"".join([piece async for piece in read_file(store, f"{path}/bin/hello")]) == "echo hällo\n".encode()
