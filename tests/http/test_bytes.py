"""HTTP to the byte: what clients, proxies and attackers may send, and that the daemon is well afterwards."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests import programs
from tests.http.daemon import Daemon, nar_name
from tests.http.nix import Nix
from tvix_store.model import nixbase32
from tvix_store.model.nodes import encode_node
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

BODY_TIMEOUT = 1.0
NO_NARINFO = b"/" + b"0" * 32 + b".narinfo"
NO_NAR = b"/nar/" + b"0" * 52 + b".nar"
HOST = b"Host: localhost\r\n"
INFO = b"GET /nix-cache-info HTTP/1.1\r\n" + HOST + b"\r\n"
WELL = b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\nTvixStoreCalls: rpc/v1\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("bytes"), "--body-timeout", str(BODY_TIMEOUT))
    daemon.start()
    yield daemon
    assert daemon.paths() == []
    daemon.stop()


@pytest.fixture
def daemon(served: Daemon) -> Iterator[Daemon]:
    """One for all tests of this module, well after each."""
    yield served
    assert served.is_well()


def put(path: bytes, *fields: bytes) -> bytes:
    return b"PUT " + path + b" HTTP/1.1\r\n" + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def say(daemon: Daemon, *parts: bytes, until: float = 0.3, end: bool = False) -> bytes:
    """Everything that is answered to `parts`, which are sent one after the other, until the end or silence."""
    with daemon.connect() as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.02)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return listen(connection, until)


def listen(connection: socket.socket, until: float) -> bytes:
    """What comes, and ` (closed)` at the end where the other side closes the connection."""
    heard = b""
    connection.settimeout(until)
    try:
        while piece := connection.recv(1 << 16):
            heard += piece
    except TimeoutError:
        return heard
    return heard + b" (closed)"


def statuses(heard: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"(?:^|\n|\r)HTTP/1\.1 (\d{3}) ", heard)]


def test_a_connection_serves_one_request_after_the_other(daemon: Daemon) -> None:
    heard = say(daemon, INFO, INFO, b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n", INFO)
    assert statuses(heard) == [200, 200, 404, 200]
    assert not heard.endswith(b"(closed)")


def test_a_connection_is_closed_when_the_client_wants_that(daemon: Daemon) -> None:
    heard = say(daemon, INFO[:-2] + b"Connection: close\r\n\r\n")
    assert b"connection: close\r\n" in heard
    assert heard.endswith(WELL + b" (closed)")


def test_pipelined_requests_are_answered_in_order(daemon: Daemon) -> None:
    other = b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n"
    uploads = put(NO_NARINFO, b"Content-Length: 3") + b"abc" + put(NO_NARINFO, b"Transfer-Encoding: chunked") + b"0\r\n\r\n"
    assert statuses(say(daemon, (INFO + other + uploads) * 5)) == [200, 404, 400, 400] * 5


def test_a_request_in_single_bytes_is_a_request(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        for at in range(len(INFO)):
            connection.sendall(INFO[at : at + 1])
        assert listen(connection, 0.3).endswith(WELL)


def test_a_client_that_has_ended_its_side_is_answered(daemon: Daemon) -> None:
    assert say(daemon, INFO, end=True).endswith(WELL + b" (closed)")


@pytest.mark.parametrize("path", [b"/nix-cache-info", NO_NARINFO, NO_NAR, b"/nothing"])
def test_an_answer_to_head_has_no_body(daemon: Daemon, path: bytes) -> None:
    heard = say(daemon, b"HEAD " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n" + INFO)
    [first, second] = [part for part in heard.split(b"HTTP/1.1 ") if part]
    assert first.endswith(b"\r\n\r\n")
    assert second.endswith(WELL)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_body_that_nobody_asked_for_is_no_request(daemon: Daemon, method: bytes) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"
    request = method + b" /nix-cache-info HTTP/1.1\r\n" + HOST
    heard = say(daemon, request + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden + INFO)
    assert statuses(heard) == [200, 200]
    chunked = request + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
    assert statuses(say(daemon, chunked + INFO)) == [200, 200]


class TestExpect:
    """Nix announces every upload with `Expect: 100-continue`."""

    def test_the_body_is_asked_for_and_taken(self, daemon: Daemon) -> None:
        with daemon.connect() as connection:
            connection.sendall(put(NO_NARINFO, b"Content-Length: 4", b"Expect: 100-continue"))
            connection.settimeout(5)
            assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"abc\n")
            assert statuses(listen(connection, 0.3)) == [400]

    def test_a_body_that_came_at_once_is_taken(self, daemon: Daemon) -> None:
        heard = say(daemon, put(NO_NARINFO, b"Content-Length: 4", b"Expect: 100-continue") + b"abc\n" + INFO)
        assert statuses(heard)[-2:] == [400, 200]

    def test_a_refusal_comes_before_the_body_which_is_no_request(self, daemon: Daemon) -> None:
        hidden = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"
        head = put(b"/nowhere", b"Content-Length: %d" % len(hidden), b"Expect: 100-continue")
        with daemon.connect() as connection:
            connection.sendall(head)
            assert statuses(listen(connection, 0.3))[-1] == 404
            connection.sendall(hidden + INFO)
            assert statuses(listen(connection, 0.3)) == [200]


class TestBodies:
    """A body ends where it says, or nothing has come."""

    def test_chunks_of_any_size_are_one_body(self, daemon: Daemon) -> None:
        nar = trees.nar(TreeFile(noise(100_000, "chunks")))
        name = nar_name(nar)
        assert daemon.put(name, (nar[at : at + 777] for at in range(0, len(nar), 777))).status == 201
        assert daemon.head(name).status == 200

    @pytest.mark.parametrize("path", [NO_NAR, NO_NARINFO])
    def test_an_upload_without_length_or_chunks_has_an_empty_body(self, daemon: Daemon, path: bytes) -> None:
        assert statuses(say(daemon, put(path) + INFO)) == [400, 200]

    @pytest.mark.parametrize("chunked", [False, True])
    def test_what_is_cut_short_is_not_there(self, daemon: Daemon, chunked: bool) -> None:
        nar = trees.nar(TreeFile(noise(100_000, f"cut short {chunked}")))
        name = nar_name(nar).encode()
        for end in (0, 1, 50_000, len(nar) - 1, len(nar)):
            if chunked:
                # All bytes are there in the last round, but the last chunk, which says so, is not.
                upload = put(name, b"Transfer-Encoding: chunked") + b"%x\r\n" % len(nar) + nar[:end]
            else:
                upload = put(name, b"Content-Length: %d" % (len(nar) + 1)) + nar[:end]
            assert say(daemon, upload, end=True) == b" (closed)"
            assert daemon.head(name.decode()).status == 404

    def test_a_client_that_goes_away_leaves_nothing(self, daemon: Daemon) -> None:
        nar = trees.nar(TreeFile(noise(3_000_000, "gone")))
        for part in (1, 1_500_000, len(nar) - 1):
            with daemon.connect() as connection:
                connection.sendall(put(nar_name(nar).encode(), b"Content-Length: %d" % len(nar)) + nar[:part])
            assert daemon.head(nar_name(nar)).status == 404

    @pytest.mark.parametrize("field", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
    @pytest.mark.parametrize("path", [NO_NAR, NO_NARINFO])
    def test_a_body_that_stalls_is_answered_with_408_and_the_connection_is_closed(
        self, daemon: Daemon, path: bytes, field: bytes
    ) -> None:
        begun = time.monotonic()
        heard = say(daemon, put(path, field), b"3\r\nab", until=5)
        assert BODY_TIMEOUT <= time.monotonic() - begun < BODY_TIMEOUT + 3
        assert statuses(heard) == [408]
        assert b"connection: close\r\n" in heard
        assert heard.endswith(b"less than 256 bytes of the body came in 1 s\n (closed)")

    @pytest.mark.parametrize("path", [NO_NAR, NO_NARINFO])
    def test_a_body_that_trickles_is_answered_with_408_too(self, daemon: Daemon, path: bytes) -> None:
        heard = b""
        with daemon.connect() as connection, suppress(ConnectionError):
            connection.sendall(put(path, b"Content-Length: 1000"))
            connection.settimeout(BODY_TIMEOUT / 10)
            for _ in range(100):  # so many bytes are no progress
                connection.sendall(b"x")
                with suppress(TimeoutError):
                    if not (piece := connection.recv(1 << 16)):
                        break
                    heard += piece
        assert statuses(heard) == [408]

    def test_a_body_that_comes_slowly_is_taken(self, daemon: Daemon) -> None:
        nar = trees.nar(TreeFile(noise(900, "slow")))

        def slowly() -> Iterator[bytes]:
            for at in range(0, len(nar), 300):
                time.sleep(BODY_TIMEOUT / 4)
                yield nar[at : at + 300]

        # With a length: of chunks, the engine gathers 64 KiB before it hands them on.
        length = {"Content-Length": str(len(nar))}
        assert daemon.request("PUT", nar_name(nar), slowly(), length).status == 201

    def test_one_that_stalls_holds_up_nobody(self, daemon: Daemon) -> None:
        stalled = [daemon.connect() for _ in range(50)]
        for connection in stalled:
            connection.sendall(put(NO_NAR, b"Content-Length: 1000"))
        begun = time.monotonic()
        assert daemon.get("/nix-cache-info").status == 200
        assert time.monotonic() - begun < BODY_TIMEOUT
        for connection in stalled:
            assert statuses(listen(connection, 5)) == [408]
            connection.close()


CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        put(NO_NARINFO, b"Content-Length: 3", CHUNKED) + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED, b"Content-Length: 5") + LAST + SMUGGLED,
        put(NO_NARINFO, b"Content-Length: 3", b"Content-Length: 5") + b"abc" + SMUGGLED,
        put(NO_NARINFO, b"Content-Length: 0, 3") + SMUGGLED,
        put(NO_NARINFO, b"Content-Length: +3") + b"abc" + SMUGGLED,
        put(NO_NARINFO, b"Content-Length: -3") + SMUGGLED,
        put(NO_NARINFO, b"Content-Length: 0x3") + SMUGGLED,
        put(NO_NARINFO, b"Content-Length: 1e1") + SMUGGLED,
        put(NO_NARINFO, b"Content-Length:") + SMUGGLED,
        put(NO_NARINFO, b"Content-Length : 3") + SMUGGLED,
        put(NO_NARINFO, b"Content-Length: 18446744073709551617") + b"a" + SMUGGLED,
        put(NO_NARINFO, CHUNKED, CHUNKED) + LAST + SMUGGLED,
        put(NO_NARINFO, b"Transfer-Encoding: xchunked") + LAST + SMUGGLED,
        put(NO_NARINFO, b"Transfer-Encoding: chunked, identity") + LAST + SMUGGLED,
        put(NO_NARINFO, b"Transfer-Encoding: identity") + SMUGGLED,
        put(NO_NARINFO, b"Transfer-Encoding: gzip, chunked") + LAST + SMUGGLED,
        put(NO_NARINFO, b"Transfer-Encoding: \x0bchunked") + LAST + SMUGGLED,
        put(NO_NARINFO, b"Transfer-Encoding : chunked") + LAST + SMUGGLED,
        put(NO_NARINFO, b"X: y", b" Transfer-Encoding: chunked") + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"-1\r\nabc\r\n" + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"0x3\r\nabc\r\n" + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"+3\r\nabc\r\n" + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"three\r\nabc\r\n" + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"\r\nabc\r\n" + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"10000000000000003\r\nabc\r\n" + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"0" * 20_000 + b"3\r\nabc\r\n" + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"3;" + b"a" * 100_000 + b"\r\nabc\r\n" + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"3\r\nabcXX" + LAST + SMUGGLED,
        put(NO_NARINFO, CHUNKED) + b"3\nabc\n0\n\n" + SMUGGLED,
        put(NO_NARINFO, CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0") + LAST + SMUGGLED,
    ],
    ids=lambda request: repr(request[43:90]),
)
def test_a_request_whose_end_is_in_doubt_ends_the_connection(daemon: Daemon, request_: bytes) -> None:
    heard = say(daemon, request_, until=3)
    assert heard.endswith(b" (closed)")
    assert len(statuses(heard)) <= 1
    assert b"404" not in heard


def test_lengths_that_agree_are_one(daemon: Daemon) -> None:
    for fields in ([b"Content-Length: 3", b"Content-Length: 3"], [b"Content-Length: 3, 3"]):
        assert statuses(say(daemon, put(NO_NARINFO, *fields) + b"abc" + INFO)) == [400, 200]


def test_the_extension_of_a_chunk_is_skipped(daemon: Daemon) -> None:
    assert statuses(say(daemon, put(NO_NARINFO, CHUNKED) + b"3;name=value\r\nabc\r\n" + LAST + INFO)) == [400, 200]


@pytest.mark.parametrize(
    "request_",
    [
        INFO[:-2] + b"X: a\r\n b\r\n\r\n",
        INFO[:-2] + b" X: leading space\r\n\r\n",
        INFO[:-2] + b"no colon\r\n\r\n",
        INFO[:-2] + b": no name\r\n\r\n",
        INFO[:-2] + b"X\x01: control\r\n\r\n",
        INFO[:-2] + b"X: a\0b\r\n\r\n",
        INFO[:-2] + b"X: a\rb\r\n\r\n",
        INFO[:-2] + b"Host: another\r\n\r\n",
        INFO.replace(b"Host:", b"Host :"),
        INFO.replace(HOST, b""),
        INFO.replace(b"HTTP/1.1", b"HTTP/1.0"),  # a proxy must be told to speak 1.1
        INFO.replace(b"HTTP/1.1", b"HTTP/1.2"),
        INFO.replace(b"HTTP/1.1", b"HTTP/9.9"),
        INFO.replace(b"HTTP/1.1", b"http/1.1"),
        INFO.replace(b" HTTP/1.1", b""),
        INFO.replace(b" ", b"  "),
        INFO.replace(b"/nix", b"nix"),
        INFO.replace(b"/nix-cache-info", b""),
        INFO.replace(b"/nix-cache-info", b"*"),
        INFO.replace(b"/nix-cache-info", b"/nix-cache-info#fragment"),
        INFO.replace(b"/nix-cache-info", b"/\xff\xfe"),
        INFO.replace(b"/nix-cache-info", b"/\0"),
        INFO.replace(b"/nix-cache-info", b"/\x7f"),
        INFO.replace(b"/nix-cache-info", b"/%zz"),
        INFO.replace(b"/nix-cache-info", b"/" + b"a" * 20_000),
        INFO[:-2] + b"X: a\r\n" * 5000 + b"\r\n",
        INFO[:-2] + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        INFO[:-2] + b"X: " + b"a" * 3_000_000 + b"\r\n\r\n",
        b"CONNECT cache:80 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\r\n\r\n\r\n\r\n",
    ],
    ids=lambda request: repr(request[:70]),
)
def test_a_malformed_request_ends_the_connection(daemon: Daemon, request_: bytes) -> None:
    with daemon.connect() as connection:
        try:
            connection.sendall(request_)
            heard = listen(connection, 3)
        except ConnectionError:
            return
    assert heard.endswith(b" (closed)")
    assert statuses(heard) in ([], [400], [414], [431], [501])


@pytest.mark.parametrize(
    "garbage", [INFO.replace(b"\r\n", b"\n"), INFO.replace(b"\r\n", b"\r"), b"\x16\x03\x01\x02\x00" + bytes(60)]
)
def test_what_is_no_request_yet_is_not_answered(daemon: Daemon, garbage: bytes) -> None:
    assert say(daemon, garbage) == b""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../etc/passwd", 400),
        ("/nar/../nix-cache-info", 400),
        ("/./nix-cache-info", 400),
        ("/%2e%2e/nix-cache-info", 400),
        ("/%2E%2E/%2E%2E/etc/passwd", 400),
        ("/.%2e/nix-cache-info", 400),
        ("/nar%2fnix-cache-info", 400),
        ("/nar%2F..%2Fnix-cache-info", 400),
        ("/nix-cache-info%00", 400),
        ("/%00", 400),
        ("/%252e%252e/nix-cache-info", 404),
        ("/..%5c..%5cetc", 404),
        ("//nix-cache-info", 404),
        ("/nix-cache-info/", 404),
        ("/nix-cache-info%20", 404),
        ("/nix-cache-info%0d%0aX:%20y", 404),
        ("/NIX-CACHE-INFO", 404),
        ("/nar", 404),
        ("/nar/", 404),
        ("/nar//", 404),
        ("/.narinfo", 404),
        ("/" + "0" * 31 + ".narinfo", 404),
        ("/" + "0" * 33 + ".narinfo", 404),
        ("/" + "e" * 32 + ".narinfo", 404),
        ("/" + "0" * 31 + "%ff.narinfo", 404),
        ("/" + "0" * 32 + ".narinfo/..", 400),
        ("/" + "0" * 32 + ".narinfo%0a", 404),
        ("/" + "a" * 4000, 404),
        ("/" + "a" * 5000, 414),
        ("/" + "a/" * 2000, 404),
        ("/nix-cache-info?" + "a" * 10_000, 200),
        ("/nix-cache-info?/../..", 200),
        ("/nix%2dcache%2dinfo", 200),
        ("http://localhost/nix-cache-info", 200),
        ("http://localhost/../nix-cache-info", 400),
    ],
)
def test_tricks_with_paths_lead_nowhere(daemon: Daemon, path: str, status: int) -> None:
    for method in (b"GET", b"HEAD", b"PUT"):
        heard = say(
            daemon, method + b" " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        assert statuses(heard) == [status]
        if status != 200 and method != b"HEAD":
            assert heard.count(b"\n") == heard.count(b"\r\n") + 1  # of one line


@pytest.mark.parametrize(("fields", "status"), [(0, 200), (19, 200), (20, 400), (1000, 400)])
def test_a_query_of_very_many_fields_is_refused(daemon: Daemon, fields: int, status: int) -> None:
    tree = TreeFile(b"many fields")
    nar = trees.nar(tree)
    assert daemon.put(nar_name(nar), nar).status == 201
    node = urlsafe_b64encode(encode_node(b"", trees.castore(tree).root)).decode().rstrip("=")
    query = "&".join(f"a{n}=1" for n in range(fields))
    answer = daemon.get(f"/nar/snix-castore/{node}?narsize={len(nar)}&{query}")
    assert (answer.status, answer.body) == (status, nar if status == 200 else b"the query has more than 20 fields\n")
    answer = daemon.get(f"/nar/snix-castore/{node}?narsize={len(nar) + 1}")
    assert answer.status == 404


def test_a_query_means_nothing_where_none_is_known(daemon: Daemon) -> None:
    nar = trees.nar(TreeFile(b"many fields"))
    assert daemon.put(nar_name(nar), nar).status == 201
    answer = daemon.get(nar_name(nar) + "?" + "&".join(f"a{n}=1" for n in range(1000)))
    assert (answer.status, answer.body) == (200, nar)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "TRACE", "get", "PROPFIND"])
def test_other_methods_are_not_understood(daemon: Daemon, method: str) -> None:
    answer = daemon.request(method, "/nix-cache-info")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, PUT"


def test_an_upgrade_to_websocket_is_refused(daemon: Daemon) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    for more in (b"", b"Content-Type: application/grpc\r\n"):
        assert statuses(say(daemon, INFO[:-2] + upgrade + key + more + b"\r\n")) == [403]


def test_an_upgrade_to_what_nobody_knows_is_passed_over(daemon: Daemon) -> None:
    assert say(daemon, INFO[:-2] + b"Connection: Upgrade\r\nUpgrade: something\r\n\r\n").endswith(WELL)


SIZE = 50 << 20


class TestEarlyRefusal:
    """What is refused at once may be large: the client reads why, instead of a broken connection, and does not wait."""

    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize("path", [b"/nowhere", NO_NAR, NO_NARINFO])
    def test_the_answer_can_be_read_after_all_was_sent(self, daemon: Daemon, path: bytes, chunked: bool) -> None:
        piece = bytes(1 << 20)
        before = daemon.most_memory()
        with daemon.connect() as connection:
            connection.sendall(put(path, CHUNKED if chunked else b"Content-Length: %d" % SIZE))
            for _ in range(0, SIZE, len(piece)):
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            connection.sendall((LAST if chunked else b"") + INFO)
            heard = listen(connection, 5)
        [refusal] = statuses(heard)
        assert refusal in (400, 404, 413)
        assert heard.endswith(b" (closed)"), "so that nobody has to send, and nobody to take, what is not wanted"
        assert daemon.most_memory() < before + (40 << 20)

    @pytest.mark.parametrize("path", [b"/nowhere", NO_NAR, NO_NARINFO])
    def test_the_connection_is_used_on_where_the_rest_is_short(self, daemon: Daemon, path: bytes) -> None:
        with daemon.connect() as connection:
            connection.sendall(put(path, b"Content-Length: 100000") + bytes(100_000) + INFO)
            [refusal, well] = statuses(listen(connection, 0.5))
        assert refusal in (400, 404, 413)
        assert well == 200

    @pytest.mark.parametrize("program", ["--http1.1", "--http2-prior-knowledge"])
    @pytest.mark.parametrize("path", [b"/nowhere", NO_NAR, NO_NARINFO])
    def test_curl_shows_the_line(self, daemon: Daemon, tmp_path: Path, program: str, path: bytes) -> None:
        (tmp_path / "large").write_bytes(bytes(SIZE))
        command = [programs.require("curl"), "-sS", program, "-T", str(tmp_path / "large"), daemon.url + path.decode()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1

    def test_nix_shows_the_line_of_a_cache_that_is_read_only(self, start_daemon: Callable[..., Daemon], nix: Nix) -> None:
        daemon = start_daemon("--read-only")
        path = nix.build('sh "large" "head -c 50000000 /dev/urandom > $out"')[0]
        done = nix.run("nix", "copy", "--to", f"{daemon.url}?compression=none", path, timeout=20)
        assert done.returncode != 0
        assert "403" in done.stderr
        assert "this cache is read-only" in done.stderr
        assert daemon.is_well()


def test_clients_that_do_not_read_cost_little(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    nar = trees.nar({b"random": TreeFile(noise(1 << 20) * 64)})
    assert daemon.put(nar_name(nar), nar).status == 201
    for name in (nar_name(nar), nar_name(nar, ".zst")):
        with ExitStack() as stuck:
            for _ in range(20):
                connection = stuck.enter_context(daemon.connect())
                connection.sendall(b"GET " + name.encode() + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            time.sleep(1)
            assert daemon.is_well()
    assert daemon.most_memory() < 250 << 20  # 500 MB with pieces of 1 MiB


class TestHttp2:
    """The same over HTTP/2, which clients begin at once, by upgrade, or where TLS says so."""

    @pytest.mark.parametrize("how", ["--http2-prior-knowledge", "--http2"])
    def test_narinfos_are_served_and_nars_taken(self, daemon: Daemon, tmp_path: Path, how: str) -> None:
        nar = trees.nar(TreeFile(noise(3_000_000, how)))
        (tmp_path / "nar").write_bytes(nar)
        curl = [programs.require("curl"), "-sS", how, "-w", "%{http_code} %{http_version}"]
        told = [*curl, daemon.url + "/nix-cache-info"]
        assert subprocess.run(told, capture_output=True, check=True).stdout == WELL + b"200 2"
        upload = [*curl, "-T", str(tmp_path / "nar"), daemon.url + nar_name(nar)]
        assert subprocess.run(upload, capture_output=True, check=True).stdout.startswith(b"the NAR is stored\n201 ")
        assert daemon.head(nar_name(nar)).status == 200

    def test_many_streams_at_once_are_answered(self, daemon: Daemon) -> None:
        h2load = [programs.require("h2load"), "-n2000", "-c4", "-m50", daemon.url + "/nix-cache-info"]
        assert "2000 2xx, 0 3xx, 0 4xx, 0 5xx" in subprocess.run(h2load, capture_output=True, text=True, check=True).stdout

    def test_uploads_at_once_are_all_answered(self, daemon: Daemon, tmp_path: Path) -> None:
        nar = trees.nar(TreeFile(noise(300_000, "streams")))
        (tmp_path / "nar").write_bytes(nar)
        h2load = [programs.require("h2load"), "-n100", "-c2", "-m10", "-d", str(tmp_path / "nar"), "-H", ":method: PUT"]
        done = subprocess.run([*h2load, daemon.url + nar_name(nar)], capture_output=True, text=True, check=True)
        assert "100 2xx, 0 3xx, 0 4xx, 0 5xx" in done.stdout


@pytest.mark.parametrize("path", [NO_NARINFO, NO_NAR, b"/nix-cache-info", b"/nowhere", b"/", b"/nar/"])
@pytest.mark.parametrize(
    "field", [b"Content-Type: application/grpc", b"Content-Encoding: zstd", b"Content-Encoding: compress", b"X: y"]
)
def test_a_put_is_answered_with_a_status_that_old_clients_bear(daemon: Daemon, path: bytes, field: bytes) -> None:
    for body in (b"", b"abc", nixbase32.encode(bytes(20)).encode()):
        [status] = statuses(say(daemon, put(path, field, b"Content-Length: %d" % len(body), b"Connection: close") + body))
        assert status in (200, 201, 204) or 400 <= status < 500
        assert status != 408
