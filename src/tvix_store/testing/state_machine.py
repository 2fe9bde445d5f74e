"""StoreMachine: whatever is done to a store, in whatever order, it answers as the memory store does.

class LocalMachine(StoreMachine):
    durable = True

    async def open(self) -> Store:
        return await open_store(self.directory)

TestLocal = LocalMachine.TestCase
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, TypeAlias, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, precondition, rule

from tvix_store.backends.memory import open_store as open_memory
from tvix_store.errors import StoreError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.directory_graph import RootToLeaves
from tvix_store.model.nodes import FileNode, Node, SymlinkNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath
from tvix_store.services.blobs import SMALL_BLOB
from tvix_store.services.removal import used_key, used_records
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, missing, noise, pieces, stream

T = TypeVar("T")
Graph: TypeAlias = tuple[Directory, ...]
"""Directories in the order in which they are put: the root is the last one."""

SIZES = st.sampled_from((0, 1, 100, 4096, 32_769, 140_000, SMALL_BLOB, SMALL_BLOB + 1, 700_000))
CONTENTS = st.builds(noise, SIZES, st.sampled_from("abc"))
NAMES = st.sampled_from((b"a", b"b", b"bin", b"\xff"))
KEYS = st.sampled_from(("key-1", "key-2", "key-3"))
RULES = st.sampled_from(SizeRule)


class StoreMachine(RuleBasedStateMachine):
    """Subclasses say how to `open` the store under test, and whether it is `durable`: can be closed and opened again."""

    durable: ClassVar[bool] = False

    blobs = Bundle("blobs")
    graphs = Bundle("graphs")

    def __init__(self) -> None:
        super().__init__()
        self._scratch = tempfile.TemporaryDirectory()
        self.directory = Path(self._scratch.name)
        """An empty directory, for this run of the machine alone."""
        self._runner = asyncio.Runner()
        self._store = self._runner.run(self.open())
        self._oracle = self._runner.run(open_memory())

    async def open(self) -> Store:
        """Open the store under test: empty the first time, and the same one again if it is durable."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the store under test."""
        await self._store.close()

    def teardown(self) -> None:
        self._runner.run(self.close())
        self._runner.close()
        self._scratch.cleanup()

    def both(self, act: Callable[[Store], Awaitable[T]]) -> T | type[StoreError]:
        """Do the same to both stores: the result, or the kind of error, is the same; it is returned."""

        async def outcome(store: Store) -> T | type[StoreError]:
            try:
                return await act(store)
            except StoreError as error:
                return type(error)

        expected = self._runner.run(outcome(self._oracle))
        assert self._runner.run(outcome(self._store)) == expected
        return expected

    @rule(target=blobs, content=CONTENTS, cut=st.sampled_from((1 << 20, 65_536, 9_999)))
    def put_blob(self, content: bytes, cut: int) -> FileNode:
        digest = self.both(lambda store: store.blobs.put(pieces(content, cut)))
        assert isinstance(digest, Digest)
        return FileNode(digest, len(content))

    @rule(contents=st.lists(CONTENTS, max_size=4))
    def put_many(self, contents: list[bytes]) -> None:
        self.both(lambda store: store.blobs.put_many(contents))

    @rule(target=blobs, seed=st.sampled_from("xyz"), size=st.sampled_from((1, 300_000)))
    def name_a_missing_blob(self, seed: str, size: int) -> FileNode:
        return FileNode(missing(seed), size)

    @rule(blob=blobs, start=st.integers(0, 800_000), length=st.integers(0, 800_000) | st.none())
    def read(self, blob: FileNode, start: int, length: int | None) -> None:
        start %= blob.size + 2
        stop = None if length is None else start + length
        self.both(lambda store: collect(store.blobs.read(blob.digest, start, stop)))

    @rule(chosen=st.lists(blobs, max_size=5))
    def get_many(self, chosen: list[FileNode]) -> None:
        small = [blob.digest for blob in chosen if blob.size <= SMALL_BLOB]
        self.both(lambda store: store.blobs.missing([blob.digest for blob in chosen]))
        self.both(lambda store: store.blobs.get_many(small))

    @rule(blob=blobs)
    def stat(self, blob: FileNode) -> None:
        async def there(store: Store) -> bool:
            stat = await store.blobs.stat(blob.digest, chunks=True)
            assert stat is None or stat.size in {blob.size, None}
            assert stat is None or not stat.chunks or sum(chunk.size for chunk in stat.chunks) == blob.size
            return stat is not None

        self.both(there)

    @rule(
        target=graphs,
        files=st.dictionaries(NAMES, blobs, max_size=3),
        below=st.dictionaries(NAMES, graphs, max_size=2),
        links=st.dictionaries(NAMES, st.builds(SymlinkNode, NAMES), max_size=2),
        size_rule=RULES,
    )
    def put_graph(
        self, files: dict[bytes, FileNode], below: dict[bytes, Graph], links: dict[bytes, SymlinkNode], size_rule: SizeRule
    ) -> Graph:
        children: dict[bytes, Node] = {**files, **links, **{name: graph[-1].node(size_rule) for name, graph in below.items()}}
        graph = (*dict.fromkeys(directory for part in below.values() for directory in part), Directory(children))
        self.both(lambda store: store.directories.put(stream(graph)))
        return graph

    @rule(graph=graphs, stray=graphs, turned=st.booleans())
    def put_bad_graph(self, graph: Graph, stray: Graph, turned: bool) -> None:
        bad = graph[::-1] if turned else (*graph[1:], *stray)
        self.both(lambda store: store.directories.put(stream(bad)))

    @rule(graph=graphs)
    def get_graph(self, graph: Graph) -> None:
        root = graph[-1].digest

        async def whole(store: Store) -> set[Directory]:
            order = RootToLeaves(root)
            got = [directory async for directory in store.directories.get_recursive(root)]
            for directory in got:
                order.add(directory)
            order.finish()
            return set(got)

        self.both(whole)
        self.both(lambda store: store.directories.get(root))

    @rule(graph=graphs, size_rule=RULES)
    def calculate_nar(self, graph: Graph, size_rule: SizeRule) -> None:
        self.both(lambda store: store.nar.calculate(graph[-1].node(size_rule)))

    @rule(
        graph=graphs,
        name=st.sampled_from(("one", "two", "three")),
        other=st.sampled_from(("one", "two", "three")),
        keys=st.lists(KEYS, unique=True),
        size_rule=RULES,
    )
    def put_path_info(self, graph: Graph, name: str, other: str, keys: list[str], size_rule: SizeRule) -> None:
        node = graph[-1].node(size_rule)
        facts = self.both(lambda store: store.nar.calculate(node))
        if isinstance(facts, type):
            return
        path = StorePath(noise(20, name), name)
        references = tuple(sorted({path, StorePath(noise(20, other), other)}))
        info = PathInfo(path, node, facts, references, tuple(Signature(key, noise(64, key)) for key in keys))
        self.both(lambda store: store.path_infos.put(info))
        self.both(lambda store: store.path_infos.get(path.output_hash))

    @precondition(lambda self: self._store.removal is not None)
    @rule(names=st.sets(st.sampled_from(("one", "two", "three")), min_size=1), used=st.sampled_from(("one", "two", "none")))
    def remove_path_infos(self, names: set[str], used: str) -> None:
        async def removed(store: Store) -> set[bytes]:
            assert store.records is not None
            assert store.removal is not None
            await store.records.put(used_records({noise(20, used): 7}))
            gone = await store.removal.remove([noise(20, name) for name in names], unused_since=7)
            await store.records.delete([used_key(noise(20, used))])
            return gone

        self.both(removed)

    @rule()
    def list_path_infos(self) -> None:
        async def listed(store: Store) -> list[PathInfo]:
            return [info async for info in store.path_infos.list()]

        self.both(listed)

    @precondition(lambda self: self._store.records is not None)
    @rule(keys=st.sets(st.sampled_from((b"test:a", b"test:b", b"tesu:")), min_size=1), value=st.binary(max_size=2) | st.none())
    def put_or_delete_records(self, keys: set[bytes], value: bytes | None) -> None:
        async def changed(store: Store) -> list[tuple[bytes, bytes]]:
            assert store.records is not None
            await (store.records.delete(keys) if value is None else store.records.put(dict.fromkeys(keys, value)))
            return [each async for each in store.records.list(b"test:")]

        self.both(changed)

    @precondition(lambda self: self.durable)
    @rule()
    def reopen(self) -> None:
        self._runner.run(self.close())
        self._store = self._runner.run(self.open())
