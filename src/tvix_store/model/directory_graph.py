"""Directory graphs on the wire: the two orders in which directories are sent, checked one by one.

Both checkers keep a few words per directory, not the directories.
"""

from __future__ import annotations

from collections.abc import Callable

from tvix_store.errors import InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.names import show


def _nothing(_: Digest) -> Directory | None:
    return None


class LeavesToRoot:
    """Checks a `Put` stream: each directory refers only to earlier ones, all hang together at the last.

    A directory may be sent twice; the second time changes nothing. `known` finds directories that count as sent before.
    """

    def __init__(self, known: Callable[[Digest], Directory | None] = _nothing) -> None:
        self._known = known
        self._sizes: dict[bytes, tuple[int, int]] = {}
        """The least and the largest size that a parent may state."""
        self._unclaimed: set[bytes] = set()
        self._root: Digest | None = None

    def add(self, directory: Directory) -> None:
        """Take the next directory.

        Raises:
            InvalidError: it refers to a directory that was not sent before, or states a wrong size for it.
        """
        for name, child in directory.directories():
            sizes = self._sizes.get(child.digest.raw)
            if sizes is None and (found := self._known(child.digest)) is not None:
                sizes = self._sizes[child.digest.raw] = _allowed(found)
            if sizes is None:
                raise InvalidError(
                    f"directory {directory.digest} refers to {child.digest} as {show(name)}, which was not sent before it"
                )
            if not sizes[0] <= child.size <= sizes[1]:
                raise InvalidError(
                    f"directory {directory.digest} states size {child.size} for its child {show(name)}, "
                    f"which is {sizes[0]} (or up to {sizes[1]}, by the snix rule)"
                )
            self._unclaimed.discard(child.digest.raw)
        key = directory.digest.raw
        if key not in self._sizes:
            self._sizes[key] = _allowed(directory)
            self._unclaimed.add(key)
        self._root = directory.digest

    def finish(self) -> Digest:
        """The digest of the root: the last directory sent.

        Raises:
            InvalidError: nothing was sent, or some directory cannot be reached from the last one.
        """
        if self._root is None:
            raise InvalidError("no directory was sent")
        strays = self._unclaimed - {self._root.raw}
        if strays:
            raise InvalidError(
                f"directory {Digest(min(strays))} is not reachable from the last one sent, {self._root}, which must be the root"
            )
        return self._root


class RootToLeaves:
    """Checks a recursive `Get` stream: the root first, then only directories that an earlier one refers to."""

    def __init__(self, root: Digest) -> None:
        # Of directories to come: the least and the largest size that parents have stated. Of those that came: the same, allowed.
        self._expected: dict[bytes, tuple[int, int] | None] = {root.raw: None}
        self._seen: dict[bytes, tuple[int, int]] = {}

    def add(self, directory: Directory) -> None:
        """Take the next directory.

        Raises:
            InvalidError: nothing sent before refers to it, or with another size, or it came before.
        """
        key = directory.digest.raw
        if key in self._seen:
            raise InvalidError(f"directory {directory.digest} was sent twice")
        if key not in self._expected:
            raise InvalidError(f"directory {directory.digest} was sent, but nothing before it refers to it")
        allowed = _allowed(directory)
        _check_sizes(directory.digest, allowed, self._expected.pop(key))
        self._seen[key] = allowed
        for _, child in directory.directories():
            seen = self._seen.get(child.digest.raw)
            if seen is not None:
                _check_sizes(child.digest, seen, (child.size, child.size))
            else:
                least, largest = self._expected.get(child.digest.raw) or (child.size, child.size)
                self._expected[child.digest.raw] = min(least, child.size), max(largest, child.size)

    def finish(self) -> None:
        """End of the stream.

        Raises:
            InvalidError: a directory that was referred to did not come.
        """
        if self._expected:
            raise InvalidError(f"directory {Digest(min(self._expected))} is referred to, but was not sent")


def _allowed(directory: Directory) -> tuple[int, int]:
    """The least and the largest size that a parent may state for it."""
    return directory.size(SizeRule.DOCUMENTED), directory.size(SizeRule.SNIX)


def _check_sizes(digest: Digest, allowed: tuple[int, int], stated: tuple[int, int] | None) -> None:
    """`stated` are the least and the largest size that parents state, if any do."""
    for size in stated or ():
        if not allowed[0] <= size <= allowed[1]:
            raise InvalidError(
                f"directory {digest} has size {allowed[0]} (or up to {allowed[1]}, by the snix rule), but its parent states {size}"
            )
