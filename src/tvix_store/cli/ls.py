"""`tvix-store ls`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from tvix_store.cli.invocation import Invocation, command, json_option

if TYPE_CHECKING:
    from tvix_store.model.nodes import Node
    from tvix_store.services.directories import DirectoryTree


@command
@click.argument("path")
@click.option("-l", "--long", is_flag=True, help="Show kinds, sizes and symlink targets.")
@click.option("-R", "--recursive", is_flag=True, help="List directories inside directories as well.")
@json_option
async def ls(invocation: Invocation, path: str, long: bool, recursive: bool, as_json: bool) -> None:
    """List the directory at PATH, sorted by name. Of a file or symlink only itself is shown.

    The size of a directory is the number of all that is below it.

    \b
        tvix-store ls -l /nix/store/...-hello/bin
        tvix-store ls -R --json <hash>
    """
    from tvix_store.cli.json_forms import node_to_json
    from tvix_store.cli.output import print_json_array, shown
    from tvix_store.model.nodes import DirectoryNode
    from tvix_store.operations.trees.resolve import resolve

    async with await invocation.open_store() as store:
        found = await resolve(store, path)
        if isinstance(found.node, DirectoryNode):
            entries = _below(found.tree, recursive=recursive)
        else:
            entries = _only(found.name, found.node)
        if as_json:
            await print_json_array({"path": shown(name), **node_to_json(node)} async for name, node in entries)
            return
        async for name, node in entries:
            print(_long(name, node) if long else shown(name))


async def _only(name: bytes, node: Node) -> AsyncIterator[tuple[bytes, Node]]:
    yield name, node


async def _below(tree: DirectoryTree, *, recursive: bool) -> AsyncIterator[tuple[bytes, Node]]:
    """All nodes below the root, with their paths from there, each directory before its contents."""
    from tvix_store.model.nodes import DirectoryNode
    from tvix_store.services.directories import read_directory

    if recursive:
        tree.expect_all()
    waiting: list[tuple[bytes, Node]] = [(b"", tree.root)]
    while waiting:
        path, node = waiting.pop()
        if path:
            yield path, node
        if isinstance(node, DirectoryNode) and (recursive or not path):
            children = list((await read_directory(tree, node.digest)).entries.items())
            waiting += [(b"/".join((path, name)) if path else name, child) for name, child in reversed(children)]


def _long(name: bytes, node: Node) -> str:
    from tvix_store.cli.output import shown
    from tvix_store.model.nodes import DirectoryNode, FileNode, SymlinkNode

    match node:
        case DirectoryNode(size=size):
            return f"dr-xr-xr-x {size:>12} {shown(name)}"
        case FileNode(size=size, executable=executable):
            return f"{'-r-xr-xr-x' if executable else '-r--r--r--'} {size:>12} {shown(name)}"
        case SymlinkNode(target):
            return f"lrwxrwxrwx {0:>12} {shown(name)} -> {shown(target)}"
