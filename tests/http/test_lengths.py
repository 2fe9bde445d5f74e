"""An answer without a body tells the length of the body that a GET has, or it would be taken for empty."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import programs
from tests.http.daemon import Daemon
from tests.http.test_bytes import say
from tvix_store.model import nixbase32
from tvix_store.testing.content import noise
from tvix_store.testing.trees import Tree, TreeFile, write

TREE: Tree = {b"directory": {b"%04d" % n: TreeFile(b"%d" % n) for n in range(3000)}, b"file": TreeFile(noise(300_000))}
BUILD_ID = "/debuginfo/" + "ab" * 20
LOG = f"/log/{'0' * 32}-lengths.drv"


@pytest.fixture(scope="module")
def urls(shared_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a daemon serves, by name."""
    directory = tmp_path_factory.mktemp("lengths")
    write(TREE, directory / "tree")
    path = shared_daemon.program("import", directory / "tree")
    name = Path(path).name
    assert shared_daemon.put(BUILD_ID, b'{"archive": "../nar/x", "member": "m"}').status == 201
    assert shared_daemon.put(LOG, b"built\n" * 1000).status == 201
    narinfo = dict(line.split(": ", 1) for line in shared_daemon.narinfo(path).decode().splitlines())
    nar_hash = narinfo["NarHash"].removeprefix("sha256:")
    assert len(nixbase32.decode(nar_hash)) == 32
    return {
        "narinfo": f"/{name[:32]}.narinfo",
        "listing": f"/{name[:32]}.ls",
        "index": f"/serve/{name}/directory/",
        "file": f"/serve/{name}/file",
        "NAR": f"/nar/{nar_hash}.nar",
        "zstd": f"/nar/{nar_hash}.nar.zst",
        "debug information": BUILD_ID,
        "log": LOG,
        "cache info": "/nix-cache-info",
    }


NAMES = ["narinfo", "listing", "index", "file", "NAR", "zstd", "debug information", "log", "cache info"]
CONDITIONAL = ["narinfo", "listing", "index", "file", "NAR", "zstd", "debug information", "log"]


@pytest.mark.parametrize("name", NAMES)
def test_head_tells_the_length_of_what_get_gives(shared_daemon: Daemon, urls: dict[str, str], name: str) -> None:
    length = len(shared_daemon.get(urls[name]).body)
    heard = heard_of(shared_daemon, "HEAD", urls[name])
    assert heard.startswith(b"HTTP/1.1 200 ")
    assert lengths(heard) == [length]
    assert heard.endswith(b"\r\n\r\n")
    assert lengths(curl(shared_daemon, "--head", urls[name])) == [length]


@pytest.mark.parametrize("name", CONDITIONAL)
def test_what_is_not_modified_has_the_length_that_it_had(shared_daemon: Daemon, urls: dict[str, str], name: str) -> None:
    got = shared_daemon.get(urls[name])
    condition = f"If-None-Match: {got.headers['etag']}"
    for method in ("GET", "HEAD"):
        heard = heard_of(shared_daemon, method, urls[name], condition)
        assert heard.startswith(b"HTTP/1.1 304 ")
        assert lengths(heard) == [len(got.body)]
        assert heard.endswith(b"\r\n\r\n")
    heard = curl(shared_daemon, "--header", condition, urls[name])
    assert heard.startswith(b"HTTP/2 304 ")
    assert lengths(heard) == [len(got.body)]
    assert heard.endswith(b"\r\n\r\n")


def heard_of(daemon: Daemon, method: str, url: str, *fields: str) -> bytes:
    """All that is answered, byte for byte, until the server closes the connection: some answers take a while on a busy machine."""
    lines = (f"{method} {url} HTTP/1.1", "Host: localhost", "Connection: close", *fields, "", "")
    heard = say(daemon, "\r\n".join(lines).encode(), until=30)
    assert heard.endswith(b" (closed)")
    return heard.removesuffix(b" (closed)")


def lengths(heard: bytes) -> list[int]:
    lines = heard.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]


def curl(daemon: Daemon, *options: str) -> bytes:
    """An answer over HTTP/2, with its header."""
    *options_before, path = options
    command = [programs.require("curl"), "--silent", "--show-error", "--include", "--http2-prior-knowledge"]
    return subprocess.run([*command, *options_before, daemon.url + path], stdout=subprocess.PIPE, check=True, timeout=30).stdout
