"""The settings of a store, fixed when it is made: `<store>/settings.json`."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tvix_store.backends.local.disk import disk_errors, new_file, unfinished_name
from tvix_store.backends.local.durability import Durability
from tvix_store.errors import CorruptError, InvalidError, NoStoreError
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import STORE_DIR, check_store_dir

FORMAT = 6
"""The format version that this module writes. Format 1 had no records, 2 no checks in the index, 3 no checkpoint, in 4 nothing was
removed, and in 5 nothing collected. Stores of older formats are raised to this one when one process alone opens them; older
programs refuse them from then on."""
FILE = "settings.json"
MIN_AVERAGE, MAX_AVERAGE = 4096, 256 * 1024
"""Bytes. A chunk, at most four times the average, is read, checked and given out as a whole."""
MIN_PACK_SIZE = 1 << 20
MIN_LEVEL, MAX_LEVEL = 1, 19
_SIZE_RULES = tuple(rule.name.lower() for rule in SizeRule)
_TYPES = {"chunk_average": int, "compression_level": int, "pack_size": int, "size_rule": str, "store_dir": str}
_MAX_BYTES = 64 << 10
"""Bytes of the largest file of settings that is read."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a store cuts, compresses and counts, and where Nix has its store. Sizes in bytes."""

    chunk_average: int = 128 * 1024
    compression_level: int = 3
    pack_size: int = 1 << 30
    """At which a pack takes no more records: large enough to be few, small enough to be copied or rewritten at a time."""
    size_rule: str = SizeRule.DOCUMENTED.name.lower()
    store_dir: str | None = None
    """The store directory, which is a part of what store paths stand for. None in a store of an earlier version."""

    def __post_init__(self) -> None:
        if not MIN_AVERAGE <= self.chunk_average <= MAX_AVERAGE:
            raise InvalidError(f"chunk_average {self.chunk_average} is not within {MIN_AVERAGE} to {MAX_AVERAGE} (bytes)")
        if not MIN_LEVEL <= self.compression_level <= MAX_LEVEL:
            raise InvalidError(f"compression_level {self.compression_level} is not within {MIN_LEVEL} to {MAX_LEVEL}")
        if self.pack_size < MIN_PACK_SIZE:
            raise InvalidError(f"pack_size {self.pack_size} is less than {MIN_PACK_SIZE} (bytes)")
        if self.size_rule not in _SIZE_RULES:
            raise InvalidError(f"size_rule {self.size_rule[:50]!r} is unknown (known: {', '.join(_SIZE_RULES)})")
        if self.store_dir is not None:
            check_store_dir(self.store_dir)


def load_or_create(directory: Path, wanted: dict[str, int | str], durability: Durability) -> Settings:
    """The settings of the store in `directory`; a new store is made with `wanted`.

    Raises:
        NoStoreError: the directory is something else.
        InvalidError: it is a file, has a format this version does not read, or settings other than `wanted`.
        CorruptError: the file of the settings is damaged.
        ExhaustedError, DeniedError, UnavailableError: the directory cannot be made or read.
    """
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / FILE
        if not path.exists():
            _check_empty(directory)
            # Linked, not renamed: of two processes that make the same store, the first one's settings stand.
            made = Settings(**{"store_dir": STORE_DIR, **wanted})  # type: ignore[arg-type]  # checked by __post_init__
            _write(path, made, os.link, durability)
        settings, _ = _parse(path)
    if settings.store_dir is None and "store_dir" in wanted:
        settings = record_store_dir(directory, str(wanted["store_dir"]), durability)
    return _checked(directory, settings, wanted)


def is_missing(directory: Path) -> bool:
    """Whether there is no store in `directory`, and one can be made: it does not exist, or nothing is in it.

    Raises:
        NoStoreError: it has something else in it.
        InvalidError: it is no directory.
        DeniedError, UnavailableError: it cannot be read.
    """
    with disk_errors(directory):
        try:
            if (directory / FILE).exists():
                return False
            _check_empty(directory)
        except FileNotFoundError:
            pass
    return True


def _check_empty(directory: Path) -> None:
    """See that a directory without settings has nothing in it, but what a store leaves that was not made to its end.

    Raises:
        NoStoreError: it is not so.
    """
    others = any(name not in ("lock", "sync-failed") and not name.startswith(FILE) for name in os.listdir(directory))
    if others and not (directory / FILE).exists():  # another process may have made the store meanwhile
        what = f"{directory.absolute()} is neither empty nor a store: it has no {FILE}"
        raise NoStoreError(f"{what}; name another directory for a store")


def load(directory: Path, wanted: dict[str, int | str]) -> Settings:
    """The settings of a store that is only read. Raises as `load_or_create`."""
    path = directory / FILE
    with disk_errors(directory):
        if not path.exists():
            raise NoStoreError(f"there is no store in {directory}: it has no {FILE}")
        settings, _ = _parse(path)
    if settings.store_dir is None and "store_dir" in wanted:
        settings = replace(settings, store_dir=str(wanted["store_dir"]))
    return _checked(directory, settings, wanted)


def _checked(directory: Path, settings: Settings, wanted: dict[str, int | str]) -> Settings:
    """The settings, if they are as wanted."""
    if "store_dir" in wanted:
        check_same_store_dir(directory, settings, str(wanted["store_dir"]))
    for key, value in wanted.items():
        if getattr(settings, key) != value:
            raise InvalidError(
                f"{directory} was made with {key}={getattr(settings, key)}, not {value}; settings of a store cannot be changed"
            )
    return settings


def format_of(directory: Path) -> int:
    """The format that a store has now."""
    with disk_errors(directory):
        return _parse(directory / FILE)[1]


def raise_format(directory: Path, durability: Durability) -> None:
    """Say that the store has this format. The caller has it to itself, and makes the rest of it so."""
    path = directory / FILE
    with disk_errors(directory), _alone(directory):
        settings, version = _parse(path)
        if version != FORMAT:
            _write(path, settings, os.replace, durability)


def record_store_dir(directory: Path, store_dir: str, durability: Durability) -> Settings:
    """Record the store directory of a store that does not know it: an earlier version has made it. The settings.

    Raises:
        InvalidError: another process has recorded another one meanwhile.
        CorruptError, ExhaustedError, DeniedError, UnavailableError: as `load_or_create`.
    """
    path = directory / FILE
    with disk_errors(directory), _alone(directory):
        settings, version = _parse(path)
        if settings.store_dir is None:
            settings = replace(settings, store_dir=store_dir)
            _write(path, settings, os.replace, durability, version)
    check_same_store_dir(directory, settings, store_dir)
    return settings


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other processes from replacing the settings."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def check_same_store_dir(directory: Path, settings: Settings, store_dir: str) -> None:
    """Refuse to take the paths of one store directory for those of another.

    Raises:
        InvalidError: the store has another store directory.
    """
    if settings.store_dir not in (None, store_dir):
        raise InvalidError(f"{directory} holds paths of {settings.store_dir}, not of {store_dir}; use another store for these")


def _parse(path: Path) -> tuple[Settings, int]:
    """The settings, and the format that they are written in."""
    values = _values(path)
    version = values.pop("format", None)
    if type(version) is not int:
        raise CorruptError(f"{path} is not the settings of a store: it names no format")
    if version not in range(1, FORMAT + 1):
        raise InvalidError(f"{path.parent} has store format {version!r}; this version of tvix-store reads format {FORMAT}")
    for name, value in values.items():
        if type(value) is not _TYPES.get(name):
            raise CorruptError(
                f"{path} holds a setting that format {FORMAT} does not have: {name[:50]!r}, as {type(value).__name__}"
            )
    try:
        return Settings(**values), version
    except InvalidError as error:
        raise CorruptError(f"{path} is damaged: {error}") from None


def _values(path: Path) -> dict[str, Any]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would be waited for
    try:
        text = os.read(fd, _MAX_BYTES + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    try:
        values = json.loads(text) if len(text) <= _MAX_BYTES else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise CorruptError(f"{path} is not the settings of a store: it is not a JSON object of at most {_MAX_BYTES} bytes")
    return values


def _write(
    path: Path, settings: Settings, publish: Callable[[Path, Path], None], durability: Durability, version: int = FORMAT
) -> None:
    unfinished = unfinished_name(path)
    fd = new_file(unfinished)
    try:
        known = {name: value for name, value in asdict(settings).items() if value is not None}
        os.write(fd, json.dumps({"format": version, **known}, indent=2).encode() + b"\n")
        durability.sync_file(fd)
        publish(unfinished, path)
    except FileExistsError:
        pass
    finally:
        os.close(fd)
        unfinished.unlink(missing_ok=True)
    durability.sync_names(path.parent)
