"""NewPaths: it queues the paths that become valid in a store of Nix, each once, over all restarts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from time import time
from typing import Any

from tvix_store.operations.paths.nix_database import NixDatabase, ValidPath
from tvix_store.operations.paths.push_queue import Entry, PushQueue, Target

_HASH = 33
"""Characters of the base name of a store path before its name."""
_DERIVATION = ".drv"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which paths are wanted, by the globs that their names match, and by the keys that have signed them.

    Derivations are wanted if a glob of `include` that ends with `.drv` matches them.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    skip_keys: frozenset[str] = frozenset()

    def wants(self, path: ValidPath) -> bool:
        name = PurePath(path.path).name[_HASH:]
        derivation = name.endswith(_DERIVATION)
        include = [glob for glob in self.include if glob.endswith(_DERIVATION)] if derivation else self.include
        named = _matches(name, include) if self.include or derivation else True
        return named and not _matches(name, self.exclude) and not path.signed_by & self.skip_keys


class NewPaths:
    """The new paths of `database` for `targets`. The number of the last one that was queued is noted beside the queue."""

    def __init__(
        self, database: NixDatabase, queue: PushQueue, targets: Sequence[Target], wanted: Filter, say: Callable[[str], None]
    ) -> None:
        self._database = database
        self._queue = queue
        self._targets = targets
        self._wanted = wanted
        self._say = say
        name = "\n".join([str(database.file.absolute()), *sorted(target.address for target in targets)])
        self._note = f"seen-{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
        self._last = 0

    def begin(self, *, everything: bool) -> None:
        """Go on where the last process has ended. Where there was none, begin with the paths to come, or with `everything`.

        Raises:
            StoreError: as the database.
        """
        newest = self._database.newest()
        noted: Any = self._queue.read_note(self._note)
        if everything:
            self._last = 0
        elif not isinstance(noted, dict) or not isinstance(noted.get("last"), int):
            self._last = newest
        else:
            self._last = noted["last"]
        self._remember()

    def look(self) -> int:
        """Queue what is new; how many paths there were.

        Raises:
            StoreError: as the database.
            OSError: as the queue.
        """
        count = 0
        if self._last > self._database.newest():
            self._say("Nix's database is a new one: all of its paths are queued")
            self._last = 0
        while found := self._database.after(self._last):
            paths = tuple(each.path for each in found if self._wanted.wants(each))
            for target in self._targets if paths else ():
                self._queue.put(Entry(target, paths, time()))
            # Only now. A process that is killed before it queues some paths once more.
            self._last = found[-1].number
            self._remember()
            count += len(paths)
        return count

    def _remember(self) -> None:
        self._queue.write_note(self._note, {"database": str(self._database.file), "last": self._last})


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
