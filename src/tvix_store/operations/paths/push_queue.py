"""PushQueue: store paths that wait for a push, in a directory. Any number of processes put paths in; one at a time takes them out.

Each put makes a file. It is complete and durable when it gets its name, so nothing that was put is lost in a power cut. A file that
is removed too late is harmless: its paths are pushed once more, and the cache has them. Nothing here needs an event loop or a
store, since Nix waits for the process that puts.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvix_store.durable_file import UNFINISHED, replace_file, sync_directory

_WAITING, _FAILED = "waiting", "failed"
_LOCK, _STATE, LOG = "lock", "state.json", "log"
_SUFFIX, _DAMAGED = ".json", ".damaged"
_OLD = 3600.0
"""Seconds after which an unfinished file belongs to nobody."""
_SMALL = 1000
"""Paths below which an entry is small: small entries are merged."""
_MOST_SMALL = 256
"""Small entries that may wait side by side."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where paths are pushed to, and the store of Nix from which they come, in Nix's words (None: the default one).

    skip_upstream: Whether paths are left out that clients get from upstreams.
    """

    address: str
    nix_store: str | None = None
    store_dir: str = "/nix/store"
    skip_upstream: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """Paths that wait for a push, `since` a time in seconds since 1970. `error` says why the entry was set aside."""

    target: Target
    paths: tuple[str, ...]
    since: float
    error: str = ""

    def encode(self) -> bytes:
        value = {
            "to": self.target.address,
            "nixStore": self.target.nix_store,
            "storeDir": self.target.store_dir,
            "skipUpstream": self.target.skip_upstream,
            "since": self.since,
            "paths": self.paths,
            "error": self.error,
        }
        return json.dumps(value).encode()

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Read an entry. Raises ValueError for what is none."""
        value = json.loads(data)
        try:
            nix_store = value["nixStore"]
            target = Target(
                str(value["to"]),
                None if nix_store is None else str(nix_store),
                str(value["storeDir"]),
                bool(value.get("skipUpstream")),
            )
            return cls(target, tuple(map(str, value["paths"])), float(value["since"]), str(value.get("error", "")))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"an entry lacks {error}") from None


class PushQueue:
    """The queue in `directory`, which belongs to one user: addresses may hold secrets. All methods block, and raise OSError.

    A file that is no entry is set aside, and then left alone.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._waiting = directory / _WAITING
        self._failed = directory / _FAILED

    def put(self, entry: Entry) -> None:
        """Add an entry. It is durable when this returns."""
        self._write(self._waiting, entry)

    def names(self) -> list[str]:
        """The names of the waiting entries, the oldest first."""
        return _names(self._waiting)

    def get(self, name: str) -> Entry | None:
        """A waiting entry; None if it is gone."""
        return self._read(self._waiting / name)

    def remove(self, names: Iterable[str]) -> None:
        """Remove waiting entries."""
        for name in names:
            (self._waiting / name).unlink(missing_ok=True)

    def replace(self, names: Iterable[str], entries: Iterable[Entry]) -> None:
        """Put new entries, and remove waiting ones."""
        for entry in entries:
            self.put(entry)
        self.remove(names)

    def set_aside(self, entry: Entry) -> None:
        """Keep an entry that is not to be tried again, with its error."""
        self._write(self._failed, entry)

    def failed(self) -> list[Entry]:
        """The entries that were set aside."""
        return [entry for name in _names(self._failed) if (entry := self._read(self._failed / name)) is not None]

    def damaged(self) -> list[Path]:
        """The files that are no entries."""
        return [self._failed / name for name in _names(self._failed, _DAMAGED)]

    def retry(self) -> int:
        """Let the entries that were set aside wait again, as if they had come now; how many paths there are."""
        count = 0
        for name in _names(self._failed):
            if (entry := self._read(self._failed / name)) is None:
                continue
            self.put(Entry(entry.target, entry.paths, time.time()))
            (self._failed / name).unlink(missing_ok=True)
            count += len(entry.paths)
        return count

    def merge(self, waiting: Mapping[str, Entry]) -> bool:
        """Merge small entries if there are many, and say whether that was so. `waiting` are all entries that wait.

        So a cache that does not answer for a week costs a file for a thousand paths, and each path is kept once.
        """
        small = {name: entry for name, entry in waiting.items() if len(entry.paths) < _SMALL}
        if len(small) <= _MOST_SMALL:
            return False
        seen: dict[Target, set[str]] = {}
        for name, entry in waiting.items():
            if name not in small:
                seen.setdefault(entry.target, set()).update(entry.paths)
        merged: dict[Target, dict[str, None]] = {}
        since: dict[Target, float] = {}
        for entry in small.values():
            known = seen.get(entry.target, set())
            merged.setdefault(entry.target, {}).update(dict.fromkeys(path for path in entry.paths if path not in known))
            since[entry.target] = min(since.get(entry.target, entry.since), entry.since)
        self.replace(small, [Entry(target, tuple(paths), since[target]) for target, paths in merged.items() if paths])
        return True

    @contextmanager
    def alone(self, inherited: int | None = None) -> Iterator[int | None]:
        """The lock of whoever takes paths out: the descriptor that holds it, or None if another process has it. Nobody waits.

        A process that has it may hand the descriptor over to one that it starts, where it is `inherited`.
        """
        fd = self._open_lock() if inherited is None else inherited
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                self._tidy()
                yield fd
        finally:
            os.close(fd)

    def _open_lock(self) -> int:
        self._make(self.directory)
        return os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read_note(self, name: str) -> Any:
        """What was noted under a name; None for nothing."""
        try:
            return json.loads((self.directory / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def write_note(self, name: str, value: object) -> None:
        """Note something beside the entries, durably."""
        self._make(self.directory)
        replace_file(self.directory / name, json.dumps(value).encode())

    def read_state(self) -> dict[str, Any]:
        """What the process that takes paths out has said last."""
        state = self.read_note(_STATE)
        return state if isinstance(state, dict) else {}

    def write_state(self, state: Mapping[str, object]) -> None:
        self.write_note(_STATE, state)

    def _tidy(self) -> None:
        """Remove the unfinished files that killed processes have left."""
        for directory in (self.directory, self._waiting, self._failed):
            with suppress(FileNotFoundError):
                for found in os.scandir(directory):
                    if found.name.endswith(UNFINISHED) and found.stat().st_mtime < time.time() - _OLD:
                        os.unlink(found.path)

    def _read(self, file: Path) -> Entry | None:
        try:
            return Entry.decode(file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            self._make(self._failed)
            file.rename(self._failed / f"{file.name}{_DAMAGED}")
            return None

    def _write(self, directory: Path, entry: Entry) -> None:
        self._make(directory)
        # The names sort by time. The random part keeps those apart that come in the same nanosecond.
        replace_file(directory / f"{time.time_ns():020}-{os.urandom(4).hex()}{_SUFFIX}", entry.encode())

    def _make(self, directory: Path) -> None:
        if directory.is_dir():
            self._check_owner()
            return
        missing = [each for each in (directory, *directory.parents) if not each.exists()]
        for each in reversed(missing):
            with suppress(FileExistsError):
                each.mkdir(0o700)
            sync_directory(each.parent)

        self._check_owner()

    def _check_owner(self) -> None:
        """See that nobody else can put something in: it would be pushed with the rights, and the passwords, of this user."""
        found = self.directory.stat()
        if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
            raise PermissionError(errno.EACCES, "the queue belongs to another user, or others can write to it", str(self.directory))


def number_of_paths(count: int) -> str:
    """For messages: `1 path`, `2 paths`."""
    return f"{count} path{'' if count == 1 else 's'}"


def _names(directory: Path, suffix: str = _SUFFIX) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(suffix))
    except FileNotFoundError:
        return []
