"""Whatever is given in place of what a name of the library wants, the error is one line that says what is wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tvix_store import (
    ContentAddress,
    Digest,
    Directory,
    FileNode,
    InvalidError,
    NixHash,
    PublicKey,
    SecretKey,
    Signature,
    StorePath,
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
    render_tar,
    resolve,
    verified,
    walk,
)

PATH: Any = StorePath(bytes(20), "hello")
DIGEST: Any = Digest(bytes(32))
NODE: Any = FileNode(DIGEST, 3)
TEXT: Any = f"/nix/store/{PATH}"
NUMBER: Any = 5
NOTHING: Any = None

CALLS: dict[str, tuple[Callable[[Any, Path], object], str]] = {
    "blobs.stat": (lambda store, _: store.blobs.stat(PATH), "a digest"),
    "blobs.read": (lambda store, _: store.blobs.read(TEXT), "64 hex digits"),
    "blobs.read a node": (lambda store, _: store.blobs.read(NODE), "a digest"),
    "blobs.missing": (lambda store, _: store.blobs.missing([PATH]), "a digest"),
    "blobs.missing one": (lambda store, _: store.blobs.missing(DIGEST), "digests"),
    "blobs.get_many": (lambda store, _: store.blobs.get_many([DIGEST, DIGEST.raw]), "a digest"),
    "blobs.put": (lambda store, _: store.blobs.put("text"), "bytes"),
    "blobs.put_many": (lambda store, _: store.blobs.put_many(["text"]), "bytes"),
    "blobs.put_many one": (lambda store, _: store.blobs.put_many(b"bytes"), "a sequence"),
    "directories.get": (lambda store, _: store.directories.get(TEXT), "64 hex digits"),
    "directories.get_recursive": (lambda store, _: store.directories.get_recursive(NODE), "a digest"),
    "directories.tree": (lambda store, _: store.directories.tree(PATH), "a node"),
    "directories.tree of a digest": (lambda store, _: store.directories.tree(DIGEST), "a node"),
    "directories.put": (lambda store, _: store.directories.put([NODE]), "a Directory"),
    "directories.put one": (lambda store, _: store.directories.put(Directory({})), "directories"),
    "path_infos.get": (lambda store, _: store.path_infos.get(NUMBER), "a StorePath"),
    "path_infos.get_many": (lambda store, _: store.path_infos.get_many([DIGEST]), "a StorePath"),
    "path_infos.get_many one": (lambda store, _: store.path_infos.get_many(PATH), "store paths"),
    "path_infos.put": (lambda store, _: store.path_infos.put(PATH), "a PathInfo"),
    "nar.calculate": (lambda store, _: store.nar.calculate(PATH), "a node"),
    "export_tree": (lambda store, to: export_tree(store.blobs, PATH, to), "the handle of a tree"),
    "export_tree of a node": (lambda store, to: export_tree(store.blobs, NODE, to), "the handle of a tree"),
    "export_tree of a store": (lambda store, to: export_tree(store, store.directories.tree(NODE), to), "the blobs of a store"),
    "export_tree to": (lambda store, _: export_tree(store.blobs, store.directories.tree(NODE), NUMBER), "a path"),
    "render_nar": (lambda store, _: render_nar(store.blobs, PATH), "the handle of a tree"),
    "render_nar of a store": (lambda store, _: render_nar(store, store.directories.tree(NODE)), "the blobs of a store"),
    "render_tar": (lambda store, _: render_tar(store.blobs, TEXT, b"x"), "the handle of a tree"),
    "render_tar name": (lambda store, _: render_tar(store.blobs, store.directories.tree(NODE), TEXT), "bytes"),
    "resolve": (lambda store, _: resolve(store, NODE), "a path in the store"),
    "resolve in": (lambda _, __: resolve(TEXT, PATH), "a store"),
    "read_file": (lambda store, _: read_file(store, NUMBER), "a path in the store"),
    "read_bytes": (lambda store, _: read_bytes(store, NOTHING), "a path in the store"),
    "read_text": (lambda store, _: read_text(store, NOTHING), "a path in the store"),
    "walk": (lambda store, _: walk(store, NODE), "a path in the store"),
    "walk in": (lambda store, _: walk(store.blobs, PATH), "a store"),
    "copy_paths": (lambda store, _: copy_paths(store, store, 7), "path infos or store paths, in an iterable"),  # type: ignore[arg-type]
    "copy_paths from": (lambda store, _: copy_paths(TEXT, store, []), "a store"),
    "copy_paths to": (lambda store, _: copy_paths(store, TEXT, []), "a store"),
    "named_path_infos": (lambda store, _: named_path_infos(store, [NUMBER]), "a path in the store"),
    "named_path_infos one": (lambda store, _: named_path_infos(store, TEXT), "names"),
    "import_tree": (lambda store, _: import_tree(store, NUMBER), "a path"),
    "import_tree into": (lambda _, to: import_tree(TEXT, to), "a store"),
    "import_nar": (lambda store, _: import_nar(store, NUMBER, name="x"), "bytes"),
    "import_nar into": (lambda _, __: import_nar(TEXT, b"", name="x"), "a store"),
    "verified": (lambda _, __: verified(TEXT), "a store"),
    "open_store": (lambda _, __: open_store(NUMBER), "an address"),
    **{
        f"{kind.__name__}.parse": (lambda _, __, kind=kind: kind.parse(NUMBER), "a text")  # type: ignore[misc]
        for kind in (ContentAddress, Digest, NixHash, PublicKey, SecretKey, Signature, StorePath)
    },
}


async def _done(result: object) -> None:
    if isinstance(result, AsyncIterator):
        async for _ in result:
            pass
    elif isinstance(result, Awaitable):
        await result


@pytest.mark.parametrize("call", CALLS)
async def test_an_argument_of_another_kind_is_told_in_a_line(call: str, tmp_path: Path) -> None:
    make, wanted = CALLS[call]
    async with open_store("memory://") as store:
        with pytest.raises(InvalidError) as told:
            await _done(make(store, tmp_path / "to"))
    message = str(told.value)
    assert f"expected {wanted}" in message
    assert "\n" not in message
    assert not (tmp_path / "to").exists()


async def test_a_digest_may_be_a_text() -> None:
    async with open_store("memory://") as store:
        digest = await store.blobs.put(b"text")
        root = await store.directories.put([Directory({b"text": FileNode(digest, 4)})])
        text: Any = str(digest)
        assert await store.blobs.get_many([text]) == [b"text"]
        assert await store.blobs.missing([digest.base64]) == set()
        assert [piece async for piece in store.blobs.read(text)] == [b"text"]
        assert await store.directories.get(str(root)) is not None
        assert await read_bytes(store, digest) == await read_bytes(store, f"{root}/text") == b"text"
