"""copy_paths: what is moved between stores, what is recorded, and what lies and failures leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings

from tests.operations.granular.watched import Watched, watched
from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.chunking import ChunkSizes
from tvix_store.compression.delta import make_delta
from tvix_store.config import verified
from tvix_store.errors import CorruptError, ExhaustedError, IncompleteError, InvalidError, NotFoundError, UnavailableError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import DirectoryNode, FileNode, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import SecretKey, Signature
from tvix_store.model.store_path import StorePath
from tvix_store.operations.granular import copy_tree
from tvix_store.operations.granular.account import Account
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.paths import path_copies
from tvix_store.operations.paths.copy import copy_paths, named_path_infos
from tvix_store.operations.paths.path_copies import Copied, Status
from tvix_store.services.blobs import Chunk
from tvix_store.services.directories import DirectoryService
from tvix_store.services.frames import Frame
from tvix_store.services.granular import StoredChunk
from tvix_store.services.store import Store
from tvix_store.testing import strategies
from tvix_store.testing.content import collect, missing, nested, noise, put_tree, stream
from tvix_store.testing.faults import FaultyDirectories, delaying
from tvix_store.testing.trees import Tree, TreeFile, nar

BIG = noise(2_000_000, "big")
TREE: Tree = {
    b"big": TreeFile(BIG),
    b"empty": TreeFile(b""),
    b"link": SymlinkNode(b"target"),
    b"lib": {b"deep": {b"file": TreeFile(b"deep"), b"tool": TreeFile(b"#!", executable=True)}, b"again": TreeFile(b"deep")},
    b"share": {b"doc": {b"text": TreeFile(b"text " * 1000)}},
}
Open: TypeAlias = Callable[[str], "AsyncIterator[Store]"]
PAIRS = ("memory memory", "local local", "memory local", "local memory")


@asynccontextmanager
async def opened(kind: str, tmp_path: Path, name: str) -> AsyncIterator[Store]:
    store = await (open_local(tmp_path / name) if kind == "local" else open_memory())
    async with store:
        yield replace(store, name=name)


@pytest.fixture(params=PAIRS)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    one, other = request.param.split()
    async with opened(one, tmp_path, "source") as source, opened(other, tmp_path, "target") as target:
        yield source, verified(target)


@pytest.fixture
async def stores() -> AsyncIterator[tuple[Store, Store]]:
    async with await open_memory() as source, await open_memory() as target:
        yield replace(source, name="source"), verified(replace(target, name="target"))


def path(name: str) -> StorePath:
    return StorePath(noise(20, name), name)


async def stored(store: Store, name: str, tree: Tree, *references: StorePath) -> PathInfo:
    """A path with this content, in the store."""
    node = await put_tree(store, tree)
    return await store.path_infos.put(PathInfo(path(name), node, await store.nar.calculate(node), references))


async def copied(source: Store, target: Store, *infos: PathInfo, account: Account | None = None) -> dict[str, Copied]:
    return {each.store_path.name: each async for each in copy_paths(source, target, infos, account=account)}


async def assert_whole(store: Store, info: PathInfo, tree: Tree) -> None:
    """The store has the path with all its content."""
    assert await store.path_infos.get(info.store_path.output_hash) == info
    assert await collect(render_nar(store.blobs, store.directories.tree(info.node))) == nar(tree)


async def test_a_path_is_copied_with_all_it_says(pair: tuple[Store, Store]) -> None:
    source, target = pair
    low = await stored(source, "low", TreeFile(b"alone"))
    high = await stored(source, "high", TREE, low.store_path, path("high"))
    signed = replace(high, signatures=(Signature("key-1", noise(64)),), deriver=StorePath(noise(20, "drv"), "high.drv"))
    await source.path_infos.put(signed)
    account = Account()
    done = await copied(source, target, signed, low, account=account)
    assert {name: each.status for name, each in done.items()} == {"low": Status.COPIED, "high": Status.COPIED}
    assert list(done) == ["low", "high"]
    await assert_whole(target, signed, TREE)
    await assert_whole(target, low, TreeFile(b"alone"))
    assert account.logical == high.nar.size + low.nar.size
    assert len(BIG) < account.sent < 1.01 * len(BIG) + 10_000


async def test_a_path_may_be_named_in_any_form(stores: tuple[Store, Store]) -> None:
    source, target = stores
    infos = [await stored(source, name, TreeFile(name.encode())) for name in ("a", "b", "c", "d")]
    a, b, c, d = (each.store_path for each in infos)
    done = [each.store_path async for each in copy_paths(source, target, [infos[0], b, str(c), d.absolute(), str(a)[:32]])]
    assert sorted(done) == sorted([a, b, c, d])
    with pytest.raises(NotFoundError, match="gone is not in the store"):
        [each async for each in copy_paths(source, target, [f"{'0' * 32}-gone"])]


async def test_a_path_that_is_there_is_not_looked_at_but_gets_signatures(stores: tuple[Store, Store]) -> None:
    (source, seen), (target, put) = watched(stores[0]), watched(stores[1])
    info = await stored(source, "known", TREE)
    await copied(source, target, info)
    seen.calls = put.calls = 0
    signed = info.with_signatures([Signature("new-1", noise(64))])
    done = await copied(source, target, signed)
    assert done["known"].status is Status.KNOWN
    assert (seen.calls, put.calls) == (0, 0)
    assert await target.path_infos.get(info.store_path.output_hash) == signed


async def test_only_what_differs_is_moved(pair: tuple[Store, Store]) -> None:
    (source, seen), (target, put) = watched(pair[0]), watched(pair[1])
    await copied(source, target, await stored(source, "old", TREE))
    changed = BIG[:1_000_000] + b"changed" + BIG[1_000_000:]
    tree: Tree = {**TREE, b"big": TreeFile(changed), b"new": {b"file": TreeFile(b"new")}}  # type: ignore[dict-item]
    seen.directories_got.clear()
    put.chunks_put.clear()
    put.directories_put.clear()
    account = Account()
    new = await stored(source, "new", tree)
    assert (await copied(source, target, new, account=account))["new"].status is Status.COPIED
    await assert_whole(target, new, tree)
    assert len(seen.directories_got) == len(put.directories_put) == 2, "the root, and the new directory"
    sent = [len(await collect(source.blobs.read(Digest(chunk)))) for chunk in put.chunks_put]
    assert sum(sent) < 600_000, "a chunk of the changed file or two, and the new file"
    assert account.sent < 600_000
    assert account.there > 1_400_000


async def test_what_has_arrived_is_not_sent_again(stores: tuple[Store, Store]) -> None:
    (source, seen), (target, put) = watched(stores[0]), watched(stores[1])
    infos = [await stored(source, f"path-{n}", {b"file": TreeFile(noise(900_000, str(n)))}) for n in range(6)]
    left = 3

    def stop() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise UnavailableError("the line is cut")

    seen.before_chunks = stop
    with pytest.raises(UnavailableError):
        await copied(source, target, *infos)
    arrived = set(put.chunks_put)
    assert arrived
    seen.before_chunks = lambda: None
    put.chunks_put.clear()
    done = await copied(source, target, *infos)
    assert {each.status for each in done.values()} <= {Status.COPIED, Status.KNOWN}
    assert put.chunks_put
    assert not arrived.intersection(put.chunks_put)
    for n, info in enumerate(infos):
        await assert_whole(target, info, {b"file": TreeFile(noise(900_000, str(n)))})


async def test_a_chunk_that_many_paths_need_is_sent_once(stores: tuple[Store, Store]) -> None:
    source, (target, put) = stores[0], watched(stores[1])
    infos = [await stored(source, f"path-{n}", {b"%d" % n: TreeFile(BIG)}) for n in range(5)]
    await copied(source, target, *infos)
    assert len(put.chunks_put) == len(set(put.chunks_put))


async def test_many_small_paths_share_calls(stores: tuple[Store, Store]) -> None:
    (source, seen), (target, put) = watched(stores[0]), watched(stores[1])
    infos = [await stored(source, f"path-{n}", {b"d": {b"file": TreeFile(b"%d" % n)}}) for n in range(200)]
    done = await copied(source, target, *infos)
    assert {each.status for each in done.values()} == {Status.COPIED}
    assert seen.calls + put.calls < 400, "two or so for each path; alone, each takes nine"


async def test_a_directory_whose_files_are_missing_is_not_relied_upon(pair: tuple[Store, Store]) -> None:
    source, target = pair
    info = await stored(source, "gap", TREE)
    await target.directories.put(stream(reversed([each async for each in source.directories.get_recursive(digest_of(info))])))
    assert (await copied(source, target, info))["gap"].status is Status.COPIED
    await assert_whole(target, info, TREE)


def digest_of(info: PathInfo) -> Digest:
    assert isinstance(info.node, DirectoryNode)
    return info.node.digest


async def test_another_node_of_the_same_nar_is_left_alone(stores: tuple[Store, Store]) -> None:
    """Its directories state sizes by another rule, and the target has no such directories."""
    source, target = stores
    info = await stored(source, "ruled", TREE)
    other = replace(target, size_rule=SizeRule.SNIX)
    mine = await stored(other, "ruled", TREE)
    assert mine.node != info.node
    assert (await copied(source, target, info.with_signatures([Signature("a-1", noise(64))])))["ruled"].status is Status.KNOWN
    stored_info = await target.path_infos.get(info.store_path.output_hash)
    assert stored_info is not None
    assert stored_info.node == mine.node
    assert len(stored_info.signatures) == 1


def wrong_content(seen: Watched) -> None:
    seen.change_chunk = lambda chunk: chunk._replace(stored=bytes(len(chunk.stored)), length=len(chunk.stored))


def wrong_chunk(seen: Watched) -> None:
    other = b"another chunk"
    seen.change_chunk = lambda chunk: chunk._replace(digest=Digest.of(other).raw, length=len(other), stored=other)


def wrong_directory(seen: Watched) -> None:
    seen.change_directory = lambda directory: Directory({**directory.entries, b"more": SymlinkNode(b"x")})


def another_list(seen: Watched) -> None:
    seen.change_list = lambda blob, chunks: [*chunks[1:], chunks[0]] if len(chunks) > 1 else chunks


def a_short_list(seen: Watched) -> None:
    seen.change_list = lambda blob, chunks: chunks[:-1]


def a_long_list(seen: Watched) -> None:
    seen.change_list = lambda blob, chunks: [*chunks, Frame(EMPTY.raw, 1 << 60, 1)]


LIES: Sequence[Callable[[Watched], None]] = (
    wrong_content,
    wrong_chunk,
    wrong_directory,
    another_list,
    a_short_list,
    a_long_list,
)


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_costs_the_paths_that_need_it_and_no_others(pair: tuple[Store, Store], lie: Callable[[Watched], None]) -> None:
    source, target = pair
    good = await stored(source, "good", {b"d": {b"file": TreeFile(b"good")}})
    bad = await stored(source, "bad", TREE)
    above = await stored(source, "above", {b"x": TreeFile(b"above")}, bad.store_path)
    assert (await copied(source, target, good))["good"].status is Status.COPIED
    lying, seen = watched(source)
    lie(seen)
    done = await copied(lying, target, good, bad, above)
    assert done["good"].status is Status.KNOWN
    assert done["bad"].status is Status.FAILED
    assert "source" in str(done["bad"].error)
    assert "\n" not in str(done["bad"].error)
    assert done["above"].status in (Status.LEFT_OUT, Status.FAILED)
    for info in (bad, above):
        assert await target.path_infos.get(info.store_path.output_hash) is None
    done = await copied(source, target, good, bad, above)
    assert {each.status for each in done.values()} <= {Status.COPIED, Status.KNOWN}
    await assert_whole(target, bad, TREE)


@pytest.mark.parametrize("facts", [NarFacts(1, bytes(32)), None])
async def test_a_wrong_nar_hash_is_refused(pair: tuple[Store, Store], facts: NarFacts | None) -> None:
    source, target = pair
    info = await stored(source, "path", TREE)
    wrong = replace(info, nar=facts or replace(info.nar, sha256=bytes(32)))
    done = await copied(source, target, wrong)
    assert done["path"].status is Status.FAILED
    assert "NAR" in str(done["path"].error)
    assert await target.path_infos.get(info.store_path.output_hash) is None


async def test_content_that_the_source_lacks_is_named(pair: tuple[Store, Store]) -> None:
    source, target = pair
    info = await stored(source, "path", TREE)
    lacking = Digest.of(b"nobody has this")
    node = FileNode(lacking, 15)
    done = await copied(source, target, replace(info, store_path=path("lost"), node=node), info)
    assert done["lost"].status is Status.FAILED
    assert str(lacking) in str(done["lost"].error)
    assert done["path"].status is Status.COPIED


async def test_the_target_may_want_signatures(stores: tuple[Store, Store]) -> None:
    source, target = stores
    key = SecretKey.generate("trusted-1")
    strict = verified(target, [key.public], require_signatures=True)
    plain = await stored(source, "plain", TREE)
    signed = replace(plain, store_path=path("signed"))
    signed = signed.with_signatures([key.sign(signed.fingerprint(source.store_dir))])
    done = await copied(source, strict, plain, signed)
    assert (done["plain"].status, done["signed"].status) == (Status.FAILED, Status.COPIED)
    assert "signature" in str(done["plain"].error)


async def test_references_must_be_there_or_come_along(stores: tuple[Store, Store]) -> None:
    source, target = stores
    low = await stored(source, "low", TreeFile(b"low"))
    high = await stored(source, "high", TreeFile(b"high"), low.store_path)
    done = await copied(source, target, high)
    assert done["high"].status is Status.FAILED
    assert str(low.store_path) in str(done["high"].error)
    found = await named_path_infos(source, [str(high.store_path)], closure=True)
    assert {each.store_path.name for each in found} == {"low", "high"}
    assert {each.status for each in (await copied(source, target, *found)).values()} == {Status.COPIED}
    with pytest.raises(NotFoundError):
        await named_path_infos(source, [str(path("absent"))])


async def test_stores_of_other_directories_do_not_mix(stores: tuple[Store, Store]) -> None:
    source, target = stores
    info = await stored(source, "path", TREE)
    with pytest.raises(InvalidError, match="/gnu/store"):
        await copied(source, replace(target, store_dir="/gnu/store"), info)


async def test_a_copy_that_is_left_stops(stores: tuple[Store, Store]) -> None:
    source, target = stores
    infos = [await stored(source, f"path-{n}", {b"file": TreeFile(noise(50_000, str(n)))}) for n in range(20)]
    async with aclosing(copy_paths(source, target, infos)) as copies:
        await anext(copies)
    there = await target.path_infos.existing([each.store_path.output_hash for each in infos])
    for info in infos:
        if info.store_path.output_hash in there:
            await target.nar.calculate(info.node)


@given(strategies.trees(), strategies.trees())
@settings(max_examples=60, deadline=None)
async def test_any_trees_are_copied(one: Tree, other: Tree) -> None:
    sizes = ChunkSizes.of_average(256)
    async with await open_memory(sizes=sizes) as source, await open_memory(sizes=sizes) as target:
        infos = [await stored(source, name, tree) for name, tree in (("one", one), ("other", other))]
        for info, tree in zip(infos, (one, other), strict=True):
            assert [each.status for each in (await copied(source, verified(target), info)).values()] == [Status.COPIED]
            await assert_whole(target, info, tree)


def release(number: int) -> bytes:
    """A program of this release: most of it as in all others, with a few bytes changed everywhere."""
    content = bytearray(BIG)
    for at in range(0, len(content), 5000):
        content[at : at + 3] = b"%03d" % number
    return bytes(content)


def package(number: int) -> Tree:
    return {b"bin": {b"program": TreeFile(release(number), executable=True)}, b"share": {b"doc": TreeFile(b"doc")}}


async def pair_of_releases(source: Store) -> list[PathInfo]:
    return [await stored(source, f"go-1.{number}", package(number)) for number in (1, 2)]


async def test_a_program_that_was_built_again_is_sent_as_a_delta(pair: tuple[Store, Store]) -> None:
    source, target = pair
    old, new = await pair_of_releases(source)
    await copied(source, target, old)
    chunks, deltas = Account(), Account()
    async with await open_memory() as other:
        await copied(source, verified(other), old, account=Account())
        await drained(copy_paths(source, verified(other), [new], deltas=False, account=chunks))
    await drained(copy_paths(source, target, [new], deltas=True, account=deltas))
    await assert_whole(target, new, package(2))
    assert (deltas.deltas, chunks.deltas) == (1, 0)
    assert deltas.sent < chunks.sent / 50


async def drained(copies: AsyncIterator[Copied]) -> list[Copied]:
    outcomes = [each async for each in copies]
    assert {each.status for each in outcomes} == {Status.COPIED}
    return outcomes


class Lying:
    """Deltas that make something else."""

    def __init__(self, frame: bytes | None, error: Exception | None = None) -> None:
        self._frame = frame
        self._error = error

    async def make(self, base: Digest, target: Chunk, most: int) -> bytes | None:
        if self._error is not None:
            raise self._error
        return self._frame

    async def apply(self, base: Digest, target: Chunk, delta: bytes) -> None:
        assert self._error is not None
        raise self._error


async def test_a_wrong_delta_is_told(pair: tuple[Store, Store]) -> None:
    source, target = pair
    old, new = await pair_of_releases(source)
    await copied(source, target, old)
    lying = replace(source, deltas=Lying(make_delta(release(1), release(3))))
    [outcome] = [each async for each in copy_paths(lying, target, [new], deltas=True)]
    assert outcome.status is Status.FAILED
    assert "wrong delta" in str(outcome.error)
    assert await target.path_infos.get(new.store_path.output_hash) is None


@pytest.mark.parametrize(
    "error",
    [
        IncompleteError("no base"),
        CorruptError("damaged base"),
        NotFoundError("blob", "of the base"),
        ExhaustedError("busy"),
        UnavailableError("gone"),
    ],
)
async def test_a_store_that_cannot_work_with_a_delta_gets_chunks(stores: tuple[Store, Store], error: Exception) -> None:
    source, target = stores
    old, new = await pair_of_releases(source)
    await copied(source, target, old)
    lacking = target.with_services(path_infos=target.path_infos, keep=["named_paths", "granular"])
    account = Account()
    await drained(copy_paths(source, replace(lacking, deltas=Lying(None, error)), [new], deltas=True, account=account))
    await assert_whole(target, new, package(2))
    assert account.deltas == 0


async def test_between_stores_of_this_machine_deltas_must_be_wanted(stores: tuple[Store, Store]) -> None:
    source, target = stores
    old, new = await pair_of_releases(source)
    account = Account()
    await copied(source, target, old, new, account=account)
    assert account.deltas == 0


async def test_a_damaged_other_version_costs_its_deltas_alone(stores: tuple[Store, Store]) -> None:
    class Damaged:
        async def versions(self, path: StorePath) -> Sequence[StorePath]:
            raise CorruptError("damaged")

    source, target = stores
    old, new = await pair_of_releases(source)
    await copied(source, target, old)
    account = Account()
    await drained(copy_paths(source, replace(target, named_paths=Damaged()), [new], deltas=True, account=account))
    assert account.deltas == 0


async def test_chunks_that_are_said_to_be_stored_in_a_byte_come_in_small_batches(stores: tuple[Store, Store]) -> None:
    (source, seen), target = watched(stores[0]), stores[1]
    info = await stored(source, "path", TreeFile(noise(40 << 20)))
    seen.change_list = lambda _, chunks: [Frame(chunk.digest, chunk.length, 1) for chunk in chunks]
    sizes: list[int] = []

    class Counting(Watched):
        async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
            sizes.append(sum(chunk.length for chunk in chunks))
            return await super().get_chunks(chunks)

    await copied(replace(source, granular=Counting(seen)), target, info)
    assert sum(sizes) == 40 << 20
    assert max(sizes) <= 17 << 20


async def test_a_file_that_comes_as_a_whole_ends_where_it_should(stores: tuple[Store, Store]) -> None:
    (source, seen), target = watched(stores[0]), stores[1]
    info = await stored(source, "path", TreeFile(BIG))
    size = 5 << 20
    endless = replace(info, node=FileNode(missing("endless"), size), nar=NarFacts(size + 1000, noise(32)))
    seen.list_chunks = _one_chunk  # type: ignore[method-assign]
    given = 0

    class Endless:
        async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
            nonlocal given
            assert stop is not None, "it does not end"
            while given < stop:
                given += 1 << 20
                yield bytes(1 << 20)

    lying = source.with_services(blobs=Endless(), keep=["granular"])  # type: ignore[arg-type]
    outcome = (await copied(lying, target, endless))["path"]
    assert isinstance(outcome.error, CorruptError)
    assert given <= size + (1 << 20)


async def _one_chunk(blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
    return [[Frame(blob.digest.raw, blob.size, blob.size)] for blob in blobs]


async def test_trees_of_large_directories_are_copied_one_at_a_time(stores: tuple[Store, Store]) -> None:
    """Their directories are in memory until all their files are there."""
    (source, seen), target = watched(stores[0]), stores[1]
    infos = []
    for name in ("one", "two", "three"):
        tree: Tree = {
            b"file": TreeFile(name.encode()),
            b"links": {b"%d" % n: SymlinkNode(name.encode() * 200) for n in range(2000)},
        }
        infos.append(await stored(source, name, tree))
    copying: set[bytes] = set()
    most = 0

    class Slow(Watched):
        async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
            nonlocal most
            copying.update(chunk.digest for chunk in chunks)
            most = max(most, len(copying))
            await asyncio.sleep(0.05)
            copying.difference_update(chunk.digest for chunk in chunks)
            return await super().get_chunks(chunks)

    done = await copied(replace(source, granular=Slow(seen)), target, *infos)
    assert {each.status for each in done.values()} == {Status.COPIED}
    assert most == 1


async def test_directories_without_an_end_are_not_taken(stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = stores
    info = await stored(source, "path", {b"%d" % n: {b"%d" % n: SymlinkNode(b"x" * 1000)} for n in range(20)})
    monkeypatch.setattr(copy_tree, "_SMALL_GRAPH", 1000)
    monkeypatch.setattr(copy_tree, "MAX_DIRECTORIES", 10_000)
    with pytest.raises(ExhaustedError, match="more than 10000 bytes"):
        await copied(source, target, info)


async def test_a_closure_without_an_end_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
            def info(output_hash: bytes) -> PathInfo:
                references = tuple(sorted(StorePath(noise(20, f"{output_hash!r}{n}"), "reference") for n in range(3)))
                return PathInfo(StorePath(output_hash, "path"), SymlinkNode(b"x"), NarFacts(200, bytes(32)), references)

            return {each: info(each) for each in output_hashes}

    monkeypatch.setattr(path_copies, "MAX_CLOSURE", 1000)
    async with await open_memory() as store:
        lying = store.with_services(path_infos=Endless())  # type: ignore[arg-type]
        with pytest.raises(ExhaustedError, match="more than 1000 paths"):
            await named_path_infos(lying, [str(path("first"))[:32]], closure=True)


async def test_trees_of_long_lists_are_copied_one_at_a_time(stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may list a million chunks for each."""
    monkeypatch.setattr(copy_tree, "_LONG_LIST", 5)
    (source, seen), target = watched(stores[0]), stores[1]
    infos = [await stored(source, name, TreeFile(noise(3_000_000, name))) for name in ("one", "two", "three")]
    most = 0

    class Counting(Watched):
        async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
            nonlocal most
            most = max(most, len(digests))
            return await super().missing_chunks(digests)

    done = await copied(source, replace(target, granular=Counting(watched(target)[1])), *infos)
    assert {each.status for each in done.values()} == {Status.COPIED}
    longest = max(len(each) for each in await seen.list_chunks([_as_chunk(info) for info in infos]))
    assert most == longest, "the chunks of two were asked for in one call"


def _as_chunk(info: PathInfo) -> Chunk:
    assert isinstance(info.node, FileNode)
    return Chunk(info.node.digest, info.node.size)


class OnlyBySnixRule(FaultyDirectories):
    """Takes directories whose sizes are by the snix rule, and no others, as snix did until 2026."""

    def __init__(self, inner: DirectoryService) -> None:
        super().__init__(inner, delaying(0))

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        taken: list[Directory] = []
        async for directory in directories:
            sizes = {each.digest: each.size(SizeRule.SNIX) for each in taken}
            for _, child in directory.directories():
                if child.size != sizes[child.digest]:
                    raise InvalidError("wrong size")
            taken.append(directory)
        return await self._inner.put(stream(taken))


async def test_a_store_that_takes_no_other_sizes_gets_its_own(pair: tuple[Store, Store]) -> None:
    source, target = pair
    info = await stored(source, "sized", TREE)
    strict = replace(
        target.with_services(directories=OnlyBySnixRule(target.directories)), size_rule=SizeRule.SNIX, takes_any_sizes=False
    )
    assert (await copied(source, strict, info))["sized"].status is Status.COPIED
    got = await target.path_infos.get(info.store_path.output_hash)
    assert got is not None
    assert got == replace(info, node=got.node)
    assert got.node != info.node
    assert await collect(render_nar(target.blobs, target.directories.tree(got.node))) == nar(TREE)


async def test_directories_without_an_end_are_not_followed(stores: tuple[Store, Store]) -> None:
    (source, seen), target = watched(stores[0]), stores[1]
    info = await stored(source, "path", TREE)
    graph = nested(1000)
    await source.directories.put(stream(graph))
    done = await copied(source, target, replace(info, store_path=path("deep"), node=graph[-1].node()), info)
    assert done["deep"].status is Status.FAILED
    assert "inside each other" in str(done["deep"].error)
    assert done["path"].status is Status.COPIED
    assert len(seen.directories_got) < 80
