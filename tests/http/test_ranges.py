"""Conditions and ranges: as RFC 9110 has them, and over a connection."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import programs
from tests.http.daemon import Daemon
from tvix_store.http.ranges import select
from tvix_store.http.request import Request
from tvix_store.http.status import HttpError
from tvix_store.testing.content import noise
from tvix_store.testing.trees import Tree, TreeFile, nar, write
from tvix_store.traffic import Budget

ETAG = b'"it"'
NONE: Mapping[str, bytes] = MappingProxyType({})
CONTENT = b"0123456789"


def request(method: str, fields: Mapping[str, bytes]) -> Request:
    pairs = [(name.encode(), value) for name, value in fields.items()]

    async def receive() -> dict[str, object]:
        raise AssertionError("there is no body to read")

    scope = {"method": method, "headers": pairs, "raw_path": b"/", "path": "/", "query_string": b"", "http_version": "1.1"}
    return Request(scope, receive, 1.0, Budget(1 << 20))


def answered(
    method: str = "GET", content: bytes = CONTENT, fields: Mapping[str, bytes] = MappingProxyType({})
) -> tuple[int, bytes]:
    """Status and bytes of what is answered; the header fields must agree."""
    size = b"%d" % len(content)
    try:
        status, start, stop, headers = select(request(method, fields), len(content), ETAG)
    except HttpError as error:
        return error.status, dict(error.headers).get(b"content-range", b"").removeprefix(b"bytes */" + size)
    body = content[start:stop]
    told = dict(headers)
    assert told.pop(b"etag") == ETAG
    assert told.pop(b"content-length") == (size if status == 304 else b"%d" % len(body))
    if status != 304:
        assert told.pop(b"accept-ranges") == b"bytes"
    if status == 206:
        assert told.pop(b"content-range") == b"bytes %d-%d/%b" % (start, stop - 1, size)
    assert not told
    return status, body


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (b"bytes=0-0", (206, b"0")),
        (b"bytes=3-5", (206, b"345")),
        (b"bytes=3-", (206, b"3456789")),
        (b"bytes=3-99999", (206, b"3456789")),
        (b"bytes=0-", (206, CONTENT)),
        (b"bytes=-3", (206, b"789")),
        (b"bytes=-99", (206, CONTENT)),
        (b"Bytes=9-9", (206, b"9")),
        (b"bytes= 1-2 ", (206, b"12")),
        (b"bytes=10-", (416, b"")),
        (b"bytes=10-12", (416, b"")),
        (b"bytes=-0", (416, b"")),
        (b"bytes=99999999999999999999-", (416, b"")),
        (b"bytes=%d-" % 10**30, (416, b"")),
        # What is no range, or several, or in another unit, is as if it were not there.
        (b"bytes=5-3", (200, CONTENT)),
        (b"bytes=-", (200, CONTENT)),
        (b"bytes=a-b", (200, CONTENT)),
        (b"bytes=1-2,4-5", (200, CONTENT)),
        (b"bytes=+1-2", (200, CONTENT)),
        (b"bytes=0x1-2", (200, CONTENT)),
        (b"bytes=1 - 2", (200, CONTENT)),
        ("bytes=\N{ARABIC-INDIC DIGIT ONE}-".encode(), (200, CONTENT)),
        (b"lines=1-2", (200, CONTENT)),
        (b"", (200, CONTENT)),
    ],
)
def test_a_range_is_answered_as_the_standard_says(wanted: bytes, expected: tuple[int, bytes]) -> None:
    assert answered(fields={"range": wanted}) == expected


@given(st.integers(0, 30), st.none() | st.integers(0, 40), st.none() | st.integers(0, 40))
def test_any_range_is_the_slice_that_it_says(size: int, first: int | None, last: int | None) -> None:
    content = noise(size)
    wanted = f"bytes={'' if first is None else first}-{'' if last is None else last}".encode()
    expected = 200, content
    if first is not None and (last is None or last >= first):
        expected = 206, content[first : size if last is None else last + 1]
    elif first is None and last is not None:
        expected = 206, content[size - min(last, size) :]
    if not expected[1] and expected[0] == 206:
        expected = 416, b""
    assert answered(content=content, fields={"range": wanted}) == expected


@given(st.binary(max_size=30))
def test_no_range_however_odd_breaks_anything(wanted: bytes) -> None:
    status, body = answered(fields={"range": wanted})
    assert status in (200, 206, 416)
    assert body in CONTENT


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if-none-match": ETAG}, 304),
        ({"if-none-match": b"W/" + ETAG}, 304),
        ({"if-none-match": b'"other", ' + ETAG}, 304),
        ({"if-none-match": b"*"}, 304),
        ({"if-none-match": b'"other"'}, 200),
        ({"if-none-match": ETAG, "range": b"bytes=1-2"}, 304),
        ({"if-none-match": b'"other"', "range": b"bytes=1-2"}, 206),
        ({"if-match": ETAG}, 200),
        ({"if-match": b"*", "range": b"bytes=1-2"}, 206),
        ({"if-match": b'"other", ' + ETAG, "if-none-match": ETAG}, 304),
        ({"if-match": b'"other"'}, 412),
        ({"if-match": b"W/" + ETAG}, 412),
        ({"if-match": b"", "if-none-match": ETAG}, 412),
        ({"if-range": ETAG, "range": b"bytes=1-2"}, 206),
        ({"if-range": b'"other"', "range": b"bytes=1-2"}, 200),
        ({"if-range": b'"other"', "range": b"bytes=99-"}, 200),
        ({"if-range": b"W/" + ETAG, "range": b"bytes=1-2"}, 200),
        ({"if-range": b"Wed, 21 Oct 2015 07:28:00 GMT", "range": b"bytes=1-2"}, 200),
    ],
)
def test_conditions(fields: Mapping[str, bytes], status: int) -> None:
    assert answered(fields=fields)[0] == status


def test_head_tells_of_the_whole() -> None:
    assert answered("HEAD", fields={"range": b"bytes=1-2"}) == (200, CONTENT)
    assert answered("HEAD", fields={"range": b"bytes=99-"}) == (200, CONTENT)


TREE: Tree = {
    b"large": TreeFile(noise(1 << 20)),
    b"many": {b"%03d" % n: TreeFile(noise(n * 7)) for n in range(200)},
    b"small": TreeFile(b"end"),
}


class Served(NamedTuple):
    """A NAR, where it is served uncompressed, and as a file."""

    nar: bytes
    url: str
    zstd_url: str


@pytest.fixture(scope="module")
def served(shared_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Served:
    tree = tmp_path_factory.mktemp("served") / "tree"
    write(TREE, tree)
    path = shared_daemon.program("import", tree)

    def url(compression: str) -> str:
        narinfo = shared_daemon.get(f"/{Path(path).name[:32]}.narinfo?compression={compression}").body.decode()
        return "/" + dict(line.split(": ", 1) for line in narinfo.splitlines())["URL"]

    return Served(nar(TREE), url("none"), url("zstd"))


def test_both_forms_of_a_nar_tell_how_large_they_are(shared_daemon: Daemon, served: Served) -> None:
    for url in (served.url, served.zstd_url):
        whole = shared_daemon.get(url)
        head = shared_daemon.head(url)
        assert whole.status == head.status == 200
        assert head.body == b""
        assert int(head.headers["content-length"]) == len(whole.body)
        assert head.headers["accept-ranges"] == "bytes"
        assert head.headers["etag"] == whole.headers["etag"]
        assert "immutable" in head.headers["cache-control"]
    assert shared_daemon.get(served.url).body == served.nar


@pytest.mark.parametrize("wanted", ["0-0", "100-", "-100", "500000-1500000", "1100000-1100010"])
def test_both_forms_of_a_nar_are_served_in_part(shared_daemon: Daemon, served: Served, wanted: str) -> None:
    first, last = wanted.split("-")
    for url in (served.url, served.zstd_url):
        whole = shared_daemon.get(url).body
        part = slice(int(first), int(last) + 1 if last else None) if first else slice(-int(last), None)
        answer = shared_daemon.get(url, Range=f"bytes={wanted}")
        assert answer.status == 206
        assert answer.body == whole[part]
        assert int(answer.headers["content-length"]) == len(answer.body)


def test_conditions_hold_over_a_connection(shared_daemon: Daemon, served: Served) -> None:
    for url in (served.url, served.zstd_url):
        etag = shared_daemon.head(url).headers["etag"]
        assert shared_daemon.get(url, If_None_Match=etag).status == 304
        assert shared_daemon.get(url, If_Range=etag, Range="bytes=5-9").status == 206
        assert shared_daemon.get(url, If_Range='"other"', Range="bytes=5-9").status == 200
        behind = shared_daemon.get(url, Range="bytes=99999999-")
        assert behind.status == 416
        assert behind.headers["content-range"].startswith("bytes */")


def test_answers_without_a_body_leave_the_connection_in_order(shared_daemon: Daemon, served: Served) -> None:
    asked = b"".join(
        b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (method, served.url.encode(), fields)
        for method, fields in (
            (b"HEAD", b""),
            (b"GET", b"If-None-Match: *\r\n"),
            (b"HEAD", b"Range: bytes=0-1\r\n"),
            (b"GET", b"Range: bytes=8-20\r\n"),
            (b"GET", b"Range: bytes=-8\r\nConnection: close\r\n"),
        )
    )
    with shared_daemon.connect() as connection:
        connection.sendall(asked)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    statuses = [line.split()[1] for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ") or b"HTTP/1.1 " in line]
    assert statuses == [b"200", b"304", b"200", b"206", b"206"]
    assert received.count(served.nar[8:21]) == 1
    assert received.endswith(served.nar[-8:])


def test_ranges_are_served_over_http2(shared_daemon: Daemon, served: Served) -> None:
    curl = [programs.require("curl"), "--silent", "--fail", "--http2-prior-knowledge"]
    for url in (served.url, served.zstd_url):
        whole = shared_daemon.get(url).body
        done = subprocess.run([*curl, "--range", "1000-50000", shared_daemon.url + url], capture_output=True, check=True)
        assert done.stdout == whole[1000:50001]
        head = subprocess.run([*curl, "--head", shared_daemon.url + url], capture_output=True, text=True, check=True)
        assert f"content-length: {len(whole)}" in head.stdout.lower()


def test_a_store_behind_grpc_serves_ranges_listings_and_files(
    daemon: Daemon, start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    front = start_daemon("--store", f"grpc+http://127.0.0.1:{daemon.port}", name="front")
    write(TREE, tmp_path / "tree")
    name = Path(daemon.program("import", "--store-dir", daemon.store_dir, tmp_path / "tree")).name
    narinfo = front.get(f"/{name[:32]}.narinfo").body.decode()
    url = "/" + dict(line.split(": ", 1) for line in narinfo.splitlines())["URL"]
    assert front.get(url, Range="bytes=1000000-1100000").body == nar(TREE)[1_000_000:1_100_001]
    assert front.get(f"/{name[:32]}.ls").body == daemon.get(f"/{name[:32]}.ls").body
    assert front.get(f"/serve/{name}/small").body == b"end"
    assert front.get(f"/serve/{name}/many/", Accept="text/html").body == daemon.get(f"/serve/{name}/many/").body


def test_a_nar_by_its_root_node_is_never_encoded_so_that_nix_can_resume_it(shared_daemon: Daemon, served: Served) -> None:
    plain = shared_daemon.head(served.url)
    # As Nix 2.34 asks.
    asking = {"Accept-Encoding": "deflate, gzip, br, zstd"}
    got = shared_daemon.request("GET", served.url, headers=asking)
    assert "content-encoding" not in got.headers
    assert got.headers["accept-ranges"] == "bytes"
    assert (got.headers["etag"], got.headers["content-length"]) == (plain.headers["etag"], plain.headers["content-length"])
    part = shared_daemon.request("GET", served.url, headers={**asking, "Range": "bytes=1000-"})
    assert (part.status, part.body) == (206, got.body[1000:])
