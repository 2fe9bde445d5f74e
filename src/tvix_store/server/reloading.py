"""Reloading: what was read from files is read again when they change, and when somebody asks for it.

A worker has a list of `Reloadable`s. A change of a file is seen within half a second. It is taken when the files have been still
for a moment: a certificate and its key are two files, and are written one after the other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tvix_store.errors import StoreError

_LOOK = 0.2
"""Seconds between looks at the files. A change is in force after one to two of them. A look takes some microseconds."""
_Stamp: TypeAlias = tuple[tuple[int, int, int, int] | None, ...]
"""What changes when one of several files changes; None for one that cannot be seen."""


@dataclass(frozen=True, slots=True)
class Reloadable:
    """Something that is made from files.

    name: What it is, for people.
    files: Its files. A change of one of them makes it be reloaded.
    reload: Reads the files again; whether that changed anything. On a StoreError, the old state must be in force still.
    """

    name: str
    files: tuple[Path, ...]
    reload: Callable[[], Awaitable[bool]]


@asynccontextmanager
async def reloading(parts: Sequence[Reloadable], tell: Callable[[str], None]) -> AsyncIterator[Callable[[], None]]:
    """Watch the files of `parts` while the body runs. The body gets a function that asks to reload all of them now.

    `tell` hears `info` or `error`, and a line for people.
    """
    asked = asyncio.Event()
    watching = asyncio.create_task(_watch(parts, asked, tell))
    try:
        yield asked.set
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _watch(parts: Sequence[Reloadable], asked: asyncio.Event, tell: Callable[[str], None]) -> None:
    taken = [_stamp(part.files) for part in parts]
    seen = list(taken)
    while True:
        # Without files to look at, there is nothing to wake up for.
        await _set_within(asked, _LOOK if any(part.files for part in parts) else None)
        if asked.is_set():
            asked.clear()
            taken = [_stamp(part.files) for part in parts]
            seen = list(taken)
            said = [line for part in parts if (line := await _reload(part, tell))]
            if said or not parts:
                tell(f"info {'; '.join(said) or 'there is nothing to reload'}")
            continue
        for index, part in enumerate(parts):
            stamp = _stamp(part.files)
            if stamp == seen[index] != taken[index]:
                taken[index] = stamp
                if line := await _reload(part, tell):
                    tell(f"info {line}")
            seen[index] = stamp


async def _reload(part: Reloadable, tell: Callable[[str], None]) -> str:
    """Reload one; what to say of it, unless it failed, which is said at once."""
    try:
        return f"{part.name} {'reloaded' if await part.reload() else 'unchanged'}"
    except StoreError as error:
        tell(f"error {part.name} not reloaded, the old one stays in force: {error}")
        return ""


async def _set_within(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _stamp(files: Sequence[Path]) -> _Stamp:
    return tuple(map(_stamp_of_one, files))


def _stamp_of_one(file: Path) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
