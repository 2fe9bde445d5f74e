"""The layer that makes grants of credentials, for whatever is behind it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.access.issuer import Issuer, Key
from tvix_store.access import token_file
from tvix_store.access.authority import Authority
from tvix_store.access.gate import Gate
from tvix_store.access.identity_rule import IdentityRule
from tvix_store.access.settings import AccessSettings
from tvix_store.access.token_file import TokenFile
from tvix_store.access.tokens import issue
from tvix_store.asgi import Event, Receive, Send, grant_of
from tvix_store.model.grant import OPEN, Grant, Scope

Fields = Iterable[tuple[bytes, bytes]]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenFile:
    monkeypatch.setattr(token_file, "_LOOK", 0.0)
    return TokenFile(tmp_path / "tokens.json")


def make(file: TokenFile, scope: Scope) -> tuple[bytes, str]:
    secret, record = issue(scope)
    file.change(lambda table: table.with_token(record))
    return secret.encode(), record.id


async def granted(authority: Authority, headers: Fields = ()) -> Grant:
    """What an application behind a gate hears."""
    heard: list[Grant] = []

    async def app(scope: Event, _receive: Receive, _send: Send) -> None:
        heard.append(grant_of(scope))

    async def receive() -> Event:
        raise AssertionError

    async def send(_event: Event) -> None:
        raise AssertionError

    await Gate(app, authority)({"type": "http", "headers": list(headers)}, receive, send)
    [grant] = heard
    return grant


def shown(value: bytes) -> Fields:
    return [(b"host", b"localhost"), (b"authorization", value)]


async def test_without_tokens_strangers_may_write_and_credentials_of_others_do_not_matter(file: TokenFile) -> None:
    """A proxy before the daemon, that asks for a password itself, passes it on."""
    authority = AccessSettings(file.path).authority()
    assert await granted(authority) == OPEN
    for value in (b"Basic " + b64encode(b"user:password"), b"Bearer abc", b"Digest abc", b"Bearer a.b.c", b""):
        assert await granted(authority, shown(value)) == OPEN
    assert (await granted(authority, shown(b"Bearer tvix_" + b"0" * 12 + b"_" + b"a" * 43))).refusal


async def test_with_a_pull_token_strangers_still_may_write(file: TokenFile) -> None:
    secret, name = make(file, Scope.PULL)
    authority = AccessSettings(file.path).authority()
    assert await granted(authority) == OPEN
    assert await granted(authority, shown(b"Bearer " + secret)) == Grant(Scope.PULL, name)
    assert (await granted(authority, shown(b"Bearer abc"))).scope is Scope.NOTHING


async def test_with_a_push_token_strangers_only_read(file: TokenFile) -> None:
    authority = AccessSettings(file.path).authority()
    assert await granted(authority) == OPEN
    secret, name = make(file, Scope.PUSH)
    assert await granted(authority) == Grant(Scope.PULL)
    for value in (b"Bearer " + secret, b"Basic " + b64encode(b"any:" + secret), b"bearer  " + secret):
        assert await granted(authority, shown(value)) == Grant(Scope.PUSH, name)


async def test_nothing_that_becomes_of_the_file_opens_the_store(file: TokenFile) -> None:
    make(file, Scope.PUSH)
    authority = AccessSettings(file.path).authority()
    assert authority.is_closed
    for content in (None, b"", b"damaged", b'{"version": 1, "tokens": []}'):
        file.path.unlink(missing_ok=True)
        if content is not None:
            file.path.write_bytes(content)
        assert await granted(authority) == Grant(Scope.PULL)
    # A worker that is started anew has never seen the tokens, but the daemon has.
    assert await granted(AccessSettings(file.path, closed=True).authority()) == Grant(Scope.PULL)


async def test_a_private_store_tells_strangers_nothing(file: TokenFile) -> None:
    secret, name = make(file, Scope.PULL)
    settings = AccessSettings(file.path, private=True)
    assert settings.asks
    assert settings.is_closed()
    authority = settings.authority()
    assert await granted(authority) == Grant(Scope.NOTHING)
    assert (await granted(authority, shown(b"Basic " + b64encode(b"user:password")))).scope is Scope.NOTHING
    assert await granted(authority, shown(b"Bearer " + secret)) == Grant(Scope.PULL, name)
    nobody = AccessSettings(None, private=True).authority()
    for fields in ((), shown(b"Bearer " + secret), shown(b"Bearer a.b.c")):
        assert (await granted(nobody, fields)).scope is Scope.NOTHING


async def test_credentials_that_are_shown_twice_grant_nothing(file: TokenFile) -> None:
    secret, _ = make(file, Scope.PUSH)
    authority = AccessSettings(file.path).authority()
    twice = [*shown(b"Bearer " + secret), (b"authorization", b"Bearer " + secret)]
    assert (await granted(authority, twice)).refusal == "the request shows credentials twice"
    for joined in (b"Bearer " + secret + b", Bearer " + secret, b"Bearer " + secret + b",", b"Bearer x Bearer " + secret):
        assert (await granted(authority, shown(joined))).scope is Scope.NOTHING


async def test_an_identity_and_a_token_are_good_beside_each_other(file: TokenFile, issuer: Issuer, key: Key) -> None:
    secret, name = make(file, Scope.PULL)
    rule = IdentityRule(issuer=issuer.url, audience="cache", scope=Scope.PUSH, claims={"sub": "repo:team/*"})
    settings = AccessSettings(file.path, (rule,))
    assert settings.is_closed()
    authority = settings.authority()
    assert await granted(authority) == Grant(Scope.PULL)
    assert await granted(authority, shown(b"Bearer " + secret)) == Grant(Scope.PULL, name)
    token = issuer.token(key).encode()
    expected = Grant(Scope.PUSH, f"{issuer.url} repo:team/app:ref:refs/heads/main")
    assert await granted(authority, shown(b"Bearer " + token)) == expected
    assert await granted(authority, shown(b"Basic " + b64encode(b"job:" + token))) == expected
    assert (await granted(authority, shown(b"Bearer " + token[:-4]))).refusal


async def test_others_are_served_while_one_waits_for_the_keys_of_an_issuer(
    start_issuer: Callable[..., Issuer], key: Key, file: TokenFile
) -> None:
    import threading

    go_on = threading.Event()
    issuer = start_issuer(key)
    issuer.before = go_on.wait
    rule = IdentityRule(issuer=issuer.url, audience="cache", scope=Scope.PUSH, claims={"sub": "repo:team/*"})
    authority = AccessSettings(file.path, (rule,)).authority()
    waiting = asyncio.create_task(granted(authority, shown(b"Bearer " + issuer.token(key).encode())))
    await asyncio.sleep(0.05)
    assert await granted(authority) == Grant(Scope.PULL)
    assert not waiting.done()
    go_on.set()
    assert (await waiting).scope is Scope.PUSH
