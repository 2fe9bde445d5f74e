"""The library for synchronous code."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from warnings import catch_warnings, simplefilter

import pytest

import tvix_store
from tvix_store import ClosedError, Digest, Directory, InvalidError, NotFoundError, StorePath, SymlinkNode, library, services, sync
from tvix_store.sync.store import Counts, Nars

CONTENT = b"some content\n" * 40_000


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """With its last store, the thread ends."""
    yield
    gc.collect()
    assert [each.name for each in threading.enumerate() if each.name == "tvix-store"] == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "hello"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/hello").write_text("echo hello\n")
    return tree


def test_every_verb_is_there(tmp_path: Path, tree: Path) -> None:
    with sync.open_store(tmp_path / "store") as store, sync.open_store("memory://") as other:
        path = sync.import_tree(store, tree).store_path
        assert sync.read_text(store, f"{path}/bin/hello") == "echo hello\n"
        assert sync.read_bytes(store, f"{path}/bin/hello") == b"".join(sync.read_file(store, f"{path}/bin/hello"))
        assert [entry.path for entry in sync.walk(store, path)] == ["", "bin", "bin/hello"]
        handle = sync.resolve(store, path).tree
        nar = b"".join(sync.render_nar(store.blobs, handle))
        assert store.nar.calculate(handle.root).size == len(nar)
        assert b"".join(sync.render_tar(store.blobs, handle, b"hello")).startswith(b"hello/")
        sync.export_tree(store.blobs, handle, tmp_path / "out")
        assert (tmp_path / "out/bin/hello").read_text() == "echo hello\n"
        copied = sync.copy_paths(store, sync.verified(other), sync.named_path_infos(store, [path], closure=True))
        assert [each.store_path for each in copied] == [path]
        assert sync.import_nar(other, io.BytesIO(nar), name="again").nar.size == len(nar)
        assert sync.import_nar(other, iter([nar]), name="again").nar.size == len(nar)
        assert [each.store_path.name for each in other.path_infos.list() if each.store_path.name != "hello"] == ["again"]
        assert store.statistics is not None
        assert store.statistics.stats().path_infos == 1
        assert repr(store) == f"<Store {store.name}>"


def test_services_take_whatever_is_at_hand() -> None:
    def pieces() -> Iterator[bytes]:
        yield CONTENT[:7]
        yield CONTENT[7:]

    with sync.open_store("memory://") as store:
        for data in (CONTENT, io.BytesIO(CONTENT), [CONTENT], pieces()):
            assert store.blobs.put(data) == Digest.of(CONTENT)
        again = store.blobs.put(store.blobs.read(Digest.of(CONTENT), 10))  # from itself
        assert again == Digest.of(CONTENT[10:])
        root = Directory({b"hi": SymlinkNode(b"hello")})
        assert store.directories.put(iter([root])) == root.digest
        assert list(store.directories.get_recursive(root.digest)) == [root]
        assert store.path_infos.get(str(StorePath(bytes(20), "x"))) is None
        for bad in ("text", 7):
            with pytest.raises(InvalidError):
                store.blobs.put(bad)  # type: ignore[arg-type]


def test_an_iterable_is_walked_in_the_thread_of_the_caller() -> None:
    threads = set()

    def pieces() -> Iterator[bytes]:
        threads.add(threading.current_thread())
        yield b"piece"
        raise LookupError("no more")

    with sync.open_store("memory://") as store, pytest.raises(LookupError, match="no more"):
        store.blobs.put(pieces())
    assert threads == {threading.current_thread()}


def test_errors_come_through() -> None:
    with sync.open_store("memory://") as store:
        with pytest.raises(NotFoundError):
            list(store.blobs.read(Digest.of(b"never stored")))
        with pytest.raises(NotFoundError):
            sync.read_text(store, StorePath(bytes(20), "hello"))
    with pytest.raises(InvalidError, match="scheme"):
        sync.open_store("nonsense://")


async def test_it_works_where_an_event_loop_runs_already(tree: Path) -> None:
    with sync.open_store("memory://") as store:
        path = sync.import_tree(store, tree).store_path
        assert sync.read_text(store, f"{path}/bin/hello") == "echo hello\n"


def test_it_works_from_many_threads_at_once() -> None:
    with sync.open_store("memory://") as store:
        done: list[Digest] = []
        threads = [threading.Thread(target=lambda: done.append(store.blobs.put(iter([CONTENT])))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [Digest.of(CONTENT)] * 8


def test_a_closed_store_says_so_whatever_is_asked_of_it(tmp_path: Path, tree: Path) -> None:
    with sync.open_store("memory://") as kept_open:
        with sync.open_store(tmp_path / "store") as store:
            path = sync.import_tree(store, tree).store_path
            half_read = store.blobs.read(store.blobs.put([bytes(range(256)) * 20_000]))
            next(half_read)
        for ask in (
            lambda: store.blobs.put(b"x"),
            lambda: store.blobs.put(iter([b"x"])),
            lambda: sync.read_text(store, path),
            lambda: next(half_read),
            lambda: list(store.path_infos.list()),
        ):
            with pytest.raises(ClosedError, match="is closed"):
                ask()
        store.close()
        assert repr(store).endswith(", closed>")
        assert kept_open.blobs.put(b"x") == Digest.of(b"x")
    with pytest.raises(ClosedError, match="is closed"):
        store.blobs.put(b"x")


def test_an_iterator_that_is_not_read_to_its_end_ends_its_stream() -> None:
    ended: list[str] = []

    class Blobs:
        async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
            try:
                yield b"first"
                yield b"second"
            finally:
                ended.append("stream")

    with sync.open_store("memory://") as store:
        facade = sync.Blobs(library.Blobs(Blobs(), store.inner.life), store.loop)  # type: ignore[arg-type]
        for _ in facade.read(Digest.of(b"")):
            break
        gc.collect()
        assert ended == ["stream"]
        closed = facade.read(Digest.of(b""))
        next(closed)
        closed.close()
        assert ended == ["stream"] * 2


def test_an_iterator_that_the_other_thread_throws_away_ends_its_stream_too() -> None:
    with sync.open_store("memory://") as store:
        kept = [store.blobs.read(store.blobs.put([bytes(range(256)) * 20_000]))]
        next(kept[0])

        async def throw_away() -> None:
            kept.clear()

        store.loop.run(throw_away())
        assert store.blobs.put(b"goes on") == Digest.of(b"goes on")


@pytest.mark.parametrize("busy", ["waiting", "walking"])
def test_an_interrupt_ends_the_work_and_comes_through(busy: str) -> None:
    ended: list[str] = []

    class Blobs:
        async def put(self, data: AsyncIterator[bytes]) -> Digest:
            try:
                async for _ in data:
                    pass
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)
                ended.append("in order")
                raise
            raise AssertionError

    def pieces() -> Iterator[bytes]:
        while busy == "walking":
            time.sleep(0.01)
            yield b"piece"

    with sync.open_store("memory://") as store:
        facade = sync.Blobs(library.Blobs(Blobs(), store.inner.life), store.loop)  # type: ignore[arg-type]
        interrupt = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            facade.put(pieces())
        interrupt.join()
        assert ended == ["in order"]
        assert store.blobs.put(b"goes on") == Digest.of(b"goes on")


def test_a_callback_that_uses_the_store_is_told_so(tree: Path) -> None:
    with sync.open_store("memory://") as store:

        def progress(files: int, size: int) -> None:
            store.blobs.put(b"x")

        with pytest.raises(RuntimeError, match="in one of its own callbacks"):
            sync.import_tree(store, tree, progress=progress)


def test_a_store_that_is_thrown_away_open_warns() -> None:
    store = sync.open_store("memory://")
    loop = store.loop
    with pytest.warns(ResourceWarning, match="unclosed store memory://: open it in a `with` block"):
        del store
    loop.leave()


def test_a_callback_cannot_close_the_store(tree: Path) -> None:
    with sync.open_store("memory://") as store:
        with pytest.raises(RuntimeError, match="in one of its own callbacks"):
            sync.import_tree(store, tree, progress=lambda files, size: store.close())
        assert store.blobs.put(b"goes on") == Digest.of(b"goes on")


def test_several_threads_may_close_it() -> None:
    with sync.open_store("memory://") as other:
        store = sync.open_store("memory://")
        threads = [threading.Thread(target=store.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert other.blobs.put(b"goes on") == Digest.of(b"goes on")


def test_a_call_that_comes_while_the_loop_ends_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.sync.loop_thread._LOOK", 0.01)
    with sync.open_store("memory://") as store, monkeypatch.context() as lost:
        lost.setattr(store.loop._loop, "call_soon_threadsafe", lambda *_: None)
        lost.setattr(store.loop._thread, "is_alive", lambda: False)
        with pytest.raises(ClosedError, match="is closed"):
            store.path_infos.get(bytes(20))


def test_a_fork_does_not_wait_for_a_thread_that_it_lacks() -> None:
    with sync.open_store("memory://") as store:
        with catch_warnings():
            simplefilter("ignore", DeprecationWarning)  # that the process has threads is the point
            pid = os.fork()
        if not pid:
            try:
                store.blobs.put(b"x")
            except ClosedError:
                with sync.open_store("memory://") as own:
                    os._exit(0 if own.blobs.put(b"x") == Digest.of(b"x") else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# No verb is forgotten: what the asynchronous library has, the synchronous one has too.

FACADES = {
    library.Blobs: sync.Blobs,
    library.Directories: sync.Directories,
    library.PathInfos: sync.PathInfos,
    services.NarService: Nars,
    services.Statistics: Counts,
}
NOT_OFFERED = {"with_services", "begin_nar", "remember_nar"}
"""Methods of `Store` for those who wrap services, which are asynchronous."""


def names(function: Callable[..., object]) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("kind", FACADES, ids=lambda kind: kind.__name__)
def test_a_service_has_the_same_methods(kind: type) -> None:
    facade = FACADES[kind]
    methods = {name: method for name, method in vars(kind).items() if inspect.isfunction(method) and not name.startswith("_")}
    for name, method in methods.items():
        assert hasattr(facade, name), f"{facade.__name__} lacks {name}"
        own = vars(facade)[name]
        assert inspect.isfunction(own) or own._method is method
        if inspect.isfunction(own):
            assert names(own) == names(method)
    assert {name for name in vars(facade) if not name.startswith("_")} == set(methods)


def test_a_store_has_the_same_methods() -> None:
    theirs = {name for kind in library.Store.__mro__ for name, value in vars(kind).items() if inspect.isfunction(value)}
    assert {name for name in theirs if not name.startswith("_")} - NOT_OFFERED - set(dir(sync.Store)) == set()
    with sync.open_store("memory://") as store:
        assert {"blobs", "directories", "path_infos", "nar", "statistics", "name", "store_dir", "read_only", "close"} <= set(
            dir(store)
        )


def test_every_function_of_the_library_has_its_like() -> None:
    functions = {name: value for name in tvix_store.__all__ if inspect.isfunction(value := getattr(tvix_store, name))}
    assert {"open_store", "copy_paths", "verified", "walk"} <= set(functions)
    for name, function in functions.items():
        assert hasattr(sync, name), f"tvix_store.sync lacks {name}"
        own = getattr(sync, name)
        assert list(inspect.signature(own, follow_wrapped=True).parameters) == names(function), name
        assert inspect.unwrap(own).__module__.startswith("tvix_store.sync") or inspect.unwrap(own) is function
    assert {name for name in sync.__all__ if name[0].islower()} == set(functions)
