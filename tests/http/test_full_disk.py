"""A full disk: who pushes is told, what is there is served, and pushing goes on when there is room."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import IncompleteRead
from pathlib import Path

import pytest

from tests.cli.program import TVIX_STORE
from tests.http.daemon import Daemon, nar_name
from tests.http.nix import Nix
from tests.http.upstream import Upstream
from tests.small_disk import mounted
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import NarFacts
from tvix_store.model.store_path import StorePath
from tvix_store.testing import trees
from tvix_store.testing.content import file_nar, noise
from tvix_store.testing.trees import TreeFile

SIZE_MIB = 24


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Where the store of the daemon will be."""
    with mounted(tmp_path / "daemon/store", SIZE_MIB) as disk:
        yield disk


def push(daemon: Daemon, name: str, size: int) -> tuple[int, str]:
    """Push a file as a store path, NAR and narinfo; the first status that is not good, and its line."""
    data = noise(size, name)
    nar = trees.nar(TreeFile(data))
    answer = daemon.put(nar_name(nar), nar)
    if answer.status == 201:
        path = _path(name)
        facts: NarFacts = file_nar(data)
        narinfo = NarInfo(path, "nar/x", "none", facts).format(daemon.store_dir)
        answer = daemon.put(f"/{nixbase32.encode(path.output_hash)}.narinfo", narinfo)
    return answer.status, answer.line


def _path(name: str) -> StorePath:
    return StorePath(noise(20, f"path {name}"), name)


def content(daemon: Daemon, name: str) -> bytes:
    """The NAR that the daemon serves of a path."""
    told = daemon.get(f"/{nixbase32.encode(_path(name).output_hash)}.narinfo?compression=none")
    assert told.status == 200
    return daemon.get("/" + NarInfo.parse(told.body, daemon.store_dir).url).body


def test_a_push_to_a_full_disk_is_refused_and_goes_on_when_there_is_room(
    small_disk: Path, start_daemon: Callable[..., Daemon]
) -> None:
    daemon = start_daemon()
    (small_disk / "ballast").write_bytes(bytes(4 << 20))
    sizes: dict[str, int] = {}

    def push_until_full(size: int) -> str:
        for number in range(1000):
            name = f"path-{size}-{number}"
            status, line = push(daemon, name, size)
            if status != 201:
                assert status == 413
                return line
            sizes[name] = size
        raise AssertionError("the disk is never full")

    for size in (3_000_000, 100_000, 1000):
        line = push_until_full(size)
        assert "free some space" in line
        assert daemon.is_well()
    assert len(sizes) > 3
    for name, size in sizes.items():
        assert content(daemon, name) == trees.nar(TreeFile(noise(size, name)))
    assert sorted(daemon.paths()) == sorted(_path(name).absolute(daemon.store_dir) for name in sizes)
    (small_disk / "ballast").unlink()
    assert push(daemon, "room-again", 1_000_000)[0] == 201
    daemon.stop()
    daemon.start()
    sizes["room-again"] = 1_000_000
    for name, size in sizes.items():
        assert content(daemon, name) == trees.nar(TreeFile(noise(size, name)))


def test_nix_shows_the_line_and_ends(small_disk: Path, start_daemon: Callable[..., Daemon], nix: Nix) -> None:
    daemon = start_daemon()
    [path] = nix.build('sh "large" "head -c 30000000 /dev/urandom > $out"')
    done = nix.run("nix", "copy", "--to", f"{daemon.url}?compression=none", path, timeout=30)
    assert done.returncode != 0
    assert "413" in done.stderr
    assert "free some space" in done.stderr
    assert daemon.is_well()
    assert daemon.paths() == []


def test_who_sends_on_after_the_refusal_is_cut_off_and_holds_up_no_shutdown(
    small_disk: Path, start_daemon: Callable[..., Daemon]
) -> None:
    daemon = start_daemon()
    assert small_disk.exists()
    body = trees.nar(TreeFile(noise(SIZE_MIB << 20, "sent on") + bytes(64 << 20)))
    with daemon.connect() as connection:
        head = f"PUT {nar_name(body)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}\r\n\r\n"
        connection.sendall(head.encode() + body[: (SIZE_MIB + 8) << 20])
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
        begun = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < begun + 60:
                connection.send(bytes(1000))
                time.sleep(0.1)
        # It took 150 s and more.
        assert time.monotonic() < begun + 40
    with daemon.connect() as connection:
        connection.sendall(head.encode() + body[: (SIZE_MIB + 8) << 20])
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
        begun = time.monotonic()
        daemon.stop()
        assert time.monotonic() < begun + 18
    daemon.start()
    assert daemon.is_well()


def test_who_sends_much_more_and_reads_nothing_is_reset_and_holds_up_no_shutdown(
    small_disk: Path, start_daemon: Callable[..., Daemon]
) -> None:
    """With all buffers between full, a connection that is only shut down waits for ever."""
    daemon = start_daemon()
    data = noise(140 << 20, "random")
    length = (1 << 32).to_bytes(8, "little")
    with daemon.connect() as connection:
        connection.settimeout(20)
        connection.sendall(b"PUT /nar/%b.nar HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4294968000\r\n\r\n" % (b"0" * 52))
        head = trees.nar(TreeFile(b"x" * 8))
        connection.sendall(head[: head.index(b"x" * 8) - 8] + length)
        with pytest.raises(ConnectionError):
            connection.sendall(data)
        begun = time.monotonic()
        daemon.stop()
        assert time.monotonic() - begun < 20, "the time of grace is 30 s"


def test_a_short_rest_of_a_refused_body_leaves_the_connection_open(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        connection.sendall(b"PUT /nothing-here HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 404 ")
        connection.sendall(bytes(100_000) + b"GET /nix-cache-info HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_a_nar_of_an_upstream_that_finds_no_room_breaks_off_and_leaves_nothing(
    small_disk: Path, start_daemon: Callable[..., Daemon], make_upstream: Callable[..., Upstream]
) -> None:
    upstream = make_upstream()
    daemon = start_daemon("--store", small_disk, "--substituters", upstream.url)
    large, small = (trees.nar(TreeFile(noise(size << 20, "upstream"))) for size in (2 * SIZE_MIB, 1))
    paths = [upstream.publish(daemon.store_dir, name, nar) for name, nar in (("large", large), ("small", small))]
    urls = ["/" + NarInfo.parse(daemon.narinfo(str(path)), daemon.store_dir).url for path in paths]
    for _ in range(2):
        with pytest.raises((IncompleteRead, ConnectionError)):
            daemon.get(urls[0])
    assert daemon.get(urls[1]).body == small
    assert "the disk is full" in daemon.log or "No space left" in daemon.log
    listed = subprocess.run(
        [TVIX_STORE, "list", "--store", small_disk, "--store-dir", daemon.store_dir], capture_output=True, check=True
    ).stdout
    assert listed.decode().split() == [paths[1].absolute(daemon.store_dir)]
    assert daemon.is_well()
