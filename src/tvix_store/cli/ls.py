"""`tvix-store ls`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command, json_option

if TYPE_CHECKING:
    from tvix_store.model.nodes import Node
    from tvix_store.services.directories import DirectoryTree


@command
@click.argument("path", shell_complete=store_paths)
@click.option("-l", "--long", is_flag=True, help="Show kinds, sizes and symlink targets.")
@click.option("-h", "--human-readable", "for_people", is_flag=True, help="With -l, show sizes as 1.50 MiB.")
@click.option("-a", "--all", "everything", is_flag=True, help="No more than without it: names with a dot are always shown.")
@click.option("-R", "--recursive", is_flag=True, help="List directories inside directories as well.")
@json_option
async def ls(
    invocation: Invocation, path: str, long: bool, for_people: bool, everything: bool, recursive: bool, as_json: bool
) -> None:
    """List the directory at PATH, sorted by name. Of a file or symlink only itself is shown.

    The entries of a directory are all that is below it, at any depth.

    \b
        tvix-store ls -lh /nix/store/...-hello/bin
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
            print(_long(name, node, for_people=for_people) if long else shown(name))


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


def _long(name: bytes, node: Node, *, for_people: bool) -> str:
    from tvix_store.cli.output import shown
    from tvix_store.cli.sizes import human
    from tvix_store.model.nodes import DirectoryNode, FileNode, SymlinkNode

    match node:
        case DirectoryNode(size=size):
            kind, extent = "dr-xr-xr-x", "1 entry" if size == 1 else f"{size} entries"
        case FileNode(size=size, executable=executable):
            kind, extent = "-r-xr-xr-x" if executable else "-r--r--r--", human(size) if for_people else str(size)
        case SymlinkNode():
            kind, extent = "lrwxrwxrwx", "-" if for_people else "0"
    arrow = f" -> {shown(node.target)}" if isinstance(node, SymlinkNode) else ""
    return f"{kind} {extent:>14} {shown(name)}{arrow}"
