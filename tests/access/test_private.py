"""A private store is closed to strangers: each method of each protocol, and each route, but health."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.access.tokens import Tokens, basic, bearer
from tests.http.daemon import Daemon, nar_name
from tvix_store.access.gate import Gate
from tvix_store.access.settings import AccessSettings
from tvix_store.asgi import Event
from tvix_store.backends.memory import open_store
from tvix_store.http.app import BinaryCache
from tvix_store.http.documents import FIRST_PARTS
from tvix_store.http.settings import CacheSettings
from tvix_store.model.grant import Scope
from tvix_store.nar import tokens as nar_tokens
from tvix_store.protocol.connect import PREFIX
from tvix_store.rpc.health import HEALTH_SERVICE
from tvix_store.rpc.method import Method, Unary
from tvix_store.rpc.services import serve_store

OPEN = {f"/{HEALTH_SERVICE}/{name}" for name in ("Check", "List", "Watch")}
"""All that strangers may call."""
REFUSED = "this needs a token with the scope pull, as a bearer token or as the password of any user"


async def methods() -> dict[str, Method]:
    """Those of a daemon: all that there are."""
    async with await open_store() as store:
        return dict(serve_store(store)[0].methods)


class Closed(Daemon):
    """A private daemon with a token of each scope."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "--private", "--token-file", directory / "tokens.json")
        self.tokens = Tokens(directory / "tokens.json")
        self.pull, self.push, self.admin = map(self.tokens.make, (Scope.PULL, Scope.PUSH, Scope.ADMIN))


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    daemon = Closed(tmp_path_factory.mktemp("closed"))
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture(scope="module")
def channel(closed: Closed) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{closed.port}") as made:
        yield made


def call(channel: grpc.Channel, path: str, secret: str | None = None) -> grpc.RpcError | None:
    """How a call with an empty message ends; None where it gets an answer."""
    metadata = () if secret is None else (("authorization", f"Bearer {secret}"),)
    answers = channel.unary_stream(path, lambda message: message, lambda message: message)(b"", metadata=metadata, timeout=20)
    try:
        next(answers)
    except StopIteration:
        return None
    except grpc.RpcError as error:
        return error
    finally:
        answers.cancel()
    return None


async def test_there_are_methods_of_all_protocols() -> None:
    found = await methods()
    assert len(found) >= 40
    assert set(found) > OPEN
    assert {path for path, method in found.items() if method.takes.needs is Scope.NOTHING} == OPEN


async def test_a_stranger_gets_no_answer_from_any_method_over_grpc(closed: Closed, channel: grpc.Channel) -> None:
    for path in [*await methods(), "/tvix.store.v1.BlobService/Unknown", "/unknown"]:
        for secret in (None, "wrong", closed.push[:-1]):
            error = call(channel, path, secret)
            if path in OPEN:
                assert error is None, path
            else:
                assert error is not None, path
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED, path
                assert "needs a token with the scope" in str(error.details()), path


async def test_a_token_to_pull_writes_nothing_over_grpc(closed: Closed, channel: grpc.Channel) -> None:
    for path, method in (await methods()).items():
        error = call(channel, path, closed.pull)
        denied = error is not None and error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert denied == method.takes.writes, path
        assert error is None or error.code() is not grpc.StatusCode.UNAUTHENTICATED, path
        if denied:
            assert error is not None
            assert "has the scope pull; this needs a token with the scope push" in str(error.details())


async def test_a_stranger_gets_no_answer_from_any_method_over_connect(closed: Closed) -> None:
    for path, method in (await methods()).items():
        kind = "application/proto" if isinstance(method, Unary) else "application/connect+proto"
        body = b"" if isinstance(method, Unary) else bytes(5)
        for headers in ({}, bearer("wrong"), basic(closed.pull[:-1])):
            answer = closed.request("POST", PREFIX + path, body, {"Content-Type": kind, "Connect-Timeout-Ms": "2000", **headers})
            got = closed.request("GET", f"{PREFIX}{path}?connect=v1&encoding=proto&message=", headers=headers)
            assert got.status in {401, 405}, path
            if path in OPEN:
                assert answer.status == 200, path
            elif isinstance(method, Unary):
                assert (answer.status, json.loads(answer.body)["code"]) == (401, "unauthenticated"), path
                assert answer.headers["cache-control"] == "no-store"
            else:
                assert json.loads(answer.body[5:])["error"]["code"] == "unauthenticated", path


CONTENT = nar_tokens.MAGIC + nar_tokens.file_start(3, executable=False) + b"abc" + nar_tokens.file_end(3)
HASH = "0" * 32
NODE = urlsafe_b64encode(b"\x12\x00").decode().rstrip("=")
ROUTES = [
    "/nix-cache-info",
    f"/{HASH}.narinfo",
    f"/{HASH}.ls",
    nar_name(CONTENT),
    f"/nar/snix-castore/{NODE}",
    f"/nar/tvix-castore/{NODE}?narsize=1",
    f"/serve/{HASH}-name/file",
    *(f"/{first.decode()}/name" for first in sorted(FIRST_PARTS)),
    "/",
    "/unknown",
    "/%2e%2e/nix-cache-info",
    "//nix-cache-info",
]


@pytest.mark.parametrize("path", ROUTES)
def test_a_stranger_gets_401_and_a_line_over_http(closed: Closed, path: str) -> None:
    for method in ("GET", "HEAD", "PUT"):
        for headers in ({}, bearer("wrong"), basic(closed.push + "x"), {"Authorization": "nonsense"}):
            body = CONTENT if method == "PUT" else None
            answer = closed.request(method, path, body, headers)
            assert answer.status == 401, (method, headers)
            assert answer.headers["www-authenticate"].startswith('Basic realm="tvix-store"')
            assert "Bearer" in answer.headers["www-authenticate"]
            assert answer.headers["cache-control"] == "no-store"
            assert (
                method == "HEAD"
                or answer.line.endswith(REFUSED)
                or "; this needs a token with the scope p" in answer.line
                or (method == "PUT" and "scope push" in answer.line)
            )


@pytest.mark.parametrize("path", ROUTES)
def test_a_token_opens_all_routes(closed: Closed, path: str) -> None:
    for headers in (bearer(closed.pull), basic(closed.pull), basic(closed.push), bearer(closed.admin)):
        answer = closed.request("GET", path, headers=headers)
        assert answer.status in {200, 400, 404}
        assert "private" in answer.headers["cache-control"]
        assert "public" not in answer.headers["cache-control"]


def test_a_token_to_pull_pushes_nothing_over_http(closed: Closed) -> None:
    answer = closed.request("PUT", nar_name(CONTENT), CONTENT, bearer(closed.pull))
    assert answer.status == 403
    assert answer.line.endswith("has the scope pull; this needs a token with the scope push")
    assert closed.request("HEAD", nar_name(CONTENT), headers=bearer(closed.pull)).status == 404
    assert closed.request("PUT", nar_name(CONTENT), CONTENT, basic(closed.push)).status == 201
    got = closed.request("GET", nar_name(CONTENT), headers=bearer(closed.pull))
    assert (got.status, got.body) == (200, CONTENT)
    # Caches between may keep what strangers may have, and nothing else.
    assert "private" in got.headers["cache-control"]
    assert "public" not in got.headers["cache-control"]


def test_what_browsers_ask_before_they_ask_tells_nothing(closed: Closed) -> None:
    answer = closed.request("OPTIONS", f"/{HASH}.narinfo", headers={"Origin": "https://page.example", **bearer("wrong")})
    assert (answer.status, answer.body) == (204, b"")
    assert "access-control-allow-credentials" not in answer.headers
    # The token of a person does not let a web page write, nor one that has rebound its name.
    page = {"Origin": "https://page.example", **bearer(closed.push)}
    assert closed.request("PUT", nar_name(CONTENT), CONTENT, page).status == 403
    assert closed.request("GET", "/nix-cache-info", headers={"Host": "page.example", **bearer(closed.push)}).status == 421


def test_a_stranger_gets_nothing_on_the_connection_of_a_client_that_is_known(closed: Closed) -> None:
    with closed.connect() as connection:
        for field, status in (
            (f"Authorization: Bearer {closed.pull}\r\n", b"200"),
            ("", b"401"),
            ("Authorization: x\r\n", b"401"),
        ) * 3:
            connection.sendall(f"GET /nix-cache-info HTTP/1.1\r\nHost: localhost\r\n{field}\r\n".encode())
            answer = connection.recv(65536)
            while b"\r\n\r\n" not in answer or not answer.endswith(b"\n"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 " + status), answer


@given(
    st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH", "get", ""]),
    st.lists(
        st.sampled_from(["a", "nar", "serve", "log", "nix-cache-info", f"{HASH}.narinfo", f"{HASH}.ls", "", ".."]), max_size=4
    ),
)
async def test_no_route_is_reached_but_through_the_grant(method: str, segments: list[str]) -> None:
    """Whatever routes there will be: strangers reach neither of the two functions that know them."""
    store = await open_store()
    try:
        cache = BinaryCache(store, CacheSettings())
        reached: list[str] = []
        cache._get = lambda _: reached.append("get")  # type: ignore[method-assign,assignment,return-value]
        cache._put = lambda _: reached.append("put")  # type: ignore[method-assign,assignment,return-value]
        sent: list[Event] = []

        async def receive() -> Event:
            return {"type": "http.request"}

        async def send(event: Event) -> None:
            sent.append(event)

        path = "/" + "/".join(segments)
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
        await Gate(cache, AccessSettings(None, private=True).authority())({**scope, "http_version": "1.1"}, receive, send)
        assert reached == []
        assert sent[0]["status"] in {204, 400, 401, 405}
    finally:
        await store.close()
