"""A process that flips bits in the index of a store, and sees what a store does with each: `python -m … STORE SCRATCH FIRST COUNT`.

For each flip some processes, one after the other, read everything, and put again what is missing. It prints a line a flip: its
number, and how each process ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path

from tests.backends.local.store_files import index_file
from tvix_store.backends.local import open_store
from tvix_store.backends.local.index_scrub import look_through
from tvix_store.errors import CorruptError, StoreError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, stream

PATHS = 100
PROCESSES = 3
PAGE = 4096
LARGE = noise(1_500_000, "large")
RIGHT, REFUSED, WRONG, UNNOTICED = "right", "refused", "wrong", "unnoticed"
_CODES = {RIGHT: 0, REFUSED: 10, WRONG: 11, UNNOTICED: 12}


def blob(number: int) -> bytes:
    return f"the content of path {number}".encode()


def path_info(number: int) -> PathInfo:
    path = StorePath(noise(20, f"hash {number}"), f"path-{number}")
    node = FileNode(Digest.of(blob(number)), len(blob(number)))
    return PathInfo(path, node, NarFacts(1000 + number, noise(32, f"nar {number}")), signatures=(Signature("k", noise(64, "s")),))


async def fill(store: Store) -> None:
    assert store.records is not None
    await store.blobs.put_many([blob(number) for number in range(PATHS)])
    await store.blobs.put(stream([LARGE]))
    await store.records.put({b"record %d" % number: noise(100, f"{number}") for number in range(PATHS)})
    for number in range(PATHS):
        await store.path_infos.put(path_info(number))


async def look(store: Store) -> set[str]:
    """What the store says of all that was put."""
    assert store.records is not None
    seen: set[str] = set()

    def judge(found: object, right: object) -> None:
        seen.add(RIGHT if found == right else REFUSED if found is None else WRONG)

    for number in range(PATHS):
        expected = path_info(number)
        for get, key, right in (
            (store.path_infos.get, expected.store_path.output_hash, expected),
            (store.records.get, b"record %d" % number, noise(100, f"{number}")),
        ):
            try:
                judge(await get(key), right)
            except CorruptError:
                seen.add(REFUSED)
    for content in (LARGE, *map(blob, range(PATHS))):
        try:
            judge(await collect(store.blobs.read(Digest.of(content))), content)
        except StoreError:
            seen.add(REFUSED)
    try:
        listed = [info async for info in store.path_infos.list()]
        known = {path_info(number).encoded for number in range(PATHS)}
        seen |= {RIGHT if info.encoded in known else WRONG for info in listed}
        seen |= {REFUSED} if len(listed) < PATHS else set()
    except CorruptError:
        seen.add(REFUSED)
    return seen


async def use(directory: Path) -> str:
    try:
        async with await open_store(directory) as store:
            with suppress(CorruptError):
                look_through(store.blobs._engine.index)  # type: ignore[attr-defined]  # of the local backend
            seen = await look(store)
            if WRONG in seen:
                return WRONG
            if REFUSED in seen:
                with suppress(StoreError):
                    await fill(store)
            try:
                await store.check()
            except UnavailableError:
                return REFUSED
            return UNNOTICED if REFUSED in seen else RIGHT
    except StoreError:
        return REFUSED


def flip(index: Path, generator: random.Random) -> None:
    """Flip a bit: anywhere, or where it hurts most, in the head of a page or of a row."""
    data = bytearray(index.read_bytes())
    page = generator.randrange(len(data) // PAGE) * PAGE
    match generator.randrange(3):
        case 0:
            at = page + generator.randrange(PAGE)
        case 1:
            at = page + generator.randrange(64)
        case _:
            (lower,) = struct.unpack_from("<H", data, page + 12)
            rows = min(max((lower - 16) // 2, 1), PAGE // 4)
            (offset,) = struct.unpack_from("<H", data, page + 16 + 2 * generator.randrange(rows))
            at = page + min(offset + generator.randrange(8), PAGE - 1)
    data[at] ^= 1 << generator.randrange(8)
    index.write_bytes(data)


def in_process(directory: Path) -> str:
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        code = 1
        try:
            code = _CODES[asyncio.run(use(directory))]
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    names = {code: name for name, code in _CODES.items()}
    return signal.Signals(-code).name if code < 0 else names.get(code, f"exit {code}")


def main() -> None:
    store, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    first, count = map(int, sys.argv[3:])
    logging.disable()
    for number in range(first, first + count):
        shutil.copytree(store, scratch)
        flip(index_file(scratch), random.Random(number))
        print(number, *(in_process(scratch) for _ in range(PROCESSES)), flush=True)
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
