"""`<hash>.ls` tells what Nix tells of a path, made from the directories."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tests.http.test_ranges import request
from tvix_store.backends.memory import open_store
from tvix_store.http.listings import Listings, format_listing
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.testing.content import collect, noise, put_file, put_tree, stream
from tvix_store.testing.strategies import trees
from tvix_store.testing.trees import Tree, TreeFile, nar, write

VARIED: Tree = {
    b"bin": {b"hello": TreeFile(b"#!/bin/sh\n", executable=True), b"hi": SymlinkNode(b"hello")},
    b"empty": {},
    b"large": TreeFile(noise(300_001)),
    b"nothing": TreeFile(b""),
    b'quoted " \\ \x01 \t': TreeFile(b"1"),
    "für \N{SNOWMAN} \N{PILE OF POO}".encode(): SymlinkNode("€/ü".encode()),
    b"zzz": {b"a": {b"b": {b"c": TreeFile(b"deep")}}},
}


def hash_of(path: str) -> str:
    return Path(path).name[:32]


def described(tree: Tree, whole: bytes) -> Any:
    """The listing of a tree in which every file has other contents, as `root` has it."""
    match tree:
        case TreeFile(contents, executable):
            more = {"executable": True} if executable else {}
            return {"type": "regular", "size": len(contents), "narOffset": whole.index(contents), **more}
        case SymlinkNode(target):
            return {"type": "symlink", "target": target.decode("utf-8", "surrogateescape")}
        case _:
            entries = {name.decode("utf-8", "surrogateescape"): described(child, whole) for name, child in tree.items()}
            return {"type": "directory", "entries": entries}


@pytest.mark.parametrize("tree", [VARIED, TreeFile(b"only"), TreeFile(b"x", executable=True), SymlinkNode(b"to"), {}])
def test_the_listing_is_the_one_that_nix_writes(daemon: Daemon, nix: Nix, tmp_path: Path, tree: Tree) -> None:
    write(tree, tmp_path / "tree")
    path = nix.add(tmp_path / "tree")
    nix.copy_to(f"file://{tmp_path}/cache?write-nar-listing=true", path)
    nix.copy_to(f"{daemon.url}?write-nar-listing=true", path)
    answer = daemon.get(f"/{hash_of(path)}.ls")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == json.loads((tmp_path / f"cache/{hash_of(path)}.ls").read_bytes())


def test_nix_lists_and_reads_what_is_in_a_path(daemon: Daemon, nix: Nix, tmp_path: Path) -> None:
    write(VARIED, tmp_path / "tree")
    path = nix.add(tmp_path / "tree")
    nix.copy_to(daemon.url, path)
    nix.forget()
    assert nix("nix", "store", "ls", "-lR", "--store", daemon.url, path) == nix("nix", "store", "ls", "-lR", path)
    told = json.loads(nix("nix", "store", "ls", "--json", "-R", "--store", daemon.url, path))
    assert told == json.loads(daemon.get(f"/{hash_of(path)}.ls").body)["root"]
    assert nix("nix", "store", "cat", "--store", daemon.url, f"{path}/zzz/a/b/c") == "deep"


def test_names_that_are_not_utf8_are_escaped(daemon: Daemon, nix: Nix, tmp_path: Path) -> None:
    tree: Tree = {b"\xff\xfe": TreeFile(b"1"), b"link": SymlinkNode(b"\xe9")}
    write(tree, tmp_path / "tree")
    path = nix.add(tmp_path / "tree")
    # Newer versions of Nix end when they write such a listing themselves.
    nix.copy_to(f"{daemon.url}?write-nar-listing={'true' if nix.version < (2, 9) else 'false'}", path)
    body = daemon.get(f"/{hash_of(path)}.ls").body
    assert b'"\\udcff\\udcfe"' in body
    assert os.fsencode(json.loads(body)["root"]["entries"]["link"]["target"]) == b"\xe9"


def test_a_listing_that_the_client_has_is_not_sent_again(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    path = daemon.program("import", "--store-dir", daemon.store_dir, tmp_path / "file")
    first = daemon.get(f"/{hash_of(path)}.ls")
    again = daemon.get(f"/{hash_of(path)}.ls", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    head = daemon.head(f"/{hash_of(path)}.ls")
    assert (head.status, head.body, head.headers["etag"]) == (200, b"", first.headers["etag"])


@pytest.mark.parametrize("name", ["0" * 32, "0" * 31, "nix-cache-info", "e" * 32])
def test_what_is_not_here_has_no_listing(shared_daemon: Daemon, name: str) -> None:
    assert shared_daemon.get(f"/{name}.ls").status == 404


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"{}", "identity", 200),
        (b'{"a":"\xff"}', "identity", 200),
        (b"", "identity", 400),
        (b"{", "identity", 400),
        (b"[" * 100_000, "identity", 400),
        (b"{}", "gzip", 400),
        (b"{}", "rot13", 415),
        (b"[" + b"0," * (4 << 20) + b"0]", "identity", 200),
    ],
)
def test_what_is_put_as_a_listing_must_be_json(shared_daemon: Daemon, body: bytes, encoding: str, status: int) -> None:
    answer = shared_daemon.put(f"/{'0' * 32}.ls", body, Content_Encoding=encoding)
    assert answer.status == status
    assert answer.line
    assert shared_daemon.get(f"/{'0' * 32}.ls").status == 404
    assert shared_daemon.is_well()


def distinct(tree: Tree) -> Tree:
    """The tree with contents by which each of its files is found in its NAR."""
    number = 0

    def changed(tree: Tree) -> Tree:
        nonlocal number
        match tree:
            case TreeFile(_, executable):
                number += 1
                return TreeFile(noise(20 + number, str(number)), executable)
            case SymlinkNode():
                return tree
            case _:
                return {name: changed(child) for name, child in tree.items()}

    return changed(tree)


@settings(max_examples=100)
@given(trees().map(distinct))
def test_the_listing_of_any_tree_says_where_files_are_in_its_nar(tree: Tree) -> None:
    async def listing() -> bytes:
        store = await open_store()
        return await collect(format_listing(store.directories.tree(await put_tree(store, tree))))

    assert json.loads(asyncio.run(listing())) == {"version": 1, "root": described(tree, nar(tree))}


async def test_a_tree_of_a_hundred_thousand_entries_is_listed_in_small_pieces() -> None:
    store = await open_store()
    file = await put_file(store.blobs, b"")
    lows = [Directory({b"%d-%d" % (n, m): file for m in range(1000)}) for n in range(100)]
    root = Directory({b"%02d" % n: low.node() for n, low in enumerate(lows)})
    await store.directories.put(stream([*lows, root]))
    sizes: list[int] = []

    async def seen(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            sizes.append(len(piece))
            yield piece

    listing = json.loads(await collect(seen(format_listing(store.directories.tree(root.node())))))
    assert sum(len(low["entries"]) for low in listing["root"]["entries"].values()) == 100_000
    assert max(sizes) < 100_000


async def test_what_has_too_many_entries_is_not_listed_only_to_be_counted() -> None:
    async with await open_store() as store:
        graph = [Directory({})]
        for _ in range(40):
            graph.append(Directory({b"a": graph[-1].node(), b"b": graph[-1].node()}))
        await store.directories.put(stream(graph))
        path_info = PathInfo(StorePath(bytes(20), "x"), graph[-1].node(), NarFacts(1, bytes(32)))
        await store.path_infos.put(path_info)
        async with asyncio.timeout(5):
            head = await Listings(store).get(request("HEAD", {}), b"0" * 32)
            again = await Listings(store).get(request("GET", {"if-none-match": dict(head.headers)[b"etag"]}), b"0" * 32)
    assert (head.status, again.status) == (200, 304)
    assert b"content-length" not in dict(head.headers + again.headers)
