"""More than two hundred shapes of wrong credentials, over HTTP and gRPC, to one daemon: none is let in."""

from __future__ import annotations

import hmac
import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.access.issuer import Issuer, Key, ec_key, encoded, signed
from tests.access.tokens import Tokens
from tests.http.daemon import Daemon
from tvix_store.model.grant import Scope
from tvix_store.protocol.dialects import SETTINGS_SERVICE

Shapes = dict[str, bytes]


def token_shapes(good: str, tokens: Tokens) -> Iterator[tuple[str, str]]:
    """Texts that are near to a token, or were one, and are none."""
    revoked = tokens.make(Scope.ADMIN)
    tokens.revoke(revoked)
    yield "revoked", revoked
    yield "expired", tokens.make(Scope.ADMIN, expires=time.time() - 1)
    other = tokens.make(Scope.PULL)
    prefix, identity, secret = good.split("_", 2)
    other_id, other_secret = other.split("_", 2)[1:]
    yield "of another id", f"{prefix}_{other_id}_{secret}"
    yield "of another secret", f"{prefix}_{identity}_{other_secret}"
    yield "of a store elsewhere", f"{prefix}_{'0' * 12}_{'A' * 43}"
    for length in range(len(good)):
        yield f"cut to {length}", good[:length]
    for at in range(0, len(good), 2):
        yield f"without the character {at}", good[:at] + good[at + 1 :]
        yield f"with another character {at}", good[:at] + ("a" if good[at] != "a" else "b") + good[at + 1 :]
    yield from {
        "upper case": good.upper(),
        "swapped case": good.swapcase(),
        "twice": good + good,
        "longer": good + "A",
        "quoted": f'"{good}"',
        "with a comma": good + ",",
        "in two words": f"{prefix}_{identity} {secret}",
        "escaped": "%74" + good[1:],
        "the hash of the secret": f"{prefix}_{identity}_{'a' * 64}",
        "id alone": identity,
        "secret alone": secret,
        "null": "null",
        "a glob": f"{prefix}_{identity}_*",
        "a regular expression": f"{prefix}_{identity}_.{{43}}",
        "a path": "../tokens.json",
    }.items()


def identity_shapes(issuer: Issuer, key: Key, foreign: Key) -> Iterator[tuple[str, str]]:
    """Texts that are near to an identity of the issuer that a rule lets in, and are none."""
    good = issuer.token(key)
    claims = issuer.claims()
    head, body, signature = good.split(".")
    for at in range(0, len(good), len(good) // 40):
        yield f"an identity cut to {at}", good[:at]
    for at in range(0, len(signature) - 1, len(signature) // 20):
        yield (
            f"a signature with another character {at}",
            (f"{head}.{body}.{signature[:at]}{'A' if signature[at] != 'A' else 'B'}{signature[at + 1 :]}"),
        )
    now = time.time()
    changes: dict[str, dict[str, Any]] = {
        "expired": {"exp": now - 120},
        "no end": {"exp": None},
        "an end that is none": {"exp": float("nan")},
        "an end that is true": {"exp": True},
        "not yet": {"nbf": now + 3600},
        "of tomorrow": {"iat": now + 86400},
        "no begin": {"iat": None},
        "for others": {"aud": "other"},
        "for many others": {"aud": ["other", "caches"]},
        "for nobody": {"aud": None},
        "for an object": {"aud": {"cache": "cache"}},
        "of somebody else": {"sub": "repo:evil/app:ref:refs/heads/main"},
        "of a longer name": {"sub": "repo:team-evil/app"},
        "of nobody": {"sub": None},
        "of a number": {"sub": 5},
        "of a list": {"sub": ["repo:team/app"]},
        "of another issuer": {"iss": "https://other.example.org"},
        "of an issuer with a slash": {"iss": issuer.url + "/"},
        "of no issuer": {"iss": None},
    }
    for name, more in changes.items():
        yield f"an identity {name}", issuer.token(key, **more)
    public = json.dumps(key.public()).encode()
    for secret in (public, b"", b"secret", issuer.keys[0]["n"].encode()):
        for algorithm, digest in (("HS256", "sha256"), ("HS512", "sha512")):
            content = encoded({"alg": algorithm, "kid": key.name}) + b"." + encoded(claims)
            yield f"{algorithm} with {secret[:9]!r}", f"{content.decode()}.{encoded(hmac.digest(secret, content, digest)).decode()}"
    for stated in ("none", "None", "NONE", "nOnE", "", None, "RS1", "rs256", ["RS256"], {"a": 1}, 5, "ES256", "PS256", "RS512"):
        forged = encoded({"alg": stated, "kid": key.name}).decode()
        yield f"alg {stated!r}", f"{forged}.{body}.{signature}"
        yield f"alg {stated!r} unsigned", f"{forged}.{body}."
    ec = ec_key(key.name)
    yield "by another key", signed(foreign, claims)
    yield "by a key of another kind", signed(ec, claims)
    yield "by a key that it brings", signed(foreign, claims, jwk=foreign.public())
    yield "by a key elsewhere", signed(foreign, claims, jku=f"{issuer.url}/evil", x5u=f"{issuer.url}/evil")
    yield "by a key of another name", signed(foreign, claims, kid="other")
    yield "by a key without a name", signed(foreign, claims, kid=None)
    yield "with extensions", signed(key, claims, crit=["b64"], b64=True)
    yield "with its body apart", signed(key, claims, b64=False)
    yield "another body", f"{head}.{encoded({**claims, 'admin': True}).decode()}.{signature}"
    yield "a list", signed(key, [claims])
    yield "deep", f"{encoded(b'[' * 4000).decode()}.{body}.{signature}"
    yield "deep claims", f"{head}.{encoded(b'[' * 4000).decode()}.{signature}"
    yield "four parts", good + ".a"
    yield "five parts", good + ".a.a"
    yield "two dots", ".."


def shapes(good: str, tokens: Tokens, issuer: Issuer, key: Key, foreign: Key) -> Shapes:
    """Values of `Authorization` by what is wrong with them."""
    found = {
        name: b"Bearer " + text.encode() for name, text in (*token_shapes(good, tokens), *identity_shapes(issuer, key, foreign))
    }
    for scheme in ("", "Token", "Digest", "Negotiate", "Bearer:", "Bearer=", "Basic", "NTLM", "AWS4-HMAC-SHA256"):
        found[f"scheme {scheme!r}"] = f"{scheme} {good}".encode()
    encode = b64encode
    found |= {
        "the token for a user": b"Basic " + encode(f"{good}:".encode()),
        "the token for a user, and a password": b"Basic " + encode(f"{good}:x".encode()),
        "no colon": b"Basic " + encode(good.encode()),
        "two colons": b"Basic " + encode(f"any::{good}".encode()),
        "a space before": b"Basic " + encode(f"any: {good}".encode()),
        "a line's end": b"Basic " + encode(f"any:{good}\n".encode()),
        "no padding": b"Basic " + encode(f"anyone:{good}".encode()).rstrip(b"=")[:-1],
        "base64 twice": b"Basic " + encode(encode(f"any:{good}".encode())),
        "a broken alphabet": b"Basic !" + encode(f"any:{good}".encode()),
        "quoted parameters": b'Bearer token="' + good.encode() + b'"',
        "two of them": b"Bearer x, Bearer " + good.encode(),
        "8 KiB": b"Bearer " + b"A" * 8192,
        "many spaces, and one token": b"Bearer x" + b" " * 4000 + good.encode(),
    }
    return found


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.json")


@pytest.fixture
def closed(start_daemon: Callable[..., Daemon], issuer: Issuer, tmp_path: Path) -> Daemon:
    rule = f"issuer={issuer.url} audience=cache scope=admin sub=repo:team/*"
    return start_daemon("--private", "--token-file", tmp_path / "tokens.json", "--oidc-rule", rule)


def test_of_all_wrong_credentials_none_is_let_in(
    tokens: Tokens,
    closed: Daemon,
    issuer: Issuer,
    key: Key,
    foreign_key: Key,
    record_property: Callable[[str, object], None],
) -> None:
    good = tokens.make(Scope.ADMIN)
    wrong = shapes(good, tokens, issuer, key, foreign_key)
    right = {"a token": f"Bearer {good}".encode(), "an identity": f"Bearer {issuer.token(key)}".encode()}
    time.sleep(1.0)
    over_http = {name: by_http(closed, value) for name, value in (right | wrong).items()}
    with grpc.insecure_channel(f"127.0.0.1:{closed.port}") as channel:
        # The library sends no value with spaces around it.
        sendable = {name: value.decode() for name, value in (right | wrong).items() if value.isascii() and value == value.strip()}
        over_grpc = {name: by_grpc(channel, value) for name, value in sendable.items()}
    print(f"shapes over HTTP: {len(wrong)}, over gRPC: {len(over_grpc) - len(right)}")
    let_in = [f"{name}: {status}" for name, status in over_http.items() if name in wrong and status != 401]
    refused = grpc.StatusCode.UNAUTHENTICATED
    let_in += [f"{name}: {code}" for name, code in over_grpc.items() if name in wrong and code is not refused]
    record_property("shapes", len(wrong))
    record_property("let in", len(let_in))
    assert min(len(wrong), len(over_grpc)) >= 200
    assert let_in == []
    for name in right:
        assert (over_http[name], over_grpc[name]) == (200, grpc.StatusCode.OK), name
    # No issuer is asked for each of them.
    assert issuer.fetches <= 8
    assert not any("evil" in path for path in issuer.asked)
    assert closed.request("GET", "/nix-cache-info", headers={"Authorization": f"Bearer {good}"}).status == 200
    for told in (closed.log, Path(f"/proc/{closed.workers[0]}/cmdline").read_text()):
        assert "Traceback" not in told
        assert good[20:] not in told
        assert issuer.token(key)[:60] not in told


def by_http(daemon: Daemon, value: bytes) -> int:
    connection = HTTPConnection("127.0.0.1", daemon.port, timeout=20)
    try:
        connection.putrequest("GET", "/nix-cache-info")
        connection.putheader("Authorization", value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def by_grpc(channel: grpc.Channel, value: str) -> grpc.StatusCode:
    call = channel.unary_unary(f"/{SETTINGS_SERVICE}/Get", lambda message: message, lambda message: message)
    try:
        call(b"", metadata=(("authorization", value),), timeout=20)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("size", [16 << 10, 64 << 10, 1 << 20])
def test_a_huge_field_is_refused_and_the_daemon_goes_on(shared: Daemon, size: int) -> None:
    with shared.connect() as connection:
        request = b"GET /nix-cache-info HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + b"A" * size + b"\r\n\r\n"
        try:
            connection.sendall(request)
            answer = connection.recv(65536)
        except ConnectionError:
            answer = b""
    assert answer == b"" or answer.split()[1] in {b"400", b"401", b"413", b"431"}
    assert shared.request("GET", "/nix-cache-info").status == 401


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["AUTHORIZATION: Bearer {}"], 200),
        (["authorization:Bearer {}"], 200),
        (["authorization: \t Bearer {} \t"], 200),
        (["authorization: Bearer {}", "Authorization: Bearer {}"], 401),
        (["authorization: Bearer x", "Authorization: Bearer {}"], 401),
        (["Authorization: Bearer {}", "X-Authorization: Bearer x"], 200),
        (["X-Authorization: Bearer {}"], 401),
        (["Proxy-Authorization: Bearer {}"], 401),
        (["Cookie: authorization=Bearer {}"], 401),
        (["X-Forwarded-Authorization: Bearer {}"], 401),
        (["Authorization : Bearer {}"], 400),
        (["X: a\n authorization: Bearer {}"], 400),
        (["Authorization: Bearer\r\n {}"], 400),
        (["Authorization: Bearer é{}"], 401),
        (["Connection: authorization", "Authorization: Bearer {}"], 200),
    ],
    ids=repr,
)
def test_a_token_is_in_one_field_of_its_name(shared: Daemon, token: str, fields: list[str], status: int) -> None:
    with shared.connect() as connection:
        lines = "".join(f"{field.format(token)}\r\n" for field in fields)
        connection.sendall(f"GET /nix-cache-info HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n".encode())
        answer = connection.recv(65536)
    assert int(answer.split()[1]) in {status, 400 if status == 401 else status}


def test_a_token_in_the_url_is_none(shared: Daemon, token: str) -> None:
    for query in (f"access_token={token}", f"token={token}", f"authorization=Bearer%20{token}"):
        assert shared.get(f"/nix-cache-info?{query}").status == 401


@pytest.fixture(scope="module")
def shared_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "tokens.json"


@pytest.fixture(scope="module")
def token(shared_tokens: Path) -> str:
    return Tokens(shared_tokens).make(Scope.PULL)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, shared_tokens: Path, token: str) -> Iterator[Daemon]:
    """A private daemon with `token`."""
    daemon = Daemon(tmp_path_factory.mktemp("shared"), "--private", "--token-file", shared_tokens)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
