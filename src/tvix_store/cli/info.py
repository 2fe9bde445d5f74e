"""`tvix-store info`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command, json_option

if TYPE_CHECKING:
    from tvix_store.model.nodes import Node
    from tvix_store.model.path_info import PathInfo


@command
@click.argument("path", shell_complete=store_paths)
@json_option
async def info(invocation: Invocation, path: str, as_json: bool) -> None:
    """Show the path info of the store path PATH, or the node at a PATH inside one.

    \b
        tvix-store info /nix/store/...-hello
        tvix-store info /nix/store/...-hello/bin/hello
    """
    from tvix_store.cli.json_forms import node_to_json, path_info_to_json
    from tvix_store.cli.output import print_json
    from tvix_store.operations.trees.resolve import resolve

    async with await invocation.open_store() as store:
        found = await resolve(store, path)
        path_info = None if found.inner else found.path_info
        if as_json:
            print_json(path_info_to_json(path_info, store.store_dir) if path_info else node_to_json(found.node))
            return
        rows = [*_of_path_info(path_info, store.store_dir)] if path_info else []
        for label, value in (*rows[:1], *_of_node(found.node), *rows[1:]):
            print(f"{label + ':':<12} {value}" if label else f"{'':<12} {value}")


def _of_node(node: Node) -> Iterator[tuple[str, str]]:
    from tvix_store.cli.output import shown
    from tvix_store.cli.sizes import human
    from tvix_store.model.nodes import DirectoryNode, FileNode, SymlinkNode

    match node:
        case DirectoryNode(digest, size):
            yield "Type", "directory"
            yield "Digest", str(digest)
            yield "Size", "1 entry" if size == 1 else f"{size} entries"
        case FileNode(digest, size, executable):
            yield "Type", "executable file" if executable else "file"
            yield "Digest", str(digest)
            yield "Size", human(size)
        case SymlinkNode(target):
            yield "Type", "symlink"
            yield "Target", shown(target)


def _of_path_info(path_info: PathInfo, store_dir: str) -> Iterator[tuple[str, str]]:
    from tvix_store.cli.sizes import human
    from tvix_store.model.nix_hash import NixHash

    yield "Path", path_info.store_path.absolute(store_dir)
    yield "NAR hash", str(NixHash("sha256", path_info.nar.sha256))
    yield "NAR size", human(path_info.nar.size)
    for label, values in (("References", path_info.references), ("Signatures", path_info.signatures)):
        for position, value in enumerate(values):
            yield label if position == 0 else "", str(value)
    if path_info.deriver:
        yield "Deriver", f"{path_info.deriver}.drv"
    if path_info.ca:
        yield "CA", str(path_info.ca)
