"""The server as a process: how it starts, serves with several workers, and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.programs import ROOT
from tvix_store.errors import InvalidError
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import decode_digest, encode_chunk
from tvix_store.protocol.dialects import TVIX
from tvix_store.rpc.asgi import RpcApp, not_found
from tvix_store.rpc.health import Serving
from tvix_store.server.listeners import listening
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig, TlsFiles

PROGRAM = [sys.executable, "-m", "tests.server.program"]


class Server:
    """A running server process, and what it said when it was ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.process = process
        line = process.stderr.readline()
        assert line.startswith("READY "), line + process.stderr.read()
        self.addresses = line.split()[1:]

    @property
    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def ends(self, within: float = 10) -> int:
        return self.process.wait(within)


Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers, and sees to it that they end."""
    with ExitStack() as running:

        def start_one(*arguments: str, command: list[str] = PROGRAM, **options: Any) -> Server:
            process = subprocess.Popen([*command, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)
            running.enter_context(process)
            running.callback(process.kill)
            return Server(process)

        yield start_one


def healthy(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        answer: bytes = check(b"", timeout=5, wait_for_ready=True)
        return answer == bytes([8, Serving.SERVING])


def watching(channel: Any) -> Any:
    return channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")


@asynccontextmanager
async def half_a_put(server: Server) -> AsyncIterator[Any]:
    """A call that has begun, and succeeds when the body has ended, which gets a watch of the health of who serves it."""
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        call: Any = channel.stream_unary(TVIX.blob("Put"))()
        await call.write(encode_chunk(b"first, "))
        watch = watching(channel)
        assert (await watch.read())[1] == Serving.SERVING
        yield watch
        await call.write(encode_chunk(b"second"))
        await call.done_writing()
        assert decode_digest(await call) == Digest.of(b"first, second")


def test_it_says_where_it_listens_once_it_serves(start: Start) -> None:
    server = start("127.0.0.1:0", "--workers", "2")
    (address,) = server.addresses
    assert len(server.workers) == 2
    assert healthy(address)


def test_it_listens_on_several_addresses_at_once(start: Start, tmp_path: Path) -> None:
    server = start("localhost:0", f"unix:{tmp_path}/socket")
    assert server.addresses[-1] == f"unix:{tmp_path}/socket"
    assert all(healthy(address) for address in server.addresses)


def test_it_takes_over_the_sockets_of_systemd(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        systemd = f"import os, sys; os.dup2({fd}, 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        command = [sys.executable, "-c", f"{systemd} os.execv(sys.executable, sys.argv[1:])", *PROGRAM]
        server = start("sd-listen", command=command, pass_fds=[fd])
        assert server.addresses == [f"127.0.0.1:{listener.getsockname()[1]}"]
        assert healthy(server.addresses[0])


def test_it_tells_systemd_when_it_is_ready_and_when_it_ends(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(10)
        server = start("127.0.0.1:0", "--workers", "2", env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert notified.recv(100) == b"READY=1"
        server.process.terminate()
        assert notified.recv(100) == b"STOPPING=1"
        server.ends()
        notified.setblocking(False)
        with pytest.raises(BlockingIOError):
            notified.recv(100)


def test_one_worker_opens_the_store_before_the_others_and_what_it_logs_is_told_to_systemd(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(10)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        server = start("127.0.0.1:0", "--workers", "3", "--opening", str(tmp_path / "opening"), env=environment)
        told = [notified.recv(1000)]
        while told[-1].startswith(b"STATUS="):
            told.append(notified.recv(1000))
        assert told[0] == b"STATUS=opening it\nEXTEND_TIMEOUT_USEC=60000000"
        assert told[-1] == b"READY=1\nSTATUS="
    lines = [line.split() for line in (tmp_path / "opening").read_text().splitlines()]
    assert lines[0][0] == lines[1][0]
    assert sorted({int(pid) for pid, _ in lines}) == sorted(server.workers)


def test_the_watchdog_is_fed_as_long_as_each_worker_lives(start: Start, tmp_path: Path) -> None:
    """The supervisor alone does not feed it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(10)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        server = start("127.0.0.1:0", "--workers", "2", env=environment)
        while notified.recv(100) != b"READY=1":
            pass
        assert [notified.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        hung = server.workers[0]
        os.kill(hung, signal.SIGSTOP)
        forget(notified)
        assert falls_silent(notified)
        os.kill(hung, signal.SIGCONT)
        notified.settimeout(10)
        assert notified.recv(100) == b"WATCHDOG=1"
        os.kill(hung, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while hung in server.workers or len(server.workers) < 2:
            assert time.monotonic() < deadline, "the worker is not replaced"
            time.sleep(0.02)
        forget(notified)
        assert notified.recv(100) == b"WATCHDOG=1"


def test_the_watchdog_is_fed_while_a_worker_that_replaces_another_opens_its_store(start: Start, tmp_path: Path) -> None:
    held = tmp_path / "held"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(10)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        server = start("127.0.0.1:0", "--held-by", str(held), env=environment)
        held.touch()
        dead = server.workers
        os.kill(dead[0], signal.SIGKILL)
        deadline = time.monotonic() + 10
        while server.workers in ([], dead):
            assert time.monotonic() < deadline, "the worker is not replaced"
            time.sleep(0.02)
        forget(notified)
        assert [notified.recv(100) for _ in range(8)] == [b"WATCHDOG=1"] * 8
        opening = server.workers[0]
        os.kill(opening, signal.SIGSTOP)
        forget(notified)
        assert falls_silent(notified)
        os.kill(opening, signal.SIGCONT)
        held.unlink()


def falls_silent(messages: socket.socket) -> bool:
    """Whether nothing comes for a second, behind two messages at most that were on their way."""
    messages.settimeout(1)
    for _ in range(3):
        try:
            messages.recv(100)
        except TimeoutError:
            return True
    return False


def forget(messages: socket.socket) -> None:
    """Read what has come."""
    messages.setblocking(False)
    with suppress(BlockingIOError):
        while messages.recv(100):
            pass
    messages.settimeout(10)


def test_a_watchdog_for_another_process_is_not_fed(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(10)
        watchdog = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(os.getpid())}
        start("127.0.0.1:0", env={**os.environ, **watchdog})
        assert notified.recv(100) == b"READY=1"
        notified.settimeout(0.3)
        with pytest.raises(TimeoutError):
            notified.recv(100)


def test_it_ends_with_its_terminal(start: Start) -> None:
    terminal, end = os.openpty()
    takes_it = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    command = [sys.executable, "-c", f"{takes_it} os.execv(sys.executable, sys.argv[1:])", *PROGRAM]
    server = start("127.0.0.1:0", command=command, stdin=end)
    os.close(end)
    server.process.send_signal(signal.SIGHUP)  # from elsewhere, it only asks to reload
    time.sleep(0.3)
    assert healthy(server.addresses[0])
    os.close(terminal)
    assert server.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_asked_to_and_leaves_nothing_behind(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    server = start(str(tmp_path / "socket"), "--workers", "2")
    workers = server.workers
    server.process.send_signal(number)
    assert server.ends() == 0
    assert not (tmp_path / "socket").exists()
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_that_is_running_is_finished_first(start: Start, number: signal.Signals) -> None:
    server = start("127.0.0.1:0")
    async with half_a_put(server) as watch:
        server.process.send_signal(number)
        assert (await watch.read())[1] == Serving.NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        assert server.process.poll() is None
    assert server.ends() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_while_running_calls_are_finished_connections_are_refused(start: Start, tmp_path: Path, workers: str) -> None:
    server = start("127.0.0.1:0", f"{tmp_path}/socket", "--workers", workers)
    host, _, port = server.addresses[0].rpartition(":")
    async with half_a_put(server) as watch:
        server.process.send_signal(signal.SIGTERM)
        assert (await watch.read())[1] == Serving.NOT_SERVING
        await asyncio.sleep(0.5)
        for family, address in ((socket.AF_INET, (host, int(port))), (socket.AF_UNIX, f"{tmp_path}/socket")):
            with socket.socket(family) as late, pytest.raises(ConnectionRefusedError):
                late.connect(address)
        with listening([server.addresses[0]]) as [successor]:  # can begin meanwhile
            assert successor.getsockname() == (host, int(port))
        began = cpu_seconds(server)
        await asyncio.sleep(0.5)
        assert cpu_seconds(server) - began < 0.2  # nobody tries to accept over and over
    assert server.ends() == 0


def cpu_seconds(server: Server) -> float:
    """What its workers have used."""
    ticks = [Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[11:13] for worker in server.workers]
    return sum(int(each) for pair in ticks for each in pair) / os.sysconf("SC_CLK_TCK")


async def test_a_call_that_is_running_is_finished_where_the_supervisor_is_killed(start: Start) -> None:
    server = start("127.0.0.1:0")
    async with half_a_put(server) as watch:
        server.process.kill()
        assert (await watch.read())[1] == Serving.NOT_SERVING
        await asyncio.sleep(0.5)


async def test_a_call_that_takes_too_long_is_cancelled(start: Start) -> None:
    server = start("127.0.0.1:0", "--grace", "0.2")
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        call: Any = channel.stream_unary(TVIX.blob("Put"))()
        await call.write(encode_chunk(b"never ends"))
        server.process.terminate()
        assert await asyncio.to_thread(server.ends) == 0
        assert await call.code() != grpc.StatusCode.OK


async def test_asking_twice_ends_it_at_once(start: Start) -> None:
    server = start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        call: Any = channel.stream_unary(TVIX.blob("Put"))()
        await call.write(encode_chunk(b"never ends"))
        watch = watching(channel)
        await watch.read()
        server.process.terminate()
        assert (await watch.read())[1] == Serving.NOT_SERVING
        server.process.terminate()
        await asyncio.to_thread(server.ends, 3)


def test_a_worker_that_dies_is_replaced(start: Start) -> None:
    server = start("127.0.0.1:0")
    (worker,) = server.workers
    os.kill(worker, signal.SIGKILL)
    assert healthy(server.addresses[0])
    assert server.workers != [worker]


def test_workers_end_when_the_supervisor_is_killed(start: Start) -> None:
    server = start("127.0.0.1:0", "--workers", "2")
    workers = server.workers
    server.process.kill()
    deadline = time.monotonic() + 5
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers run on"
        time.sleep(0.01)


def test_a_store_that_does_not_open_ends_it_with_its_reason() -> None:
    run = subprocess.run([*PROGRAM, "--broken", "127.0.0.1:0"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode == 1
    assert run.stderr.endswith("UnavailableError: the disk is away\n")


async def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    config = ServerConfig(("127.0.0.1:0",), tls=TlsFiles(tmp_path / "cert.pem", tmp_path / "cert.pem"))
    with listening(config.listen) as sockets, pytest.raises(InvalidError, match="cannot serve"):
        async with serving(RpcApp({}, not_found), sockets, config):
            pass


@pytest.mark.parametrize("bad", [{"listen": ()}, {"workers": 0}, {"grace": -1.0}])
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        ServerConfig(**bad)


def _runs(pid: int) -> bool:
    """Whether a process is there, and not only its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
