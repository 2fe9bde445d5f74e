"""DiskNear: a Near in a directory, which many processes use at once."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tvix_store.errors import InvalidError, UnavailableError, of_disk
from tvix_store.layers.cache.generation import Generation, drop_generation, make_generation
from tvix_store.layers.cache.near import Value

SMALLEST = 16 << 20
"""Bytes of the smallest cache."""
_MARK = "tvix-store-cache"
_FORMAT = b"1\n"
_NAME = re.compile(r"[0-9]{8,}")
_UNFINISHED = "new-"
_TICK = 0.05
"""Seconds within which the time stamp of a directory may stay the same though it changes."""
_SHARE = 8
"""A value that is larger than one part in so many of a generation is not kept."""
_PAUSE = 10.0
"""Seconds for which nothing is put after the disk has refused."""
_QUIET = 3600.0
"""Seconds between two lines in the log."""
_log = logging.getLogger(__name__)


class DiskNear:
    """Keeps up to `size` bytes below `directory`, and some MiB more while values are being put.

    There are two generations. Values are put into the newer one, and a value that is found in the older one is copied into it.
    When the newer one has half of the size, the older one is deleted, and an empty one begins. So what goes was not used for a
    generation.

    Raises:
        InvalidError: the directory holds something else, or `size` is less than SMALLEST.
        DeniedError, ExhaustedError, UnavailableError: the disk does not let us.
    """

    def __init__(self, directory: Path, size: int) -> None:
        if size < SMALLEST:
            raise InvalidError(f"a cache has at least {SMALLEST} bytes, not {size}")
        self._directory = directory
        self._half = size // 2
        self._lock = threading.Lock()
        self._generations: tuple[Generation, ...] = ()
        self._seen = -1
        self._refused_until = 0.0
        self._told_at = -_QUIET
        self._is_closed = False
        try:
            _claim(directory)
            with self._alone() as is_alone:
                if is_alone:
                    self._tidy()
            self._look()
        except OSError as error:
            message = f"cannot use {directory} as a cache: {error.strerror}"
            raise of_disk(error, message, UnavailableError) from None

    def get(self, keys: Sequence[bytes]) -> list[Value | None]:
        """As `Near.get`."""
        try:
            return self._get(keys)
        except OSError as error:
            self._refused(error)
            return [None] * len(keys)

    def peek(self, key: bytes) -> Value | None:
        """As `Near.peek`. A value of the older generation is left to `get`, which copies it."""
        try:
            for number, generation in enumerate(self._current()):
                value = generation.peek(key)
                if value is not None and number == 0:
                    return value
                if value is not None:
                    raise BlockingIOError
        except OSError:
            raise BlockingIOError from None
        return None

    def put(self, values: Mapping[bytes, Value]) -> None:
        """As `Near.put`. After the disk has refused, nothing is put for some seconds."""
        if self._is_closed or time.monotonic() < self._refused_until:
            return
        try:
            generations = self._current()
            if not generations or generations[0].size >= self._half:
                generations = self._turn()
            if generations:
                most = self._half // _SHARE
                generations[0].put({key: value for key, value in values.items() if len(value) <= most})
        except (OSError, InvalidError) as error:
            self._refused(error)

    def close(self) -> None:
        """As `Near.close`."""
        with self._lock:
            self._is_closed = True
            self._generations = ()

    def _get(self, keys: Sequence[bytes]) -> list[Value | None]:
        found: list[Value | None] = [None] * len(keys)
        for number, generation in enumerate(self._current()):
            older: dict[bytes, Value] = {}
            for at, key in enumerate(keys):
                if found[at] is None:
                    value = found[at] = generation.get(key)
                    if value is not None and number:
                        older[key] = value
            if older:
                self._copy(older)
        return found

    def _copy(self, older: Mapping[bytes, Value]) -> None:
        """Put values of the older generation into the newer one, unless that is full. Readers have no time to begin another."""
        newer = self._generations[:1]
        if newer and newer[0].size < self._half:
            with suppress(OSError):
                newer[0].put(older)

    def _current(self) -> tuple[Generation, ...]:
        """The newest generation, and the one before."""
        try:
            changed = os.stat(self._directory).st_mtime_ns
        except FileNotFoundError:  # it is made again by the next put
            return ()
        if changed != self._seen:
            with self._lock:
                if changed != self._seen and not self._is_closed:
                    self._look()
        return self._generations

    def _look(self) -> None:
        """Open what is there."""
        changed = os.stat(self._directory).st_mtime_ns
        known = {each.number: each for each in self._generations}
        generations: list[Generation] = []
        for number in sorted(self._numbers(), reverse=True)[:2]:
            with suppress(FileNotFoundError):  # just deleted
                generations.append(known.get(number) or Generation(self._path(number), number))
        self._generations = tuple(generations)
        self._seen = changed if time.time() - changed / 1e9 > _TICK else -1

    def _turn(self) -> tuple[Generation, ...]:
        """Begin a generation, unless another process has just done that. Empty where somebody is about to."""
        _claim(self._directory)
        with self._alone() as is_alone:
            if not is_alone:
                return ()
            generations = self._current()
            newest = max(self._numbers(), default=0)
            if generations and generations[0].number == newest and generations[0].size < self._half:
                return generations
            # First room, then what fills it: a process that is killed here leaves one generation, and not three.
            self._tidy(keeps=1)
            unfinished = self._directory / f"{_UNFINISHED}{os.urandom(6).hex()}"
            make_generation(unfinished, self._half)
            unfinished.rename(self._path(newest + 1))
        return self._current()

    def _tidy(self, keeps: int = 2) -> None:
        """Delete what killed processes have left, and older generations than the newest `keeps`. To be called `_alone`."""
        for each in self._directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(each)
        for number in sorted(self._numbers(), reverse=True)[keeps:]:
            drop_generation(self._path(number))

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether nobody else begins or deletes generations, meanwhile. Nobody waits: to delete a GB takes 0.3 s."""
        fd = os.open(self._directory / _MARK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)

    def _numbers(self) -> list[int]:
        return [int(name) for name in os.listdir(self._directory) if _NAME.fullmatch(name)]

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:08d}"

    def _refused(self, error: OSError | InvalidError) -> None:
        now = time.monotonic()
        self._refused_until = now + _PAUSE
        if now - self._told_at >= _QUIET:
            self._told_at = now
            _log.warning("the cache in %s is not filled: %s", self._directory, getattr(error, "strerror", error))


def _claim(directory: Path) -> None:
    """See that the directory is one of a cache, or make it one.

    Raises:
        InvalidError: it holds something else.
        OSError: the disk does not let us.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise InvalidError(f"{directory} is a file; a cache needs a directory") from None
    mark = directory / _MARK
    if not mark.exists() and set(os.listdir(directory)) - {_MARK}:
        raise InvalidError(f"{directory} holds something else than a cache; choose an empty directory")
    fd = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        found = os.pread(fd, 100, 0)
        if not found:
            os.pwrite(fd, _FORMAT, 0)
        elif found != _FORMAT:
            raise InvalidError(f"{directory} is a cache of another version of tvix-store; delete it, or choose another directory")
    finally:
        os.close(fd)
