"""Backups of local stores: whole, incremental, and the old one or the new one whatever interrupts them."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.backends.local import writer_process
from tests.backends.local.simulated_disk import NoSyncs, SimulatedDisk
from tests.backends.local.store_files import checkpoint_of, let_another_boot_follow, make_index_anew
from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import collect_garbage, remove
from tests.backends.local.test_kill import check as check_told
from tests.backends.local.test_owners import SERVICE, only_root, place
from tests.backends.local.test_read_only import in_time, put_path, state, whole_paths
from tests.backends.local.writer_process import shared
from tests.programs import ROOT
from tests.small_disk import mounted
from tvix_store.backends.local import backup_packs, backup_target, open_store
from tvix_store.backends.local.backup import BackupAccount, backup
from tvix_store.backends.local.backup_source import copy_state
from tvix_store.backends.local.backup_target import BEGUN
from tvix_store.backends.local.collection_lock import collecting, not_collecting
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.packs import pack_numbers, pack_path
from tvix_store.backends.local.seal import is_sealed
from tvix_store.config import open_store as open_anywhere
from tvix_store.errors import CorruptError, DiskFullError, InvalidError, NoStoreError, UnavailableError
from tvix_store.model.path_info import PathInfo
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_tree
from tvix_store.testing.trees import TreeFile

__all__ = ["place", "put_content"]

CUTS = int(os.environ.get("TVIX_STORE_TEST_BACKUP_CUTS", "4"))
KILLS = int(os.environ.get("TVIX_STORE_TEST_BACKUP_KILLS", "10"))
PACK_SIZE = 1 << 20


def backed_up(
    store: Path, copy: Path, durability: Callable[[Path], Durability] = NoSyncs, *, read_only: bool = False
) -> BackupAccount:
    account = BackupAccount()
    for _ in backup(store, copy, account, durability, read_only=read_only):
        pass
    return account


async def paths_in(directory: Path, *, read_only: bool = False) -> set[PathInfo]:
    async with await open_store(directory, read_only=read_only) as store:
        await store.check()
        return await whole_paths(store)


async def put(directory: Path, *seeds: str, size: int = 50_000) -> set[PathInfo]:
    async with await open_store(directory, pack_size=PACK_SIZE) as store:
        return {await put_path(store, seed, size) for seed in seeds}


async def put_content(directory: str, seed: str = "new") -> None:
    """What `put_path` puts, but the path info."""
    async with await open_store(Path(directory)) as store:
        await put_tree(store, {b"file": TreeFile(noise(50_000, seed)), b"small": TreeFile(seed.encode())})


def pack_bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in (store / "packs").iterdir())


@pytest.fixture
async def store(tmp_path: Path) -> Path:
    """A store with some packs."""
    await put(tmp_path / "store", "first", "second", size=1_500_000)
    return tmp_path / "store"


async def test_a_backup_is_a_store_that_anybody_opens(store: Path, tmp_path: Path) -> None:
    there = await paths_in(store)
    account = backed_up(store, tmp_path / "copy")
    assert account.copied == account.to_copy == pack_bytes(store)
    assert account.there == 0
    assert await paths_in(tmp_path / "copy", read_only=True) == there
    assert await paths_in(tmp_path / "copy") == there
    shutil.rmtree(store)  # the restore: copying it back
    shutil.copytree(tmp_path / "copy", store)
    assert there | await put(store, "afterwards") == await paths_in(store)
    let_another_boot_follow(store)
    assert len(await paths_in(store)) == len(there) + 1
    assert backed_up(store, tmp_path / "copy").copied > 50_000  # which goes on from there
    make_index_anew(store)
    assert len(await paths_in(store)) == len(await paths_in(tmp_path / "copy")) == len(there) + 1


async def test_only_what_is_new_is_copied(store: Path, tmp_path: Path) -> None:
    backed_up(store, tmp_path / "copy")
    before = pack_bytes(store)
    again = backed_up(store, tmp_path / "copy")
    assert (again.copied, again.there) == (0, before)
    await put(store, "third")
    grown = backed_up(store, tmp_path / "copy")
    assert grown.there == before
    assert 50_000 < grown.copied == pack_bytes(store) - before < 100_000
    assert await paths_in(tmp_path / "copy") == await paths_in(store)
    assert not (tmp_path / "copy" / BEGUN).exists()
    assert {path.name for path in (tmp_path / "copy/index").iterdir()} == {
        checkpoint_of(tmp_path / "copy").file,
        checkpoint_of(tmp_path / "copy").file + "-lock",
    }


async def test_what_is_put_meanwhile_is_in_the_next_backup(store: Path, tmp_path: Path) -> None:
    async with await open_store(store) as user:
        early = await put_path(user, "acknowledged before")
        steps = backup(store, tmp_path / "copy", BackupAccount(), NoSyncs)
        next(steps)
        late = await put_path(user, "acknowledged later")
        for _ in steps:
            pass
        assert early in await paths_in(tmp_path / "copy")
        assert late not in await paths_in(tmp_path / "copy")
        backed_up(store, tmp_path / "copy")
        assert late in await paths_in(tmp_path / "copy")


@pytest.mark.parametrize("is_first", [True, False])
async def test_what_an_interrupted_backup_has_copied_counts_for_nothing(
    store: Path, tmp_path: Path, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path info has arrived, and its content, in another pack, has not."""
    monkeypatch.setattr(backup_packs, "_PIECE", 10_000)
    copy = tmp_path / "copy"
    if not is_first:
        backed_up(store, copy)
    old = await paths_in(store)
    async with await open_store(store) as user:
        await user.blobs.put_many([b"so that it has a pack of its own"])
        code = "import asyncio, sys; from tests.backends.local.test_backup import *; asyncio.run(put_content(sys.argv[1]))"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(store), cwd=ROOT)
        assert await process.wait() == 0
        await put_path(user, "new")  # appends the path info alone, to a pack that is copied first
        number = engine_of(user).committer._writer.number
        assert number < pack_numbers(store / "packs")[-1]
    steps = backup(store, copy, BackupAccount(), NoSyncs)
    there = pack_path(copy / "packs", number)
    while not there.exists() or there.stat().st_size < pack_path(store / "packs", number).stat().st_size:
        next(steps)
    next(steps)
    steps.close()
    if is_first:
        with pytest.raises(NoStoreError, match="neither empty nor a store"):
            await paths_in(copy)
    else:
        let_another_boot_follow(copy)
        assert await paths_in(copy, read_only=True) == old
        assert await paths_in(copy) == old
    backed_up(store, copy)
    assert await paths_in(copy) == await paths_in(store) > old


async def test_nothing_behind_the_seal_comes_back_when_it_is_broken(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    backed_up(store, copy)
    old = await paths_in(store)
    new = await put(store, "new")
    last = pack_numbers(store / "packs")[-1]
    shutil.copyfile(pack_path(store / "packs", last), pack_path(copy / "packs", last))  # as far as a backup came
    assert await paths_in(copy) == old
    assert is_sealed(copy)
    own = await put(copy, "own")
    assert not is_sealed(copy)
    let_another_boot_follow(copy)
    assert await paths_in(copy) == old | own
    make_index_anew(copy)
    assert await paths_in(copy) == old | own
    assert not new & await paths_in(copy)


async def test_a_backup_that_was_opened_is_brought_up_to_date(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    backed_up(store, copy)
    size = pack_bytes(store)
    async with await open_store(copy) as opened:
        for info in await whole_paths(opened):
            await opened.nar.calculate(info.node)
        engine = engine_of(opened)
        with engine.index.writing() as txn:
            engine.index.drop_nar_facts(txn)
    assert not is_sealed(copy)
    await put(store, "more")
    assert backed_up(store, copy).there == size
    assert is_sealed(copy)
    assert await paths_in(copy) == await paths_in(store)


async def test_a_pack_that_the_backup_has_lost_is_copied_anew(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    backed_up(store, copy)
    pack_path(copy / "packs", 1).unlink()
    os.truncate(pack_path(copy / "packs", 2), 1000)
    assert backed_up(store, copy).copied > PACK_SIZE
    assert await paths_in(copy) == await paths_in(store)


async def test_packs_that_were_collected_go_when_the_new_state_counts(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    old = await paths_in(store)
    backed_up(store, copy)
    before = set(pack_numbers(store / "packs"))
    async with await open_store(store) as user:
        stays, goes = sorted(old, key=lambda info: info.store_path)
        await remove(user, goes)
        await collect_garbage(user)
    gone = before - set(pack_numbers(store / "packs"))
    assert gone
    steps = backup(store, copy, BackupAccount(), NoSyncs)
    next(steps)
    assert gone < set(pack_numbers(copy / "packs"))
    assert await paths_in(copy, read_only=True) == old
    for _ in steps:
        pass
    assert set(pack_numbers(copy / "packs")) == set(pack_numbers(store / "packs"))
    assert await paths_in(copy) == {stays}
    make_index_anew(copy)
    assert await paths_in(copy) == {stays}


async def test_a_store_that_lacks_a_pack_is_not_copied_over_the_backup_that_has_it(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    backed_up(store, copy)
    there = await paths_in(store)
    lost = pack_path(store / "packs", 1)
    lost.rename(tmp_path / "lost")
    for read_only in (False, True):
        with pytest.raises(UnavailableError, match="packs are missing or cut short"):
            backed_up(store, copy, read_only=read_only)
    assert await paths_in(copy) == there
    shutil.copyfile(pack_path(copy / "packs", 1), lost)  # what the backup is for
    assert await paths_in(store) == there
    assert backed_up(store, copy).copied < 10_000  # what the loss made the store say anew


async def test_damage_in_the_store_is_told_and_does_not_reach_what_was_copied(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy"
    backed_up(store, copy)
    for number in (1, 2):
        with pack_path(store / "packs", number).open("r+b") as pack:
            pack.seek(48)
            pack.write(bytes(10))  # the header of the first entry
    assert backed_up(store, copy).damaged == 0
    assert pack_path(copy / "packs", 1).read_bytes() != pack_path(store / "packs", 1).read_bytes()
    assert backed_up(store, tmp_path / "another").damaged > 0
    assert "damaged bytes, which are copied as they are" in caplog.text


class FlippingDisk(NoSyncs):
    """A disk that does not keep what is written to packs."""

    def _fsync(self, fd: int) -> None:
        if ".pack" in os.readlink(f"/proc/self/fd/{fd}"):
            os.pwrite(fd, bytes(10), 48)


async def test_a_disk_that_does_not_keep_what_is_copied_is_found_out(store: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="has not kept"):
        backed_up(store, tmp_path / "copy", FlippingDisk)


async def test_places_that_are_no_place_for_a_backup_are_refused(store: Path, tmp_path: Path) -> None:
    for directory in (store, store / "backups", tmp_path):
        with pytest.raises(InvalidError, match="lie in each other"):
            backed_up(store, directory)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents/letter").touch()
    with pytest.raises(InvalidError, match="neither empty nor a backup"):
        backed_up(store, tmp_path / "documents")
    with pytest.raises(NoStoreError, match="there is no store"):
        backed_up(tmp_path / "nothing", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


async def test_another_store_is_no_backup(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    theirs = await put(other, "theirs")
    with pytest.raises(InvalidError, match=r"is no backup of .*00000001\.pack is another one"):
        backed_up(store, other)
    assert await paths_in(other) == theirs
    async with await open_store(tmp_path / "coarse", chunk_average=4096):
        pass
    with pytest.raises(InvalidError, match="other settings"):
        backed_up(store, tmp_path / "coarse")


async def test_a_backup_of_another_store_is_refused_though_it_has_none_of_the_packs(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    backed_up(store, copy)
    theirs = await paths_in(copy)
    await put(tmp_path / "other", "theirs")
    for number in pack_numbers(tmp_path / "other/packs"):
        pack_path(tmp_path / "other/packs", number).rename(pack_path(tmp_path / "other/packs", number + 100))
    make_index_anew(tmp_path / "other")
    with pytest.raises(InvalidError, match="has no pack of"):
        backed_up(tmp_path / "other", copy)
    assert await paths_in(copy) == theirs


async def test_a_backup_that_others_have_written_to_is_refused(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    backed_up(store, copy)
    own = await put(copy, "own")
    with pytest.raises(InvalidError, match="others have written to it"):
        backed_up(store, copy)
    await put(store, "theirs", "more")
    with pytest.raises(InvalidError, match="others have written to it"):
        backed_up(store, copy)
    assert own < await paths_in(copy)


async def test_a_store_that_has_gone_back_is_not_copied_over_what_it_was(store: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(store, tmp_path / "old"))
    await put(store, "later")
    backed_up(store, tmp_path / "copy")
    with pytest.raises(InvalidError):
        backed_up(old, tmp_path / "copy")


async def test_two_backups_into_one_directory_are_refused(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    steps = backup(store, copy, BackupAccount(), NoSyncs)
    next(steps)
    with pytest.raises(UnavailableError, match="is in use"):
        backed_up(store, copy)
    for _ in steps:
        pass
    async with await open_store(copy):
        with pytest.raises(UnavailableError, match="is in use"):
            backed_up(store, copy)
    backed_up(store, copy)


async def test_no_collector_begins_during_a_backup(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(backup(store, tmp_path / "copy", BackupAccount(), NoSyncs)) as steps:
        next(steps)
        with collecting(store) as is_alone:
            assert not is_alone
    with collecting(store) as is_alone:
        assert is_alone

        def wait() -> None:
            with not_collecting(store):
                pass

        async def told(what: str) -> bool:
            return what in caplog.text

        waiting = asyncio.create_task(asyncio.to_thread(wait))
        assert await in_time(lambda: told("waiting for a collection"))
    await waiting


async def test_tokens_come_along_and_who_may_read_the_store_may_read_the_backup(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    os.chmod(store, 0o750)
    (store / "tokens.json").write_text("{}")
    os.chmod(store / "tokens.json", 0o600)
    backed_up(store, copy)
    assert (copy / "tokens.json").read_text() == "{}"
    assert (copy / "tokens.json").stat().st_mode & 0o777 == 0o600
    assert copy.stat().st_mode & 0o777 == 0o750
    (store / "tokens.json").unlink()
    backed_up(store, copy)
    assert not (copy / "tokens.json").exists()


async def cache_paths(directory: Path, name: str) -> set[PathInfo]:
    async with await open_anywhere(f"local://{directory}?cache={name}") as cache:
        return await whole_paths(cache)


async def test_named_caches_come_along(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"

    async def put_into(name: str, seed: str) -> PathInfo:
        async with await open_anywhere(f"local://{store}?cache={name}") as cache:
            return await put_path(cache, seed)

    one, two = await put_into("one", "its"), await put_into("two", "other")
    account = backed_up(store, copy)
    assert account.caches == 2
    assert await cache_paths(copy, "one") == {one}
    assert await cache_paths(copy, "two") == {two}
    assert await paths_in(copy) == await paths_in(store)
    three = await put_into("three", "new")
    shutil.rmtree(store / "caches/two")
    assert backed_up(store, copy).caches == 2
    assert await cache_paths(copy, "three") == {three}
    assert {each.name for each in (copy / "caches").iterdir()} == {"one", "three"}


async def test_a_path_that_a_cache_gets_meanwhile_is_in_no_half_of_the_backup(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state of the cache is older than that of the content, so it names nothing that is missing."""
    loop, put = asyncio.get_running_loop(), [0]
    async with await open_anywhere(f"local://{store}?cache=one") as cache:
        early = await put_path(cache, "early")

        def copied(source: Path, file: Path, durability: Durability, *, read_only: bool) -> None:
            copy_state(source, file, durability, read_only=read_only)
            put[0] += 1
            asyncio.run_coroutine_threadsafe(put_path(cache, f"late {put}"), loop).result()

        monkeypatch.setattr(backup_target, "copy_state", copied)
        await asyncio.to_thread(backed_up, store, tmp_path / "copy")
    assert put == [2]
    assert await cache_paths(tmp_path / "copy", "one") == {early}


async def test_a_store_that_is_only_read_is_not_touched(store: Path, tmp_path: Path) -> None:
    there = await paths_in(store)
    before = state(store)
    backed_up(store, tmp_path / "copy", read_only=True)
    assert state(store) == before
    assert await paths_in(tmp_path / "copy") == there
    (store / "checkpoint").unlink()
    with pytest.raises(UnavailableError, match="no checkpoint"):
        backed_up(store, tmp_path / "another", read_only=True)


@only_root
async def test_another_user_makes_a_backup_of_a_store_that_is_in_use(place: Path) -> None:
    directory = place / "s"
    async with await open_store(directory) as user:
        info = await put_path(user, "theirs")
        engine = engine_of(user)
        await asyncio.to_thread(engine._opened.checkpointer.make)  # type: ignore[union-attr]
        program = (
            "import os, sys; from pathlib import Path; from tvix_store.backends.local.backup import *\n"
            f"os.setuid({SERVICE}); list(backup(Path({str(directory)!r}), Path({str(place)!r}, 'own/copy'), BackupAccount()))"
        )
        (place / "own").mkdir()
        os.chown(place / "own", SERVICE, SERVICE)
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert await paths_in(place / "own/copy") == {info}


async def test_a_full_disk_leaves_the_last_backup(store: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", 5) as disk:
        copy = disk / "copy"
        backed_up(store, copy, Durability)
        old = await paths_in(copy)
        await put(store, "large", size=3_000_000)
        with pytest.raises(DiskFullError, match=r"small.*free some space"):
            backed_up(store, copy, Durability)
        assert await paths_in(copy) == old
        await asyncio.to_thread(lambda: subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True))
        backed_up(store, copy, Durability)
        assert await paths_in(copy) == await paths_in(store) > old


class Writers:
    """Processes that push into a store, and the lines that they have told."""

    def __init__(self, store: Path, count: int) -> None:
        self.told: list[str] = []
        commands = [[sys.executable, writer_process.__file__, str(store), f"writer {number}"] for number in range(count)]
        self._processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
        self._threads = [threading.Thread(target=self._read, args=(each,)) for each in self._processes]
        for thread in self._threads:
            thread.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.told += (line.rstrip("\n") for line in process.stdout if line.endswith("\n"))

    async def have_begun(self) -> bool:
        return len(self.told) > 10

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for process, thread in zip(self._processes, self._threads, strict=True):
            thread.join()
            assert process.stdout is not None
            process.stdout.close()


BACKUP = (
    "import sys; from pathlib import Path; from tvix_store.backends.local.backup import *\n"
    "for _ in backup(Path(sys.argv[1]), Path(sys.argv[2]), BackupAccount()): pass"
)


@pytest.mark.timeout(600)
async def test_a_backup_that_is_killed_during_pushes_has_all_that_was_acknowledged_before_the_last_one(tmp_path: Path) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    generator = random.Random(3)
    writers = Writers(store, 2)
    assert await in_time(writers.have_begun)
    due: list[str] = []
    complete = killed = 0
    try:
        for number in range(KILLS):
            told = list(writers.told)
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", BACKUP, str(store), str(copy))
            if number % 4:
                await asyncio.sleep(0.2 + generator.random() * 0.5)
                with suppress(ProcessLookupError):
                    process.kill()
            code = await process.wait()
            if code == 0:
                complete, due = complete + 1, told
            else:
                assert code == -signal.SIGKILL
                killed += 1
            if complete:
                left = await asyncio.to_thread(shutil.copytree, copy, tmp_path / "left")
                async with await open_store(left, read_only=bool(number % 2)) as opened:
                    await check_told(opened, due)
                    assert await whole_in(opened) >= sum(line.startswith("path") for line in due)
                await asyncio.to_thread(shutil.rmtree, left)
    finally:
        await asyncio.to_thread(writers.end)
    assert complete >= KILLS / 4
    assert killed >= KILLS / 4
    assert len(due) > 10


async def whole_in(store: Store) -> int:
    """How many paths with content a store has. All of it is read."""
    count = 0
    async for info in store.path_infos.list():
        if info.store_path.name == shared("").name:  # that has no content
            continue
        count += 1
        async for directory in store.directories.get_recursive(info.node.digest):  # type: ignore[union-attr]
            for node in directory.entries.values():
                assert len(await collect(store.blobs.read(node.digest))) == node.size  # type: ignore[union-attr]
    return count


class CutError(Exception):
    """The power went."""


class CuttingDisk(SimulatedDisk):
    """A disk whose power is cut at a sync."""

    left = sys.maxsize
    """Syncs before that."""

    def sync(self, path: Path | str) -> None:
        if not self.left:
            raise CutError
        self.left -= 1
        super().sync(path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_power_cut_at_any_sync_leaves_the_last_backup_or_the_new_one(store: Path, tmp_path: Path, is_first: bool) -> None:
    generator = random.Random(5)
    disk, copy = CuttingDisk(tmp_path / "disk"), tmp_path / "copy"
    old: set[PathInfo] | None = None
    if not is_first:
        backed_up(store, copy, disk)
        old = await paths_in(store)
        await put(store, "new", "newer", size=700_000)
    new = await paths_in(store)
    seen: list[bool] = []
    for syncs in range(1000):
        disk.left = syncs
        try:
            backed_up(store, copy, disk)
        except CutError:
            pass
        else:
            break
        disk.left = sys.maxsize
        for number in range(CUTS):
            left = tmp_path / f"left {number}"
            disk.after_a_cut(copy, left, generator)
            found = await left_paths(left)
            assert found in (old, new)
            seen.append(found == new)
            backed_up(store, left)
            assert await paths_in(left) == new
            shutil.rmtree(left)
    assert await paths_in(copy) == new
    assert seen.count(False) > 10


async def left_paths(directory: Path) -> set[PathInfo] | None:
    """The paths of what is left of a backup; None where there is no store."""
    return await paths_in(directory) if (directory / "settings.json").exists() else None
