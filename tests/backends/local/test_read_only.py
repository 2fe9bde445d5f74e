"""A store that can't be written is read: from a copy of its index, with nothing of the store locked or changed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.backends.local.store_files import checkpoint_of, index_file, let_another_boot_follow
from tests.backends.local.test_checkpoint import checkpointer_of, engine_of, flip
from tests.backends.local.test_owners import SERVICE, only_root, place
from tests.cli.program import TVIX_STORE
from tvix_store.backends.local import open_store, replay, snapshot
from tvix_store.backends.local.contents import Content
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.records import Kind
from tvix_store.backends.local.requests import PutPathInfo
from tvix_store.config import open_store as open_anywhere
from tvix_store.errors import CorruptError, DeniedError, NoStoreError, NotFoundError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_tree, stream
from tvix_store.testing.contracts.staging import begun, stage_tree
from tvix_store.testing.trees import TreeFile

__all__ = ["place"]

NUMBERS = iter(range(1, 256))
OTHER = StorePath(b"x" * 20, "other")


async def put_path(store: Store, seed: str, size: int = 50_000) -> PathInfo:
    """A path whose tree is a file that is cut, and a small one."""
    node = await put_tree(store, {b"file": TreeFile(noise(size, seed)), b"small": TreeFile(seed.encode())})
    info = PathInfo(StorePath(bytes([next(NUMBERS)]) * 20, "path"), node, await store.nar.calculate(node))
    return await store.path_infos.put(info)


async def whole_paths(store: Store) -> set[PathInfo]:
    """The paths of a store, all of whose content is read."""
    found = {info async for info in store.path_infos.list()}
    for info in found:
        async for directory in store.directories.get_recursive(info.node.digest):  # type: ignore[union-attr]
            for node in directory.entries.values():
                assert len(await collect(store.blobs.read(node.digest))) == node.size  # type: ignore[union-attr]
    return found


def state(store: Path) -> dict[str, tuple[int, ...]]:
    """All files of a store, and what would change with them."""
    found = [(path, path.lstat()) for path in (store, *store.rglob("*"))]
    return {str(path): (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino) for path, status in found}


@pytest.fixture
async def filled(tmp_path: Path) -> tuple[Path, PathInfo]:
    """A store that nobody has open, and the path in it."""
    async with await open_store(tmp_path / "store", chunk_average=4096) as store:
        return tmp_path / "store", await put_path(store, "the path")


@pytest.fixture
async def live(filled: tuple[Path, PathInfo]) -> AsyncIterator[tuple[Path, Store]]:
    """The same, opened by somebody who writes to it."""
    async with await open_store(filled[0]) as store:
        yield filled[0], store


async def test_everything_is_read_nothing_is_taken_and_no_file_is_touched(filled: tuple[Path, PathInfo]) -> None:
    directory, info = filled
    before = state(directory)
    async with await open_store(directory, read_only=True) as store:
        assert store.read_only
        assert await whole_paths(store) == {info}
        assert await store.nar.calculate(info.node) == info.nar
        assert store.statistics is not None
        assert (await store.statistics.stats()).path_infos == 1
        await store.check()
        await store.sync()
        where = f"the store in {directory} can only be read: it was opened with read-only=1"
        with pytest.raises(DeniedError, match=where):
            await store.blobs.put(stream([b"x"]))
        with pytest.raises(DeniedError, match=where):
            await store.blobs.put_many([b"x"])
        with pytest.raises(DeniedError, match=where):
            await store.path_infos.put(replace(info, store_path=OTHER))
        assert (store.staging, store.assembling) == (None, None)
    assert state(directory) == before


async def test_the_engine_below_takes_nothing_either(filled: tuple[Path, PathInfo]) -> None:
    engine = Engine.acquire(filled[0], {}, read_only=True)
    try:
        with pytest.raises(DeniedError, match="can only be read"):
            await asyncio.wrap_future(engine.committer.put_contents([Content(Kind.CHUNK, Digest.of(b"x").raw, b"x")]))
        with pytest.raises(DeniedError, match="can only be read"):
            await asyncio.wrap_future(engine.committer.submit(PutPathInfo(replace(filled[1], store_path=OTHER))))
    finally:
        engine.release()


async def test_there_must_be_a_store(tmp_path: Path) -> None:
    with pytest.raises(NoStoreError, match="no store"):
        await open_store(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()


async def test_readers_do_not_keep_others_from_having_the_store_alone(filled: tuple[Path, PathInfo]) -> None:
    directory, info = filled
    async with await open_store(directory, read_only=True) as reader:
        let_another_boot_follow(directory)
        async with await open_store(directory) as store:  # which has to be alone to repair the index
            assert await whole_paths(store) == await whole_paths(reader) == {info}


@pytest.mark.parametrize("how", ["power cut", "killed", "index lost", "index damaged", "checkpoint damaged", "died in the index"])
async def test_a_backup_that_was_not_closed_is_read_up_to_its_last_path(
    filled: tuple[Path, PathInfo], tmp_path: Path, how: str
) -> None:
    directory, info = filled
    async with await open_store(directory) as store:
        await asyncio.to_thread(checkpointer_of(engine_of(store)).make)
        other = await put_path(store, "behind the checkpoint")
        assert store.staging is not None
        async with begun(store) as stage:
            await stage_tree(store, stage, {b"never": TreeFile(noise(1_000_000, "never accepted"))})
            copy = Path(shutil.copytree(directory, tmp_path / "copy"))
    if how == "power cut":
        let_another_boot_follow(copy)
    elif how == "index lost":
        shutil.rmtree(copy / "index")
    elif how == "index damaged":
        (copy / "index-damaged").touch()
    elif how == "checkpoint damaged":
        (copy / "checkpoint").write_bytes(b"x")
    elif how == "died in the index":
        (copy / "lock").write_text('Fatal\n  File "/x/tvix_store/backends/local/index.py", line 1 in f\n')
    before = state(copy)
    async with await open_store(copy, read_only=True) as store:
        assert await whole_paths(store) == {info, other}
        never = Digest.of(noise(1_000_000, "never accepted"))
        assert await store.blobs.missing([never]) == {never}
    assert state(copy) == before


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_a_store_of_an_older_format_is_read_and_not_raised(filled: tuple[Path, PathInfo], version: int) -> None:
    directory, info = filled
    file, settings = index_file(directory), directory / "settings.json"
    file.rename(file.with_name("data.mdb"))
    (directory / "checkpoint").unlink()
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"format": version}))
    before = state(directory)
    async with await open_store(directory, read_only=True) as store:
        assert await whole_paths(store) == {info}
    assert state(directory) == before


async def in_time(asked: Callable[[], Awaitable[object]]) -> bool:
    """Whether something is so in the end."""
    for _ in range(1000):
        if await asked():
            return True
        await asyncio.sleep(0.01)
    return False


async def is_seen(store: Store, info: PathInfo) -> bool:
    return info in await whole_paths(store)


async def test_what_others_add_is_seen(live: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_LOOK_EVERY", 0.01)
    directory, writer = live
    async with await open_store(directory, read_only=True) as reader:
        for number in range(3):
            info = await put_path(writer, f"added {number}")
            assert await in_time(lambda info=info: is_seen(reader, info))  # type: ignore[misc]
        place = engine_of(writer).index.chunk(Digest.of(b"added 1").raw)
        assert place is not None
        flip(directory, place)
        with pytest.raises(CorruptError):
            await writer.blobs.get_many([Digest.of(b"added 1")])
        await writer.sync()  # it is forgotten
        assert await in_time(lambda: reader.blobs.missing([Digest.of(b"added 1")]))


async def test_a_copy_that_a_checkpoint_interrupts_is_made_once_more(
    live: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, writer = live
    copy, copies, loop = snapshot._copy, list[bool](), asyncio.get_running_loop()
    info = await put_path(writer, "the first")

    def copy_and_write(source: Path, target: Path, size: int) -> bool:
        copies.append(copy(source, target, size))
        if len(copies) <= most:
            asyncio.run_coroutine_threadsafe(put_path(writer, f"while it is copied {len(copies)}", 300), loop).result()
            checkpointer_of(engine_of(writer)).make()
        return copies[-1]

    monkeypatch.setattr(snapshot, "_copy", copy_and_write)
    most = 2
    async with await open_store(directory, read_only=True) as reader:
        assert len(copies) == 3
        found = await whole_paths(reader)
        assert info in found
        assert len(found) == 4
    most = 100
    with pytest.raises(UnavailableError, match="written faster than its index can be copied"):
        await open_store(directory, read_only=True)


async def test_a_path_that_is_seen_has_its_content_in_whatever_order_packs_are_read(
    live: tuple[Path, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pack of a stage was read already when its content is accepted; the path, in a later pack, is seen."""
    directory, writer = live
    loop, tails = asyncio.get_running_loop(), replay._tails
    content = noise(600_000, "staged")

    async def push() -> None:
        async with begun(writer) as stage:
            node = await stage_tree(writer, stage, {b"file": TreeFile(content)})
            await stage.accept()
        await writer.path_infos.put(PathInfo(StorePath(b"p" * 20, "pushed"), node, await writer.nar.calculate(node)))

    await asyncio.to_thread(checkpointer_of(engine_of(writer)).make)
    async with begun(writer) as stage:  # it has the first pack
        await stage_tree(writer, stage, {b"file": TreeFile(noise(600_000, "before"))})
        await stage.accept()
    await put_path(writer, "in the second pack")
    assert len(os.listdir(directory / "packs")) == 2
    pushed = False

    def read_and_push(*arguments: Any, **more: Any) -> Iterator[Any]:
        nonlocal pushed
        for tail in tails(*arguments, **more):
            yield tail
            if not pushed:
                assert tail.scan.number == 1
                pushed = True
                asyncio.run_coroutine_threadsafe(push(), loop).result()

    monkeypatch.setattr(replay, "_tails", read_and_push)
    async with await open_store(directory, read_only=True) as reader:
        found = await whole_paths(reader)
        assert pushed
        assert "pushed" in {info.store_path.name for info in found}
        assert await reader.blobs.missing([Digest.of(content)]) == set()


async def test_damage_is_forgotten_by_the_reader_alone(filled: tuple[Path, PathInfo]) -> None:
    directory, _ = filled
    small = Digest.of(b"the path")
    async with await open_store(directory) as store:
        place = engine_of(store).index.chunk(small.raw)
        assert place is not None
    flip(directory, place)
    before = state(directory)
    async with await open_store(directory, read_only=True) as store:
        with pytest.raises(CorruptError):
            await store.blobs.get_many([small])
        await store.sync()
        assert await store.blobs.missing([small]) == {small}
        await store.check()
    assert state(directory) == before


async def test_a_lost_pack_is_missing_for_the_reader_alone(filled: tuple[Path, PathInfo]) -> None:
    directory, info = filled
    (directory / "packs/00000001.pack").unlink()
    before = state(directory)
    async with await open_store(directory, read_only=True) as store:
        assert await store.blobs.missing([Digest.of(b"the path")]) == {Digest.of(b"the path")}
        with pytest.raises(NotFoundError):
            await store.nar.calculate(info.node)
    assert state(directory) == before


async def test_an_index_is_never_looked_for_elsewhere(filled: tuple[Path, PathInfo], tmp_path: Path) -> None:
    directory, _ = filled
    (tmp_path / "elsewhere").write_bytes(b"x")
    replace(checkpoint_of(directory), file="../../elsewhere").write(directory, Durability(directory))
    with pytest.raises(CorruptError, match="checkpoint is damaged"):
        checkpoint_of(directory)


def run(*arguments: str, user: int = 0) -> tuple[int, str, str]:
    """Run the program as a user: exit code, output, error."""
    identity = [programs.require("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    done = subprocess.run(
        [*identity, TVIX_STORE, *arguments], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@only_root
@pytest.mark.parametrize("is_closed", [True, False])
async def test_another_user_reads_a_store(place: Path, is_closed: bool) -> None:
    for name, mode in {"s": 0o755, "out": 0o777}.items():
        (place / name).mkdir()
        (place / name).chmod(mode)
    store = await open_store(place / "s")
    info = await put_path(store, "of root")
    if is_closed:
        await store.close()
    before = state(place / "s")
    base, own = info.store_path.absolute().rpartition("/")[2], ("--store", str(place / "s"))
    for arguments, output in {
        ("list",): f"/nix/store/{base}\n",
        ("ls", base): "file\nsmall\n",
        ("cat", f"{base}/small"): "of root",
        ("path-info", "verify", "--all"): f"/nix/store/{base}: good\n",
        ("export", base, str(place / "out/there")): "",
    }.items():
        assert await asyncio.to_thread(run, *own, *arguments, user=SERVICE) == (0, output, "")
    assert (place / "out/there/small").read_bytes() == b"of root"
    denied = f"tvix-store: error: the store in {place / 's'} can only be read: this user may not write {place / 's'}; write as its "
    denied += "owner, or through a daemon of the owner\n"
    assert await asyncio.to_thread(run, *own, "import", str(place / "out/there"), user=SERVICE) == (8, "", denied)
    if is_closed:
        assert state(place / "s") == before
    else:
        await store.close()


@only_root
def test_a_store_on_a_read_only_file_system_is_read(place: Path) -> None:
    (place / "m").mkdir()
    (place / "file").write_text("on a mount")
    _, path, _ = run("--store", str(place / "s"), "import", str(place / "file"))
    if subprocess.run(["mount", "--bind", place / "s", place / "m"], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place / "m"], check=True)
        own = ("--store", str(place / "m"))
        assert run(*own, "list") == (0, path, "")
        assert run(*own, "cat", path.strip()) == (0, "on a mount", "")
        denied = f"tvix-store: error: the store in {place / 'm'} can only be read: its file system is read-only\n"
        assert run(*own, "import", str(place / "file"), "--name", "other") == (8, "", denied)
    finally:
        subprocess.run(["umount", place / "m"], check=True)


async def test_a_daemon_says_that_it_needs_read_only(filled: tuple[Path, PathInfo]) -> None:
    address = f"local://{filled[0]}?read-only=1"
    code, _, error = await asyncio.to_thread(run, "--store", address, "daemon", "-l", "localhost:0")
    assert (code, error.count("\n")) == (8, 1)
    assert "serve it with --read-only" in error


async def test_a_store_that_is_only_read_is_not_filled(filled: tuple[Path, PathInfo]) -> None:
    address = f"local://{filled[0]}?read-only=1"
    with pytest.raises(DeniedError, match="has no place there"):
        await open_anywhere(address, substituters=["http://cache.example?trusted=1"])


async def test_the_copy_leaves_nothing_behind(
    filled: tuple[Path, PathInfo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    async with await open_store(filled[0], read_only=True):
        assert not os.listdir(tmp_path / "tmp")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UnavailableError, match="TMPDIR"):
        await open_store(filled[0], read_only=True)
