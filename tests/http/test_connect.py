"""Calls over plain HTTP to a daemon, by clients that know no more than HTTP."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode

import pytest

from tests.http.daemon import Daemon
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import decode_chunk, decode_digest, encode_chunk, encode_digest
from tvix_store.testing.content import noise

BLOBS = "/rpc/v1/tvix.store.v1.BlobService"
ONE = {"Content-Type": "application/proto"}
PAGE = "https://page.example"


def get(content: bytes) -> str:
    message = urlsafe_b64encode(encode_digest(Digest.of(content))).rstrip(b"=").decode()
    return f"{BLOBS}/Get?connect=v1&encoding=proto&base64=1&message={message}"


def test_a_blob_is_put_by_post_and_fetched_by_a_get_that_caches_may_keep(shared_daemon: Daemon) -> None:
    content = noise(100_000, "by http")
    absent = shared_daemon.get(get(content))
    assert (absent.status, absent.headers["cache-control"]) == (404, "no-store")
    assert json.loads(absent.body)["code"] == "not_found"
    put = shared_daemon.request("POST", f"{BLOBS}/Put", encode_chunk(content), ONE)
    assert (put.status, put.headers["cache-control"]) == (200, "no-store")
    assert decode_digest(put.body) == Digest.of(content)
    got = shared_daemon.get(get(content))
    assert (got.status, got.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    assert decode_chunk(got.body) == content


def test_a_stream_needs_no_trailers_and_comes_over_http1(shared_daemon: Daemon) -> None:
    content = noise(3_000_000, "a stream")
    parts = [content[at : at + 500_000] for at in range(0, len(content), 500_000)]
    messages = [encode_chunk(part) for part in parts]
    body = b"".join(b"\0" + len(message).to_bytes(4) + message for message in messages)
    stream = {"Content-Type": "application/connect+proto"}
    put = shared_daemon.request("POST", "/rpc/v1/snix.castore.v1.BlobService/Put", body, stream)
    assert put.body.endswith(b"\2\0\0\0\2{}")
    asked = encode_digest(Digest.of(content))
    read = shared_daemon.request(
        "POST", "/rpc/v1/snix.castore.v1.BlobService/Read", b"\0" + len(asked).to_bytes(4) + asked, stream
    ).body
    received = b""
    while read[0] == 0:
        size = int.from_bytes(read[1:5])
        message, read = read[5 : 5 + size], read[5 + size :]
        received += decode_chunk(message)
    assert (received, read) == (content, b"\2\0\0\0\2{}")


@pytest.mark.parametrize("content_type", ["application/proto", "application/connect+proto", "text/plain", "application/json"])
@pytest.mark.parametrize(
    ("field", "value", "status"), [("Origin", PAGE, 403), ("Origin", "null", 403), ("Host", "page.example", 421)]
)
def test_no_page_may_call(shared_daemon: Daemon, content_type: str, field: str, value: str, status: int) -> None:
    headers = {"Content-Type": content_type, field: value}
    answer = shared_daemon.request("POST", f"{BLOBS}/Put", encode_chunk(b"of a page"), headers)
    assert (answer.status, json.loads(answer.body)["code"]) == (status, "permission_denied")
    assert "--allow-" in json.loads(answer.body)["message"]
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert shared_daemon.get(get(b"of a page")).status == 404


def test_no_page_may_write_by_get(shared_daemon: Daemon) -> None:
    """A browser sends no Origin with a simple GET; no method that writes takes one."""
    message = urlsafe_b64encode(encode_chunk(b"by get")).decode()
    answer = shared_daemon.get(f"{BLOBS}/Put?connect=v1&encoding=proto&base64=1&message={message}")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert shared_daemon.get(get(b"by get")).status == 404


@pytest.mark.parametrize(
    ("path", "content_type", "status"),
    [(f"{BLOBS}/Get", "application/proto", 429), (f"{BLOBS}/Get", "text/plain", 415), ("/rpc/v1/x/Y", "application/proto", 404)],
)
def test_a_client_that_goes_on_sending_behind_a_refusal_is_cut_off(
    shared_daemon: Daemon, path: str, content_type: str, status: int
) -> None:
    with shared_daemon.connect() as connection:
        fields = f"Host: localhost\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(f"POST {path} HTTP/1.1\r\n{fields}".encode())
        piece = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        answer = b""
        stops = time.monotonic() + 15
        connection.settimeout(5)
        is_cut = False
        while not is_cut:
            assert time.monotonic() < stops
            time.sleep(0.002)
            try:
                connection.sendall(piece)
                answer = answer or connection.recv(4096)
            except OSError:
                is_cut = True
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert shared_daemon.is_well()
