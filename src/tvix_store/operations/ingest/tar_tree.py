"""TarTree: the tree that the members of a tar make, in whatever order they come."""

from __future__ import annotations

from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.names import check_name, check_target, show
from tvix_store.model.nodes import SymlinkNode
from tvix_store.operations.ingest.tar_reader import Kind, Member
from tvix_store.operations.ingest.tree_builder import Unfinished, UnfinishedDirectory, UnfinishedFile, UnfinishedTree

MAX_ENTRIES = 1_000_000
"""Most entries of a tree, with the directories that only names tell of. As many has the largest NAR that is taken."""
MAX_NAMES = 256 << 20
"""Most bytes of names and targets, where each entry counts for 256 more. All of them are kept until the end of the archive: the
next member may belong anywhere."""
_ENTRY_BYTES = 256


class TarTree:
    """A tree that grows by members. Files are numbered in the order of their contents; a hard link shares its file's number.

    depth: How many nodes are inside each other, at most, below the archive's own root.
    """

    def __init__(self, *, max_entries: int = MAX_ENTRIES) -> None:
        self._root = UnfinishedDirectory()
        self._is_root_named = False
        self._max_entries = max_entries
        self._entries = 0
        self._names = 0
        self._files = 0
        self._repeated: list[tuple[bytes, UnfinishedFile, UnfinishedFile]] = []
        self.depth = 0

    def add(self, member: Member) -> int | None:
        """Add a member, whose parents are made where they are missing. Return the number of a file.

        Raises:
            InvalidError: the member's name is absolute, goes up, or is not allowed. Or the member is below something else than a
                directory. Or it is a link that leads nowhere. Or an entry of another kind has the name already.
            ExhaustedError: there are too many bytes of names.
        """
        try:
            return self._add(member, _components(member.name))
        except InvalidError as error:
            raise InvalidError(f"entry {show(member.name)}: {error}") from None

    def finish(self, digests: list[Digest]) -> UnfinishedTree:
        """The tree, when the contents of all files are known. `digests` are those of its files, by their numbers.

        An archive of a single entry is that entry, unless it names its root (`./`) too. Any other is a directory of its entries.

        Raises:
            InvalidError: a name is there twice, for different files. Or there is no entry.
        """
        for name, one, other in self._repeated:
            if (digests[one.number], one.executable) != (digests[other.number], other.executable):
                raise InvalidError(f"entry {show(name)} is there twice, as two different files")
        tree = UnfinishedTree()
        tree.root = self._root
        if not self._is_root_named:
            if not self._root.entries:
                raise InvalidError("the archive has no entries")
            if len(self._root.entries) == 1:
                [tree.root] = self._root.entries.values()
        waiting = [tree.root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, UnfinishedDirectory):
                tree.directories.append(node)
                waiting += node.entries.values()
        tree.directories.reverse()
        if tree.root is self._root:
            self.depth += 1
        return tree

    def _add(self, member: Member, components: list[bytes]) -> int | None:
        if not components:
            if member.kind is not Kind.DIRECTORY:
                raise InvalidError(f"{member.kind.value} cannot be the root of the archive")
            self._is_root_named = True
            return None
        *parents, name = components
        directory = self._root
        for parent in parents:
            below = self._entry(directory, parent)
            if not isinstance(below, UnfinishedDirectory):
                raise InvalidError(f"it is below {show(parent)}, which is {_kind(below)}")
            directory = below
        self.depth = max(self.depth, len(components))
        match member.kind:
            case Kind.DIRECTORY:
                if not isinstance(found := self._entry(directory, name), UnfinishedDirectory):
                    raise InvalidError(f"it is there before, as {_kind(found)}")
                return None
            case Kind.FILE:
                file = UnfinishedFile(self._files, member.size, member.executable)
                self._files += 1
                self._put(directory, name, file, member.name)
                return file.number
            case Kind.SYMLINK:
                self._put(directory, name, SymlinkNode(check_target(member.target)), member.name)
                return None
            case Kind.LINK:
                self._put(directory, name, self._linked(member.target), member.name)
                return None

    def _entry(self, directory: UnfinishedDirectory, name: bytes) -> Unfinished:
        """What has `name` in `directory`: a new directory if nothing has."""
        found = directory.entries.get(name)
        if found is None:
            found = UnfinishedDirectory()
            self._new(directory, name, found)
        return found

    def _put(self, directory: UnfinishedDirectory, name: bytes, node: UnfinishedFile | SymlinkNode, path: bytes) -> None:
        found = directory.entries.get(name)
        if found is None:
            self._new(directory, name, node)
        elif isinstance(found, UnfinishedFile) and isinstance(node, UnfinishedFile):
            if found is not node:
                self._repeated.append((path, found, node))
        elif found != node:
            raise InvalidError(f"it is there before, as {_kind(found)}")

    def _new(self, directory: UnfinishedDirectory, name: bytes, node: Unfinished) -> None:
        directory.entries[check_name(name)] = node
        self._entries += 1
        self._names += _ENTRY_BYTES + len(name) + (len(node.target) if isinstance(node, SymlinkNode) else 0)
        if self._entries > self._max_entries:
            raise InvalidError(f"the archive has more than {self._max_entries} entries")
        if self._names > MAX_NAMES:
            raise ExhaustedError(f"the names in the archive take more than {MAX_NAMES} bytes")

    def _linked(self, target: bytes) -> UnfinishedFile | SymlinkNode:
        found: Unfinished | None = self._root
        for name in _components(target):
            found = found.entries.get(name) if isinstance(found, UnfinishedDirectory) else None
        if found is None or isinstance(found, UnfinishedDirectory):
            raise InvalidError(f"it is a hard link to {show(target)}, which is no file before it")
        return found


def _components(path: bytes) -> list[bytes]:
    if path.startswith(b"/"):
        raise InvalidError(f"{show(path)} is an absolute path; make the archive with names relative to a directory")
    components = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in components:
        raise InvalidError(f"{show(path)} leads out of a directory")
    return components


def _kind(node: Unfinished) -> str:
    match node:
        case UnfinishedDirectory():
            return Kind.DIRECTORY.value
        case UnfinishedFile():
            return Kind.FILE.value
        case _:
            return f"{Kind.SYMLINK.value} to {show(node.target)}"
