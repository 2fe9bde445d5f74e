"""rewrite_sizes: give the directories of a store path the sizes of another rule.

Sizes are part of digests, so every directory that has a directory in it becomes another one. The NAR stays the same, and with it
the store path and all signatures: the path info is put again, with the new root. The directories of before stay.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import DirectoryNode
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.operations.nars.put_calculated import put_calculated
from tvix_store.services.directories import DirectoryService
from tvix_store.services.granular import check_directories
from tvix_store.services.store import Store


async def rewrite_sizes(store: Store, path_info: PathInfo, rule: SizeRule, *, dry_run: bool = False) -> PathInfo:
    """Store the directories of a path with sizes by `rule`; the path info with the new root, or the same where nothing differs.

    With `dry_run` nothing is stored. The directories of one path are held in memory.

    Raises:
        NotFoundError: a directory is not in the store.
        CorruptError: one is damaged.
        ExhaustedError, DeniedError, UnsupportedError: the store cannot, or does not, take them.
    """
    root = path_info.node
    if not isinstance(root, DirectoryNode):
        return path_info
    directories = await directories_by_rule(store.directories, root, rule)
    node = directories[-1].node(rule)
    if node == root:
        return path_info
    rewritten = replace(path_info, node=node)
    if dry_run:
        return rewritten
    since = store.begin_nar()
    facts = await store.nar.calculate(root)

    async def leaves_to_root() -> AsyncIterator[Directory]:
        for directory in directories:
            yield directory

    await store.directories.put(leaves_to_root())
    await store.remember_nar(node, facts, since)
    stored = await put_calculated(store, rewritten)
    links = NarLinks.of(store)
    if links is not None and await links.get(facts.sha256) is not None:
        # Or the next narinfo of the path that is put, with one more signature, would bring the old root back.
        await links.put(NarLink(facts, node))
    return stored


async def directories_by_rule(service: DirectoryService, root: DirectoryNode, rule: SizeRule) -> list[Directory]:
    """The directories below `root`, and it, with sizes by `rule`: each once, behind those that it refers to.

    Raises:
        NotFoundError: a directory is not in the store.
        CorruptError: one is damaged.
        ExhaustedError: they have too many bytes.
    """
    before: dict[Digest, Directory] = {}
    size = 0
    async for directory in service.get_recursive(root.digest):
        before[directory.digest] = directory
        size += len(directory.encoded)
        check_directories(size)
    after: dict[Digest, Directory] = {}
    # A stack of our own: trees may be nested deeper than Python recurses.
    entered = [(root.digest, _children(before[root.digest]))]
    while entered:
        digest, children = entered[-1]
        child = next((child for child in children if child not in after), None)
        if child is not None:
            entered.append((child, _children(before[child])))
            continue
        entered.pop()
        after[digest] = Directory(
            {
                name: after[node.digest].node(rule) if isinstance(node, DirectoryNode) else node
                for name, node in before[digest].entries.items()
            }
        )
    return list(after.values())


def _children(directory: Directory) -> Iterator[Digest]:
    return (node.digest for _, node in directory.directories())
