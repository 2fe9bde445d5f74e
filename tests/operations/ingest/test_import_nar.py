"""import_nar: the NAR of any tree gives back that tree, however it is cut; what is no NAR leaves nothing that is referred to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvix_store.backends.memory import open_store
from tvix_store.errors import ExhaustedError, InvalidError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import NarFacts
from tvix_store.nar import tokens
from tvix_store.operations.ingest import import_nar as module
from tvix_store.operations.ingest.import_nar import NarImport, import_nar
from tvix_store.operations.nars.render import render_nar
from tvix_store.services.blobs import SMALL_BLOB
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, put_tree
from tvix_store.testing.strategies import trees
from tvix_store.testing.trees import Tree, TreeFile


async def cut(nar: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(nar), size):
        yield nar[at : at + size]


async def nar_of(store: Store, tree: Tree) -> bytes:
    node = await put_tree(store, tree)
    return b"".join([piece async for piece in render_nar(store.blobs, store.directories.tree(node))])


async def imported(store: Store, nar: bytes, size: int = 1 << 16, **options: int) -> tuple[object, NarFacts]:
    return await import_nar(store, cut(nar, size), **options)


@given(tree=trees(), size=st.sampled_from([1, 7, 64, 1 << 20]), rule=st.sampled_from(SizeRule))
@settings(max_examples=50)
def test_the_nar_of_any_tree_gives_back_the_tree(tree: Tree, size: int, rule: SizeRule) -> None:
    async def check() -> None:
        source, target = await open_store(size_rule=rule), await open_store(size_rule=rule)
        node = await put_tree(source, tree)
        nar = b"".join([piece async for piece in render_nar(source.blobs, source.directories.tree(node))])
        made, facts = await imported(target, nar, size)
        assert made == node
        assert facts == NarFacts(len(nar), hashlib.sha256(nar).digest())
        assert b"".join([piece async for piece in render_nar(target.blobs, target.directories.tree(node))]) == nar

    asyncio.run(check())


MIXED: Tree = {
    b"a": {b"large": TreeFile(noise(SMALL_BLOB + 1, "a")), b"small": TreeFile(b"x", executable=True), b"z": {}},
    b"b": {bytes([65 + n]): TreeFile(noise(n * 1000, f"{n}")) for n in range(26)},
    b"c": TreeFile(noise(3 << 20, "c")),
    b"d": {b"larger": TreeFile(noise(SMALL_BLOB * 3, "d")), b"same": TreeFile(noise(3 << 20, "c"))},
    b"e": TreeFile(b""),
}


async def test_small_and_large_files_may_alternate_and_batches_be_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_FILES", 3)
    source, target = await open_store(), await open_store()
    made, _ = await imported(target, await nar_of(source, MIXED))
    assert made == await put_tree(source, MIXED)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
async def test_a_nar_that_is_cut_short_is_refused(part: float) -> None:
    nar = await nar_of(await open_store(), MIXED)
    with pytest.raises(InvalidError, match="cut short"):
        await imported(await open_store(), nar[: int(len(nar) * part)])


async def test_bytes_behind_the_end_are_refused() -> None:
    nar = await nar_of(await open_store(), MIXED)
    with pytest.raises(InvalidError, match=f"at byte {len(nar)}"):
        await imported(await open_store(), nar + b"\0")


async def test_a_nar_over_the_limit_is_refused() -> None:
    nar = await nar_of(await open_store(), MIXED)
    await imported(await open_store(), nar, max_size=len(nar))
    with pytest.raises(ExhaustedError, match=f"{len(nar) - 1} bytes"):
        await imported(await open_store(), nar, max_size=len(nar) - 1)


async def test_too_many_entries_are_refused() -> None:
    with pytest.raises(InvalidError, match="more than 30 entries"):
        await imported(await open_store(), await nar_of(await open_store(), MIXED), max_entries=30)


@pytest.mark.parametrize("child", [TreeFile(b""), SymlinkNode(b"t" * 1000), {}])
async def test_names_that_must_be_kept_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch, child: Tree) -> None:
    monkeypatch.setattr(module, "MAX_UNFINISHED", 200_000)
    flat = {b"%05d" % n: child for n in range(5000)}
    with pytest.raises(ExhaustedError, match="more than 200000 bytes"):
        await imported(await open_store(), await nar_of(await open_store(), flat))
    spread = {b"%05d" % n: {b"%05d" % m: child for m in range(100)} for n in range(50)}
    await imported(await open_store(), await nar_of(await open_store(), spread))


async def test_names_that_wait_for_a_large_file_are_no_more_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The directories behind it are handed on when it is stored, which is waited for."""
    monkeypatch.setattr(module, "MAX_UNFINISHED", 200_000)
    many: dict[bytes, Tree] = {b"%05d" % n: {b"%05d" % m: {} for m in range(100)} for n in range(50)}
    tree: Tree = {b"0": {b"!": TreeFile(noise(SMALL_BLOB + 1, "slow")), **many}}
    target = replace(await open_store(), staging=None)
    put = target.blobs.put

    async def slow(pieces: AsyncIterator[bytes]) -> Digest:
        digest = await put(pieces)
        await asyncio.sleep(0.3)
        return digest

    monkeypatch.setattr(target.blobs, "put", slow)
    made, _ = await imported(target, await nar_of(await open_store(), tree))
    assert made == await put_tree(await open_store(), tree)


async def test_directories_are_handed_on_while_the_nar_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_on = 0
    target = replace(await open_store(), staging=None)
    put = target.directories.put

    async def counted(directories: AsyncIterator[Directory]) -> Digest:
        async def counting() -> AsyncIterator[Directory]:
            nonlocal handed_on
            async for directory in directories:
                handed_on += 1
                yield directory

        return await put(counting())

    monkeypatch.setattr(target.directories, "put", counted)
    tree: Tree = {b"%05d" % n: {b"%05d" % m: SymlinkNode(b"%d" % n) for m in range(20)} for n in range(500)}
    nar = await nar_of(await open_store(), tree)

    async def half_way() -> AsyncIterator[bytes]:
        yield nar[: len(nar) // 2]
        await asyncio.sleep(0)
        yield nar[len(nar) // 2 : -100]
        assert handed_on > 200
        yield nar[-100:]

    await import_nar(target, half_way())
    assert handed_on == 501


@pytest.mark.parametrize("call", ["put", "put_many"])
async def test_an_error_of_the_store_ends_the_import(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    async def fails(*_: object) -> None:
        raise UnavailableError("the store is away")

    nar = await nar_of(await open_store(), MIXED)
    target = replace(await open_store(), staging=None)
    monkeypatch.setattr(target.blobs, call, fails)
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(imported(target, nar), 10)


async def test_an_error_of_the_directory_service_ends_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_: object) -> None:
        raise UnavailableError("the store is away")

    many: Tree = {b"%04d" % n: {b"x": {}} for n in range(500)}
    nar = await nar_of(await open_store(), many)
    target = replace(await open_store(), staging=None)
    monkeypatch.setattr(target.directories, "put", fails)
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(imported(target, nar), 10)


async def test_a_cancelled_import_leaves_nothing_running() -> None:
    nar = await nar_of(await open_store(), MIXED)

    async def stalls() -> AsyncIterator[bytes]:
        yield nar[: len(nar) // 2]
        await asyncio.sleep(3600)

    target = await open_store()
    task = asyncio.create_task(import_nar(target, stalls()))
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_empty_archive_is_no_nar() -> None:
    with pytest.raises(InvalidError):
        await imported(await open_store(), b"")
    with pytest.raises(InvalidError):
        await imported(await open_store(), tokens.MAGIC)


@pytest.mark.parametrize(("files", "is_held"), [(900, True), (1100, False)])
async def test_a_small_nar_is_stored_as_a_whole(files: int, is_held: bool) -> None:
    """Many empty files fill a batch, which is stored, in less than 256 KiB of NAR."""
    tree: Tree = {b"%d" % n: TreeFile(b"") for n in range(files)}
    source, target = await open_store(), await open_store()
    nar = await nar_of(source, tree)
    assert len(nar) < 256 << 10
    async with NarImport(target) as importing:
        node, facts = await importing.read(cut(nar, 1 << 16))
        assert facts.size == len(nar)
        assert (importing._held is not None) is is_held
        await importing.store()
    assert b"".join([piece async for piece in render_nar(target.blobs, target.directories.tree(node))]) == nar
