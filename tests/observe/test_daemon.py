"""The daemon as a process: its lines, its access log, its probes, and metrics that are right to the request."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.program import TVIX_STORE
from tests.http.daemon import Daemon, nar_name
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.store_path import StorePath
from tvix_store.protocol.path_infos import encode_get_path_info
from tvix_store.testing import trees
from tvix_store.testing.content import file_nar, noise
from tvix_store.testing.trees import TreeFile

Start = Callable[..., Daemon]
GET = "/tvix.store.v1.PathInfoService/Get"


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as running:

        def start(*options: str | Path, name: str = "daemon") -> Daemon:
            daemon = Daemon(tmp_path / name, *options)
            running.callback(daemon.stop)
            daemon.start()
            return daemon

        yield start


def push(daemon: Daemon, name: str) -> StorePath:
    """Push a file as a store path."""
    data = noise(1000, name)
    nar = trees.nar(TreeFile(data))
    path = StorePath(noise(20, name), name)
    assert daemon.put(nar_name(nar), nar).status == 201
    narinfo = NarInfo(path, "nar/x", "none", file_nar(data)).format(daemon.store_dir)
    assert daemon.put(narinfo_name(path), narinfo, x_request_id=f"push-{name}").status == 201
    return path


def narinfo_name(path: StorePath) -> str:
    return f"/{nixbase32.encode(path.output_hash)}.narinfo"


def metrics(daemon: Daemon) -> dict[tuple[str, ...], float]:
    """Values by name and the values of the labels, in the order of the labels' names."""
    answer = daemon.get("/metrics")
    assert answer.status == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def lines(daemon: Daemon, holding: str, count: int = 1) -> list[str]:
    """The lines of the log that hold a text, when there are `count` of them. A line is written after its answer."""
    deadline = time.monotonic() + 10
    while True:
        found = [line for line in daemon.log.splitlines() if holding in line]
        if len(found) >= count or time.monotonic() > deadline:
            assert len(found) == count, daemon.log
            return found
        time.sleep(0.02)


def grpc_get(daemon: Daemon, path: StorePath) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{daemon.port}") as channel:
        call: Any = channel.unary_unary(GET)
        answer: bytes = call(encode_get_path_info(path.output_hash), timeout=20)
        return answer


def test_the_daemon_says_what_it_serves_and_what_it_waits_for(start_daemon: Start, tmp_path: Path) -> None:
    daemon = start_daemon("--substituters", "http://user:secret@localhost:1/cache?trusted-public-keys=k:" + "A" * 43 + "=")
    lines(daemon, "  metrics ")  # the last of them, which are said behind READY
    log = "\n".join(line for line in daemon.log.splitlines() if "ps shows" not in line)
    directory = daemon.program.directory
    assert re.fullmatch(
        rf"READY 127\.0\.0\.1:{daemon.port}\n"
        rf"tvix-store \S+ serves http://localhost:{daemon.port}\n"
        rf"  store      local://{directory}\S* \(new: [0-9.]+ \S+, [0-9.]+ \S+ free\)\n"
        r"  reads      everybody on this machine\n"
        r"  writes     everybody on this machine\n"
        r"  signs as   nobody: narinfos have the signatures that came with them\n"
        r"  upstreams  http://localhost:1/cache\n"
        rf"  metrics    http://localhost:{daemon.port}/metrics",
        log.strip(),
    ), log
    assert "secret" not in daemon.log
    daemon.stop()
    assert daemon.log.endswith("ending; no call is running\n")


def test_a_quiet_daemon_says_only_that_it_is_ready(start_daemon: Start) -> None:
    daemon = start_daemon("--quiet")
    daemon.stop()
    assert daemon.log == f"READY 127.0.0.1:{daemon.port}\n"


def test_ctrl_c_tells_what_it_waits_for_and_a_second_one_ends_at_once(tmp_path: Path) -> None:
    command: list[str | Path] = [TVIX_STORE, "daemon", "-l", "127.0.0.1:0", "--workers", "2", "--store", tmp_path / "store"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.putrequest("PUT", nar_name(b"x" * 100_000))
        connection.putheader("Content-Length", "100000")
        connection.endheaders()
        connection.send(b"x")
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for _ in range(100):
            other.request("GET", "/metrics")
            if b"tvix_store_requests_in_flight 2.0" in other.getresponse().read():
                break
            time.sleep(0.05)
        other.close()
        process.send_signal(signal.SIGINT)
        said = ""
        while "ending" not in said:
            said = process.stderr.readline()
            assert said
        # The request for the metrics may be running yet.
        calls = "(1 running call is|2 running calls are)"
        assert re.fullmatch(rf"ending when {calls} done, in 30 s at most; Ctrl-C once more ends at once\n", said)
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert time.monotonic() - before < 10
        connection.close()


def nar_url(daemon: Daemon, path: StorePath) -> str:
    """The URL of a path's NAR, as its narinfo says."""
    narinfo = daemon.get(narinfo_name(path)).body.decode()
    return "/" + next(line.removeprefix("URL: ") for line in narinfo.splitlines() if line.startswith("URL: "))


def test_strangers_that_may_write_are_warned_of(start_daemon: Start, tmp_path: Path) -> None:
    daemon = start_daemon("-l", "0.0.0.0:0", "--allow-remote")
    assert len(lines(daemon, "WARNING: every stranger that reaches this daemon may write")) == 1
    assert len(lines(daemon, "  writes     everybody who reaches this daemon")) == 1


def test_the_access_log_tells_what_was_done(start_daemon: Start) -> None:
    upstream = start_daemon(name="upstream")
    path = push(upstream, "a")
    daemon = start_daemon("--access-log", "--substituters", f"{upstream.url}?require-signatures=false")
    own = push(daemon, "b")
    [pushed] = lines(daemon, "request_id=push-b")
    assert f"pushed={own}" in pushed
    nar = nar_url(daemon, path)
    answer = daemon.get(nar + "&token=secret", x_request_id="fetch-a", authorization="Bearer secret")
    assert answer.headers["x-request-id"] == "fetch-a"
    [fetched] = lines(daemon, "request_id=fetch-a")
    assert re.fullmatch(
        rf"tvix-store: ACCESS: client=127\.0\.0\.1 protocol=http method=GET path={nar.partition('?')[0]} status=200 bytes_in=0 "
        rf"bytes_out={len(answer.body)} seconds=[0-9.]+ request_id=fetch-a substituted={path} upstream={upstream.url}",
        fetched,
    ), fetched
    assert daemon.get("/x%0a%22y z".replace(" ", "%20")).status == 404
    assert len(lines(daemon, "path=/x%0A%22y%20z status=404")) == 1
    grpc_get(daemon, own)
    [called] = lines(daemon, f"protocol=grpc method=POST path={GET} status=OK")
    assert "bytes_in=27" in called
    assert "secret" not in daemon.log


def test_the_log_as_json(start_daemon: Start) -> None:
    daemon = start_daemon("--access-log", "--log-format", "json")
    push(daemon, "a")
    lines(daemon, '"request_id": "push-a"')
    daemon.stop()
    told = [json.loads(line) for line in daemon.log.splitlines() if not line.startswith("READY ")]
    assert {"time", "level", "logger", "message"} <= told[0].keys()
    assert told[0]["message"].startswith("tvix-store ")
    assert told[-1]["message"] == "ending; no call is running"
    [access] = [each for each in told if each.get("request_id") == "push-a"]
    assert access["logger"] == "tvix_store.access"
    assert (access["method"], access["status"], access["client"]) == ("PUT", "201", "127.0.0.1")
    assert access["pushed"].endswith("-a")


def test_a_log_level_hides_what_is_less(start_daemon: Start) -> None:
    daemon = start_daemon("--log-level", "error", "-l", "0.0.0.0:0", "--allow-remote")
    assert daemon.log.startswith("READY ")
    assert daemon.log.count("\n") == 1


def test_probes(start_daemon: Start) -> None:
    daemon = start_daemon()
    assert (daemon.get("/healthz").status, daemon.get("/healthz").body) == (200, b"alive\n")
    assert (daemon.get("/readyz").status, daemon.get("/readyz").body) == (200, b"ready\n")
    [settings] = daemon.program.directory.rglob("settings.json")
    settings.rename(settings.with_name("away"))
    time.sleep(1.1)  # what was learned of the store's health is repeated for a second
    assert (daemon.get("/healthz").status, daemon.get("/readyz").status) == (200, 503)
    settings.with_name("away").rename(settings)


def test_metrics_of_four_workers_are_right_to_the_request(start_daemon: Start) -> None:
    """Also after workers were killed, whose successors go on with their counts."""
    daemon = start_daemon("--workers", "4")
    paths = [push(daemon, f"path-{number}") for number in range(4)]
    absent = "/" + "0" * 32 + ".narinfo"
    sizes = [len(daemon.narinfo(str(path))) for path in paths]
    size_of_absent = len(daemon.get(absent).body)
    at_first = metrics(daemon)
    clients, each = 8, 40

    def ask(_: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
        with grpc.insecure_channel(f"127.0.0.1:{daemon.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            call: Any = channel.unary_unary(GET)
            for number in range(each):
                connection.request("GET", narinfo_name(paths[number % 4]))
                assert connection.getresponse().read()
                connection.request("GET", absent)
                assert connection.getresponse().read()
                call(encode_get_path_info(paths[number % 4].output_hash), timeout=60)
                with pytest.raises(grpc.RpcError):
                    call(encode_get_path_info(bytes(20)), timeout=60)
        connection.close()

    narinfos, calls = ("GET", "http", "narinfo"), ("POST", "grpc", GET[1:])
    for done in (1, 2, 3):
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(ask, range(clients)))
        told = metrics(daemon)
        asked = clients * each * done

        def more(*name: str, told: dict[tuple[str, ...], float] = told) -> float:
            return told[name] - at_first.get(name, 0.0)

        assert more("tvix_store_requests_total", *narinfos, "200") == asked
        assert more("tvix_store_requests_total", *narinfos, "404") == asked
        assert more("tvix_store_requests_total", *calls, "OK") == asked
        assert more("tvix_store_requests_total", *calls, "NOT_FOUND") == asked
        assert more("tvix_store_request_duration_seconds_count", "http", "narinfo") == 2 * asked
        assert more("tvix_store_request_duration_seconds_bucket", "+Inf", "grpc", GET[1:]) == 2 * asked
        assert more("tvix_store_response_bytes_total", "http", "narinfo") == asked // 4 * sum(sizes) + asked * size_of_absent
        assert more("tvix_store_request_bytes_total", "grpc", GET[1:]) == 2 * asked * (5 + len(encode_get_path_info(bytes(20))))
        assert told["tvix_store_requests_total", "PUT", "http", "narinfo", "201"] == 4
        assert told["tvix_store_paths_pushed_total", "http"] == 4
        assert told["tvix_store_requests_in_flight",] == 1, "this one"
        assert told["tvix_store_worker_starts_total",] == 3 + done
        assert told["tvix_store_workers",] == 4
        kill_worker(daemon)


def kill_worker(daemon: Daemon) -> None:
    """Kill a worker that answers nobody, and wait for the one that takes its place."""
    before = daemon.workers
    starts = metrics(daemon)["tvix_store_worker_starts_total",]
    os.kill(before[-1], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while True:
        with suppress(OSError, http.client.HTTPException):  # the dead worker may have taken the connection
            if metrics(daemon)["tvix_store_worker_starts_total",] > starts:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)
