"""The settings of a store, fixed when it is made: `<store>/settings.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tvix_store.backends.local.disk import disk_errors, sync_file, unfinished_name
from tvix_store.errors import CorruptError, InvalidError
from tvix_store.model.directory import SizeRule

FORMAT = 3
"""The format version that this module writes. Format 1 had no records, format 2 no checks in the index. Stores of older formats
are raised to this one when they are opened, by one process alone; older programs refuse them from then on."""
FILE = "settings.json"
MIN_AVERAGE, MAX_AVERAGE = 4096, 256 * 1024
"""Bytes. A chunk, at most four times the average, is read, checked and given out as a whole."""
MIN_PACK_SIZE = 1 << 20
MIN_LEVEL, MAX_LEVEL = 1, 19


@dataclass(frozen=True, slots=True)
class Settings:
    """How a store cuts, compresses and counts. Sizes in bytes."""

    chunk_average: int = 128 * 1024
    compression_level: int = 3
    pack_size: int = 1 << 30
    """At which a pack takes no more records: large enough to be few, small enough to be copied or rewritten at a time."""
    size_rule: str = SizeRule.DOCUMENTED.name.lower()

    def __post_init__(self) -> None:
        if not MIN_AVERAGE <= self.chunk_average <= MAX_AVERAGE:
            raise InvalidError(f"chunk_average {self.chunk_average} is not within {MIN_AVERAGE} to {MAX_AVERAGE} (bytes)")
        if not MIN_LEVEL <= self.compression_level <= MAX_LEVEL:
            raise InvalidError(f"compression_level {self.compression_level} is not within {MIN_LEVEL} to {MAX_LEVEL}")
        if self.pack_size < MIN_PACK_SIZE:
            raise InvalidError(f"pack_size {self.pack_size} is less than {MIN_PACK_SIZE} (bytes)")
        if self.size_rule.upper() not in SizeRule.__members__:
            raise InvalidError(f"size_rule {self.size_rule!r} is unknown (known: documented, snix)")


def load_or_create(directory: Path, wanted: dict[str, int | str]) -> Settings:
    """The settings of the store in `directory`; a new store is made with `wanted`.

    Raises:
        InvalidError: the directory is something else, has a format this version does not read, or settings other than `wanted`.
        ExhaustedError, DeniedError, UnavailableError: the directory cannot be made or read.
    """
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / FILE
        if not path.exists():
            others = any(name != "lock" and not name.startswith(FILE) for name in os.listdir(directory))
            if others and not path.exists():  # another process may have made the store meanwhile
                raise InvalidError(f"{directory} is neither empty nor a store: it has no {FILE}")
            # Linked, not renamed: of two processes that make the same store, the first one's settings stand.
            _write(path, Settings(**wanted), os.link)  # type: ignore[arg-type]  # checked by __post_init__
        settings, _ = _parse(path, path.read_bytes())
    for key, value in wanted.items():
        if getattr(settings, key) != value:
            raise InvalidError(
                f"{directory} was made with {key}={getattr(settings, key)}, not {value}; settings of a store cannot be changed"
            )
    return settings


def is_of_older_format(directory: Path) -> bool:
    """Whether the store must be raised to this format."""
    with disk_errors(directory):
        path = directory / FILE
        return _parse(path, path.read_bytes())[1] != FORMAT


def raise_format(directory: Path) -> None:
    """Say that the store has this format. The caller has it to itself, and makes the rest of it so."""
    with disk_errors(directory):
        path = directory / FILE
        settings, version = _parse(path, path.read_bytes())
        if version != FORMAT:
            _write(path, settings, os.replace)


def _parse(path: Path, text: bytes) -> tuple[Settings, int]:
    try:
        values = json.loads(text)
        version = values.pop("format")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CorruptError(f"{path} is not the settings of a store") from None
    if version not in (1, 2, FORMAT):
        raise InvalidError(f"{path.parent} has store format {version!r}; this version of tvix-store reads format {FORMAT}")
    try:
        return Settings(**values), version
    except TypeError:
        raise CorruptError(f"{path} holds settings that format {FORMAT} does not have") from None


def _write(path: Path, settings: Settings, publish: Callable[[Path, Path], None]) -> None:
    unfinished = unfinished_name(path)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, json.dumps({"format": FORMAT, **asdict(settings)}, indent=2).encode() + b"\n")
        os.fsync(fd)
        publish(unfinished, path)
    except FileExistsError:
        pass
    finally:
        os.close(fd)
        unfinished.unlink(missing_ok=True)
    sync_file(path.parent)
