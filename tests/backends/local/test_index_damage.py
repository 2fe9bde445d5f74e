"""A damaged index: a flipped bit is never believed, is told of, and heals when the store is opened next."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests import programs
from tests.backends.local.flip_index import PATHS, WRONG, blob, fill, look, path_info
from tests.backends.local.store_files import TABLES, index_file, let_another_boot_follow, opened_table
from tests.cli.program import Program
from tests.programs import ROOT
from tvix_store.backends.local import open_index, open_store
from tvix_store.backends.local.durability import FILE as FAILED
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.environment import lock_file
from tvix_store.backends.local.index_damage import FILE as DAMAGED
from tvix_store.backends.local.rows import CHECK_SIZE
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import belongs_to
from tvix_store.model.signature import Signature
from tvix_store.testing.content import collect, noise

FLIPS = int(os.environ.get("TVIX_STORE_TEST_FLIPS", "15"))
_FAULTS = {signal.SIGBUS.name, signal.SIGSEGV.name, signal.SIGABRT.name}


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    async with await open_store(tmp_path / "store") as store:
        await fill(store)
    return tmp_path / "store"


def change(store: Path, table: bytes, edit: Callable[[bytes, bytes], bytes]) -> None:
    """Write every row of a table anew, as `edit` makes it of key and row."""
    with opened_table(store, table) as (txn, _):
        for key, row in list(txn.cursor()):
            txn.put(key, edit(key, row))


def flipped(at: int) -> Callable[[bytes, bytes], bytes]:
    return lambda _key, row: row[:at] + bytes([row[at] ^ 1]) + row[at + 1 :]


@pytest.mark.timeout(300)
def test_whatever_bit_flips_nothing_wrong_is_served_and_no_process_dies_of_it_twice(tmp_path: Path, filled: Path) -> None:
    command = [sys.executable, "-m", "tests.backends.local.flip_index", str(filled), str(tmp_path / "scratch"), "0", str(FLIPS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split() for line in run.stdout.splitlines()]
    assert len(lines) == FLIPS
    for number, *seen in lines:
        assert WRONG not in seen, number
        assert {*seen} <= {"right", "refused", *_FAULTS}, (number, seen)
        assert all(one == "right" or next_one == "right" for one, next_one in pairwise(seen)), (number, seen)
    assert sum("refused" in seen for _, *seen in lines) > FLIPS / 20


async def test_a_flipped_bit_in_a_name_is_not_served_and_told_of_and_mended_by_the_next_open(filled: Path) -> None:
    change(filled, b"path_infos", lambda key, row: row.replace(b"-path-7", b"-path-6"))
    expected = path_info(7)
    async with await open_store(filled) as store:
        await store.check()
        assert await store.path_infos.get(expected.store_path.output_hash) is None
        with pytest.raises(UnavailableError, match="damaged"):
            await store.check()
        assert (filled / DAMAGED).exists()
        assert await store.path_infos.get(path_info(8).store_path.output_hash) == path_info(8)
        assert len([info async for info in store.path_infos.list()]) < PATHS
    async with await open_store(filled) as store:
        await store.check()
        assert await look(store) == {"right"}
    assert not (filled / DAMAGED).exists()


async def test_a_row_under_the_key_of_another_is_not_served(filled: Path) -> None:
    rows: dict[bytes, bytes] = {}
    change(filled, b"path_infos", rows.setdefault)
    one, other = sorted(rows)[:2]
    change(filled, b"path_infos", lambda key, row: rows[other] if key == one else row)
    async with await open_store(filled) as store:
        assert await store.path_infos.get(one) is None
        assert await store.path_infos.get(other) is not None


def test_a_path_info_belongs_to_its_own_output_hash_alone() -> None:
    info = path_info(1)
    assert belongs_to(info.encoded, info.store_path.output_hash)
    assert not belongs_to(info.encoded, path_info(2).store_path.output_hash)
    for damaged in (b"", info.encoded[:10], info.encoded[:6] + b"?" + info.encoded[7:], b"\n" * 100, b"\n_" * 50):
        assert not belongs_to(damaged, info.store_path.output_hash)


@pytest.mark.parametrize("table", [b"chunks", b"chunk_lists", b"path_infos", b"records", b"packs"])
async def test_what_a_damaged_row_named_is_stored_anew_when_it_is_put_again(filled: Path, table: bytes) -> None:
    change(filled, table, flipped(9))
    async with await open_store(filled) as store:
        if table == b"packs":
            with pytest.raises(CorruptError, match="damaged"):  # nobody knows what must be synced before
                await store.path_infos.put(path_info(1).with_signatures([Signature("more", b"m" * 64)]))
        else:
            assert await look(store) >= {"refused"}
            await fill(store)
            assert await look(store) == {"right"}
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}
        await fill(store)


async def test_signatures_of_a_damaged_row_are_not_lost_when_the_path_is_put_again(filled: Path) -> None:
    change(filled, b"path_infos", flipped(20))
    expected = path_info(3)
    other = Signature("other", b"o" * 64)
    async with await open_store(filled) as store:
        put = await store.path_infos.put(path_info(3).with_signatures([other]))
        assert other in put.signatures
    async with await open_store(filled) as store:
        found = await store.path_infos.get(expected.store_path.output_hash)
        assert found is not None
        assert {*found.signatures} == {*expected.signatures, other}


async def test_a_damaged_counter_is_not_taken_for_zero(filled: Path) -> None:
    change(filled, b"counters", flipped(0))
    async with await open_store(filled) as store:
        with pytest.raises(CorruptError, match="it has lost the"):
            await store.path_infos.put(path_info(1).with_signatures([Signature("more", b"m" * 64)]))
    async with await open_store(filled) as store:
        await store.path_infos.put(path_info(1).with_signatures([Signature("more", b"m" * 64)]))


async def test_a_damaged_index_that_others_use_is_opened_as_it_is(filled: Path) -> None:
    (filled / DAMAGED).write_text("found by another process")
    other = os.open(filled / "lock", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_SH)
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}
        with pytest.raises(UnavailableError, match="damaged"):
            await store.check()
    os.close(other)
    async with await open_store(filled) as store:
        await store.check()


_DIES = """
import asyncio, faulthandler, sys
from pathlib import Path
from tvix_store.backends.local import index, open_store

async def main():
    store = await open_store(Path(sys.argv[1]))
    assert await store.path_infos.get(bytes(20)) is None
    scope = {}
    exec(compile("import faulthandler\\ndef die(): faulthandler._sigsegv()", sys.argv[2] or index.__file__, "exec"), scope)
    scope["die"]()

asyncio.run(main())
"""


def dies(store: Path, where: str = "") -> None:
    """Let a process that uses the store die of a fault in the index, or elsewhere."""
    run = subprocess.run([sys.executable, "-c", _DIES, store, where], cwd=ROOT, capture_output=True, check=False)
    assert run.returncode == -signal.SIGSEGV, run.stderr


async def test_an_index_in_which_a_process_died_is_made_anew(
    filled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dies(filled)
    monkeypatch.setattr(open_index, "_TRIES", 3)
    other = os.open(filled / "lock", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_SH)
    for _ in range(2):  # it would die as well
        with pytest.raises(UnavailableError, match="other processes use the store"):
            await open_store(filled)
    os.close(other)
    async with await open_store(filled) as store:
        assert "from its packs" in caplog.text
        assert await look(store) == {"right"}
        await store.check()
    assert (filled / "lock").read_bytes() == b""


async def test_a_process_that_died_elsewhere_leaves_the_index_as_it_is(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    dies(filled, "elsewhere.py")
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}
    assert "killed by a fault" in caplog.text
    assert "elsewhere.py" in caplog.text
    assert "from its packs" not in caplog.text
    assert (filled / "lock").read_bytes() == b""


def as_of_format_3(store: Path) -> None:
    """Give a store the files that format 3 has."""
    file = index_file(store)
    file.rename(file.with_name("data.mdb"))
    lock_file(file).rename(file.with_name("lock.mdb"))
    (store / "checkpoint").unlink()
    settings = store / "settings.json"
    settings.write_text(settings.read_text().replace('"format": 6', '"format": 3'))


@pytest.mark.parametrize("is_torn", [False, True])
async def test_a_store_of_format_3_is_upgraded_once(filled: Path, caplog: pytest.LogCaptureFixture, is_torn: bool) -> None:
    as_of_format_3(filled)
    if is_torn:
        (filled / "index-unsynced").write_text("another boot")
    for number in range(2):
        async with await open_store(filled) as store:
            assert await look(store) == {"right"}
            await store.blobs.put_many([b"more", b"%d" % number])
        assert caplog.text.count("upgrading") == 1
        assert caplog.text.count("anew") == is_torn
    assert not (filled / "index-unsynced").exists()


@pytest.mark.parametrize("version", [1, 2])
async def test_a_store_of_an_older_format_is_upgraded_once(
    filled: Path, version: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for table in TABLES:
        change(filled, table, lambda _key, row: row[:-CHECK_SIZE])
    with opened_table(filled, b"counters") as (txn, _):
        assert txn.delete(b"version of the index")
        txn.put(b"times that damage was forgotten", struct.pack("<Q", 5))
    as_of_format_3(filled)
    settings = filled / "settings.json"
    settings.write_text(settings.read_text().replace('"format": 3', f'"format": {version}'))
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}
        assert await store.epoch() == 5  # what only the index knows is kept
    assert '"format": 6' in settings.read_text()
    assert caplog.text.count("upgrading") == 1
    assert "anew" not in caplog.text
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}
    assert caplog.text.count("upgrading") == 1


@pytest.mark.parametrize("is_other_boot", [False, True])
async def test_a_store_of_format_4_is_upgraded_once(filled: Path, caplog: pytest.LogCaptureFixture, is_other_boot: bool) -> None:
    settings = filled / "settings.json"
    settings.write_text(settings.read_text().replace('"format": 6', '"format": 4'))
    if is_other_boot:
        let_another_boot_follow(filled)
    async with await open_store(filled, read_only=True) as store:
        assert await look(store) == {"right"}
    assert '"format": 4' in settings.read_text()
    for _ in range(2):
        async with await open_store(filled) as store:
            assert await look(store) == {"right"}
        assert caplog.text.count("upgrading") == 1
        assert "anew" not in caplog.text
    assert '"format": 6' in settings.read_text()


def replaced_by_a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(b""),  # LMDB takes it for a new one
        lambda file: os.truncate(file, 100),
        lambda file: os.truncate(file, 4096),
        lambda file: file.write_bytes(noise(300_000, "garbage")),
        lambda file: file.unlink(),
        lambda file: lock_file(file).write_bytes(noise(17 * 4096, "garbage")),
        replaced_by_a_directory,
        lambda file: replaced_by_a_directory(lock_file(file)),
        lambda file: file.parent.rename(file.parent.with_name("other")).with_name("index").write_bytes(b""),
        lambda file: file.parent.with_name("checkpoint").unlink(),
        lambda file: file.parent.with_name("checkpoint").write_bytes(noise(300)),
        lambda file: replaced_by_a_directory(file.parent.with_name("checkpoint")),
    ],
)
async def test_files_of_the_index_that_are_harmed_are_made_anew(filled: Path, harm: Callable[[Path], object]) -> None:
    harm(index_file(filled))
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}
        await fill(store)
        await store.check()
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}


async def test_an_index_that_has_lost_its_version_is_made_anew(filled: Path) -> None:
    with opened_table(filled, b"counters") as (txn, _):
        assert txn.delete(b"version of the index")
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}


async def test_a_sync_of_the_index_that_fails_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Linux tells of a failed write once: the next sync says that all is well."""
    directory = tmp_path / "store"
    failures = [OSError(errno.EIO, "Input/output error")]
    sync = Durability._sync_database

    def fail_once(durability: Durability, path: Path, call: Callable[[], None]) -> None:
        if failures:
            raise failures.pop()
        sync(durability, path, call)

    async with await open_store(directory) as store:
        await store.blobs.put_many([blob(1)])
        monkeypatch.setattr(Durability, "_sync_database", fail_once)
    assert not failures
    assert (directory / FAILED).exists()
    assert "a sync failed" in caplog.text
    caplog.clear()
    async with await open_store(directory) as store:
        assert "went back to the last checkpoint" in caplog.text
        assert await collect(store.blobs.read(Digest.of(blob(1)))) == blob(1)
    assert not (directory / FAILED).exists()


@pytest.mark.parametrize(("file", "which"), [("index/1.mdb", 1), ("packs/00000001.pack", 1), ("packs/00000001.pack", 2)])
def test_a_disk_that_fails_to_sync_once_is_told_of_and_nobody_builds_on_it(tmp_path: Path, file: str, which: int) -> None:
    """The second sync of a pack is that of the path info itself, the only one of the index that at the end."""
    program = Program(tmp_path)
    program("import", "--name", "first", __file__)
    strace = (programs.require("strace"), "-f", "-q", "-o", str(tmp_path / "trace"), "-P", str(program.store / file))
    ended = program.run(
        "import", "--name", "second", ROOT / "README.md", under=(*strace, "-e", f"inject=fdatasync:error=EIO:when={which}")
    )
    assert "(INJECTED)" in (tmp_path / "trace").read_text()
    assert "a sync failed" in ended.error
    assert "Traceback" not in ended.error
    assert ended.code == (0 if file.startswith("index") else 7)  # the path itself had reached the disk
    assert (program.store / FAILED).exists()
    listed = program.run("list")
    assert "went back to the last checkpoint" in listed.error
    assert any(line.endswith("-first") for line in listed.lines)
    assert len(listed.lines) == 2 or ended.code
    assert program("list").splitlines() == listed.lines


_OPENS = """
import asyncio, sys, time
from pathlib import Path
from tvix_store.backends.local import open_index, open_store

open_index._TRIES = 5  # half a second
replay = open_index.replay

def slow_replay(*arguments):
    time.sleep(2)
    print("made anew", flush=True)
    replay(*arguments)

open_index.replay = slow_replay

async def main():
    print("begun", flush=True)
    sys.stdin.readline()
    async with await open_store(Path(sys.argv[1])) as store:
        assert len([info async for info in store.path_infos.list()]) == int(sys.argv[2])

asyncio.run(main())
"""


def test_processes_that_find_an_index_torn_wait_for_the_one_that_makes_it_anew(filled: Path) -> None:
    let_another_boot_follow(filled)
    command = [sys.executable, "-c", _OPENS, str(filled), str(PATHS)]
    with ExitStack() as running:
        processes = [
            running.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        ended = [process.communicate() for process in processes]
        assert [process.returncode for process in processes] == [0] * 4, ended
        assert sum(b"made anew" in output for output, _ in ended) == 1
        assert any(b"waiting for another process" in error for _, error in ended)
