"""Servers that fail: what is tried again, and what the caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backends.grpc_servers import ANYTHING, Proxy, serve, store_methods
from tests.tcp_server import port, tcp_server
from tvix_store import errors
from tvix_store.backends.grpc import open_store
from tvix_store.backends.grpc.connection import Connection
from tvix_store.errors import (
    CorruptError,
    ExhaustedError,
    IncompleteError,
    NotFoundError,
    StoreError,
    UnavailableError,
    UnsupportedError,
)
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.protocol.blobs import encode_chunk
from tvix_store.protocol.dialects import BULK_SERVICE, TVIX
from tvix_store.rpc.method import Answer, Call, Method, ServerStreaming, Streaming, Unary, single
from tvix_store.rpc.status import RpcError, Status
from tvix_store.services.blobs import get_all
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, diamond, file_nar, missing, noise, pieces, stream

pytestmark = pytest.mark.usefixtures("protocol")

MIB = 1 << 20
TRIES = 6
THERE = FileNode(Digest.of(b"there"), 5)
PATH_INFO = PathInfo(StorePath(noise(20), "there"), THERE, file_nar(b"there"))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.backends.grpc.connection._PAUSES", (0.01,) * (TRIES - 1))


class Failing:
    """Methods that end as `status` the first times that they are called, after `messages` messages of their input."""

    def __init__(self, status: Status, times: int, messages: int = 0, *, words: bool = True) -> None:
        self.calls = 0
        self._words = words
        self._status = status
        self._times = times
        self._messages = messages

    def instead_of(self, method: Method) -> Method:
        async def handle(messages: AsyncIterator[Any], call: Call) -> AsyncGenerator[Answer, None]:
            self.calls += 1
            if self.calls <= self._times:
                for _ in range(self._messages):
                    await anext(messages)
                raise RpcError(self._status, f"for test number {self.calls}" if self._words else "")
            if isinstance(method, Unary):
                yield await method.handle(await single(messages), call)
            else:
                given = await single(messages) if isinstance(method, ServerStreaming) else messages
                async for answer in method.handle(given, call):
                    yield answer

        return Streaming(handle, method.takes, one_answer=isinstance(method, Unary) or getattr(method, "one_answer", False))


CALLS: dict[str, tuple[str, Callable[[Store], Awaitable[object]]]] = {
    "stat": (TVIX.blob("Stat"), lambda store: store.blobs.stat(missing())),
    "read": (TVIX.blob("Read"), lambda store: collect(store.blobs.read(Digest.of(b"there")))),
    "put small": (TVIX.blob("Put"), lambda store: store.blobs.put(stream([b"small"]))),
    "put large": (TVIX.blob("Put"), lambda store: store.blobs.put(pieces(noise(MIB), 100_000))),
    "put many": (f"/{BULK_SERVICE}/PutMany", lambda store: store.blobs.put_many([noise(200_000, str(n)) for n in range(4)])),
    "get many": (f"/{BULK_SERVICE}/GetMany", lambda store: store.blobs.get_many([Digest.of(b"there")])),
    "missing": (f"/{BULK_SERVICE}/Missing", lambda store: store.blobs.missing([missing()])),
    "get a directory": (TVIX.directory("Get"), lambda store: store.directories.get(missing())),
    "put a directory": (TVIX.directory("Put"), lambda store: store.directories.put(stream(diamond()[:1]))),
    "get a path info": (TVIX.path_info("Get"), lambda store: store.path_infos.get(bytes(20))),
    "put a path info": (TVIX.path_info("Put"), lambda store: store.path_infos.put(PATH_INFO)),
    "calculate": (TVIX.path_info("CalculateNAR"), lambda store: store.nar.calculate(PATH_INFO.node)),
}
every_call = pytest.mark.parametrize("name", list(CALLS))
CALLS["put very many"] = CALLS["put many"][0], lambda store: store.blobs.put_many([noise(200_000, str(n)) for n in range(30)])


async def attempt(name: str, failing: Failing) -> None:
    """Make the call `name`, which is `failing`."""
    path, call = CALLS[name]
    methods = await store_methods()
    async with serve(methods | {path: failing.instead_of(methods[path])}) as url, await open_store(url) as store:
        if not name.startswith(("put small", "put large", "put many", "put very")):
            await store.blobs.put_many([b"there"])
        await call(store)


@every_call
async def test_a_call_is_repeated_until_the_server_is_available(name: str) -> None:
    failing = Failing(Status.UNAVAILABLE, times=2)
    await attempt(name, failing)
    assert failing.calls == 3


@every_call
async def test_a_call_is_not_repeated_for_ever(name: str) -> None:
    failing = Failing(Status.UNAVAILABLE, times=100)
    with pytest.raises(UnavailableError, match=f"for test number {TRIES}"):
        await attempt(name, failing)
    assert failing.calls == TRIES


@every_call
@pytest.mark.parametrize("status", [Status.INTERNAL, Status.RESOURCE_EXHAUSTED, Status.UNIMPLEMENTED])
async def test_a_call_that_fails_otherwise_is_not_repeated(name: str, status: Status) -> None:
    failing = Failing(status, times=100)
    with pytest.raises(StoreError, match="for test number 1"):
        await attempt(name, failing)
    assert failing.calls == 1


async def test_a_put_is_repeated_as_far_as_its_input_is_kept() -> None:
    for size, calls in ((3 * MIB, 2), (6 * MIB, 1)):
        failing = Failing(Status.UNAVAILABLE, times=1, messages=size // MIB)
        methods = await store_methods()
        put = TVIX.blob("Put")
        async with serve(methods | {put: failing.instead_of(methods[put])}) as url, await open_store(url) as store:
            putting = store.blobs.put(pieces(noise(size), MIB))
            if calls > 1:
                assert await putting == Digest.of(noise(size))
            else:
                with pytest.raises(UnavailableError, match="for test number 1"):
                    await putting
        assert failing.calls == calls


async def test_a_batch_is_sent_again_whole(protocol: str) -> None:
    """Over Connect, it goes in calls of less than a MiB: here 6."""
    failing = Failing(Status.UNAVAILABLE, times=1, messages=3 if protocol == "grpc" else 1)
    await attempt("put very many", failing)
    assert failing.calls == (2 if protocol == "grpc" else 7)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status.INVALID_ARGUMENT, errors.InvalidError),
        (Status.FAILED_PRECONDITION, IncompleteError),
        (Status.RESOURCE_EXHAUSTED, ExhaustedError),
        (Status.DATA_LOSS, CorruptError),
        (Status.UNAVAILABLE, UnavailableError),
        (Status.DEADLINE_EXCEEDED, UnavailableError),
        (Status.PERMISSION_DENIED, errors.DeniedError),
        (Status.UNAUTHENTICATED, errors.UnauthenticatedError),
        (Status.UNIMPLEMENTED, UnsupportedError),
        (Status.INTERNAL, errors.RemoteError),
        (Status.UNKNOWN, errors.RemoteError),
        (Status.CANCELLED, errors.RemoteError),
    ],
)
async def test_a_status_is_an_error_of_the_store(status: Status, error: type[StoreError]) -> None:
    for name in ("stat", "read", "put large", "put a path info"):
        with pytest.raises(error, match="for test number") as caught:
            await attempt(name, Failing(status, times=100))
        assert type(caught.value) is error


@pytest.mark.parametrize("status", [status for status in Status if status not in {Status.OK, Status.NOT_FOUND}])
async def test_a_server_that_says_nothing_is_quoted_by_status_and_call(status: Status) -> None:
    for name in ("stat", "read", "put large", "put a path info"):
        with pytest.raises(StoreError, match=f"the server ended {CALLS[name][0]} with {status.name}, and no message"):
            await attempt(name, Failing(status, times=100, words=False))


async def test_a_servers_failure_is_told_on_as_that_servers() -> None:
    """Also by a daemon in between."""
    put = TVIX.blob("Put")
    behind = await store_methods()
    failing = Failing(Status.INTERNAL, times=100)
    async with (
        serve(behind | {put: failing.instead_of(behind[put])}) as url,
        await open_store(url) as front,
        serve(await store_methods(store=front)) as front_url,
        await open_store(front_url) as store,
    ):
        with pytest.raises(errors.RemoteError) as caught:
            await store.blobs.put(pieces(noise(MIB), 100_000))
    assert str(caught.value) == f"{front_url}: INTERNAL: {url}: INTERNAL: for test number 1"


async def test_what_is_not_found_is_named() -> None:
    async with serve(await store_methods()) as url, await open_store(url) as store:
        for asked, call in (
            (missing("blob"), collect(store.blobs.read(missing("blob")))),
            (missing("batch"), get_all(store.blobs, [missing("batch")])),
            (missing("content"), store.nar.calculate(FileNode(missing("content"), 3))),
        ):
            with pytest.raises(NotFoundError) as caught:
                await call
            assert (caught.value.kind, caught.value.key) == ("blob", asked)
        with pytest.raises(NotFoundError) as caught:
            [_ async for _ in store.directories.get_recursive(missing("directory"))]
        assert (caught.value.kind, caught.value.key) == ("directory", missing("directory"))


async def test_what_a_foreign_server_does_not_find_is_named_too() -> None:
    with pytest.raises(NotFoundError) as caught:
        await attempt("read", Failing(Status.NOT_FOUND, times=1))
    assert (caught.value.kind, caught.value.key) == ("blob", Digest.of(b"there"))


async def test_a_recursive_get_that_is_answered_with_nothing_has_found_nothing() -> None:
    async def nothing(_messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        return
        yield

    methods = await store_methods() | {TVIX.directory("Get"): Streaming(nothing)}
    async with serve(methods) as url, await open_store(url) as store:
        assert await store.directories.get(missing()) is None
        with pytest.raises(NotFoundError):
            [_ async for _ in store.directories.get_recursive(missing())]


async def test_a_path_info_of_missing_content_is_incomplete_not_in_conflict() -> None:
    async with serve(await store_methods()) as url, await open_store(url) as store:
        with pytest.raises(IncompleteError, match=str(THERE.digest)):
            await store.path_infos.put(PATH_INFO)


async def test_the_status_of_a_server_that_ends_a_put_early_is_told() -> None:
    failing = Failing(Status.RESOURCE_EXHAUSTED, times=1000, messages=5)
    methods = await store_methods()
    put = TVIX.blob("Put")
    async with serve(methods | {put: failing.instead_of(methods[put])}) as url, await open_store(url) as store:
        for _ in range(40):  # it was wrong in 1 of 10
            with pytest.raises(ExhaustedError, match="for test number"):
                await store.blobs.put(stream([noise(MIB)] * 100))


async def test_a_server_killed_in_the_middle_of_a_read_is_unavailable() -> None:
    data = noise(40 * MIB)
    async with serve(await store_methods()) as url, Proxy.before(url) as proxy, await open_store(proxy.url) as store:
        digest = await store.blobs.put(pieces(data, MIB))
        reading = store.blobs.read(digest)
        assert data.startswith(await anext(reading))
        proxy.kill()
        with pytest.raises(UnavailableError, match=proxy.url.replace("+", r"\+")):
            await collect(reading)


async def test_a_server_killed_in_the_middle_of_a_put_is_unavailable() -> None:
    async with serve(await store_methods()) as url, Proxy.before(url) as proxy, await open_store(proxy.url) as store:

        async def data() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield noise(MIB)
            proxy.kill()
            while True:
                yield noise(MIB)
                await asyncio.sleep(0.001)

        with pytest.raises(UnavailableError):
            await store.blobs.put(data())


async def test_a_store_is_usable_again_when_its_server_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real pauses, which are long enough to start a server in
    methods = await store_methods()
    listen = f"{tmp_path}/sock"
    async with serve(methods, listen) as url:
        store = await open_store(url)
        [digest] = await store.blobs.put_many([b"stays"])
    reading = asyncio.create_task(store.blobs.get_many([digest]))
    await asyncio.sleep(0.3)
    assert not reading.done()
    async with serve(methods, listen), store:
        assert await reading == [b"stays"]


async def test_a_reader_that_is_slow_holds_the_server_back() -> None:
    sent = 0

    async def read(_messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        nonlocal sent
        while True:
            yield encode_chunk(bytes(MIB))
            sent += 1

    methods = await store_methods() | {TVIX.blob("Read"): Streaming(read)}
    async with serve(methods) as url, await open_store(url) as store:
        reading = store.blobs.read(missing())
        for _ in range(5):
            await anext(reading)
        await asyncio.sleep(0.5)
        assert sent < 64  # MiB on their way: the windows and buffers of both ends


async def test_a_server_that_is_slow_holds_the_writer_back() -> None:
    taken = 0

    async def put(messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        await anext(messages)
        await asyncio.Event().wait()
        yield b""

    async def data() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(MIB)

    methods = await store_methods() | {TVIX.blob("Put"): Streaming(put, ANYTHING)}
    async with serve(methods) as url, await open_store(url) as store:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await store.blobs.put(data())
        assert taken < 64


async def test_a_call_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_message: bytes, _call: Call) -> bytes:
        await asyncio.Event().wait()
        return b""

    methods = await store_methods() | {TVIX.path_info("CalculateNAR"): Unary(never)}
    monkeypatch.setattr("tvix_store.backends.grpc.path_infos.THOROUGH", 0.2)
    async with serve(methods) as url, await open_store(url) as store:
        with pytest.raises(UnavailableError):
            await store.nar.calculate(THERE)


async def test_a_failed_opening_leaves_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = Connection.close

    async def counting(connection: Connection) -> None:
        closed.append(connection)
        await close(connection)

    monkeypatch.setattr(Connection, "close", counting)
    async with serve({}) as url:
        with pytest.raises(UnsupportedError):
            await open_store(url)
    assert len(closed) == 1


async def test_a_server_that_hangs_up_on_tls_is_asked_whether_it_speaks_it() -> None:
    """A listener without TLS closes when it reads the greeting; the error of the socket has no words then."""

    async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with tcp_server(hang_up) as server:
        with pytest.raises(UnavailableError, match="the server closed the connection; does it speak TLS"):
            await open_store(f"grpc+https://127.0.0.1:{port(server)}")
