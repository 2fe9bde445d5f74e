"""Tokens of an issuer as grants; and what its keys do when they are rotated, slow, false, or asked for by strangers."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.access.issuer import Issuer, Key, ec_key, ed_key, encoded, rsa_key, signed
from tvix_store.access import identities as identities_module
from tvix_store.access import issuer_keys
from tvix_store.access.identities import Identities
from tvix_store.access.identity_rule import IdentityRule
from tvix_store.access.issuer_keys import IssuerKeys
from tvix_store.errors import UnavailableError
from tvix_store.model.grant import Grant, Scope

TLS = Path(__file__).parents[1] / "backends/tls"
SUB = "repo:team/app:ref:refs/heads/main"


def rule(issuer: Issuer, scope: Scope = Scope.PUSH, *, cache: str | None = None, **claims: str) -> IdentityRule:
    wanted = claims or {"sub": "repo:team/*"}
    return IdentityRule(issuer=issuer.url, audience="cache", scope=scope, claims=wanted, cache=cache)


@pytest.fixture
def identities(issuer: Issuer) -> Identities:
    return Identities([rule(issuer)])


async def refusal(identities: Identities, token: str) -> str:
    grant = await identities.grant(token)
    assert grant.scope is Scope.NOTHING
    assert not grant.name
    return grant.refusal


async def test_a_token_of_the_issuer_grants_what_its_rule_says(issuer: Issuer, identities: Identities, key: Key) -> None:
    token = issuer.token(key)
    for _ in range(3):
        assert await identities.grant(token) == Grant(Scope.PUSH, f"{issuer.url} {SUB}")
    assert issuer.fetches == 1


@pytest.mark.parametrize(
    "make",
    [
        rsa_key,
        lambda: rsa_key(algorithm="RS512"),
        lambda: rsa_key(algorithm="PS256"),
        ec_key,
        lambda: ec_key(algorithm="ES384"),
        lambda: ec_key(algorithm="ES512"),
        ed_key,
        lambda: rsa_key(None),
    ],
    ids=["RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA", "without a name"],
)
async def test_all_algorithms_with_public_keys_are_known(start_issuer: Callable[..., Issuer], make: Callable[[], Key]) -> None:
    made = make()
    for has_algorithm in (True, False):
        issuer = start_issuer(made)
        if not has_algorithm:
            del issuer.keys[0]["alg"]
        assert (await Identities([rule(issuer)]).grant(issuer.token(made))).scope is Scope.PUSH


async def test_the_widest_of_the_rules_that_match_counts(issuer: Issuer, key: Key) -> None:
    rules = [
        rule(issuer, Scope.PULL),
        rule(issuer, Scope.PUSH, sub=SUB, cache="team-a"),
        rule(issuer, Scope.ADMIN, sub="repo:other/*"),
    ]
    grant = await Identities(rules).grant(issuer.token(key))
    assert (grant.scope, grant.cache) == (Scope.PUSH, "team-a")


async def test_a_rule_is_for_its_own_issuer(start_issuer: Callable[..., Issuer], key: Key) -> None:
    """Both have the same key, so only the rule tells them apart."""
    one, other = start_issuer(key), start_issuer(key)
    both = Identities([rule(one, Scope.PULL), rule(other, Scope.PUSH, sub="admin")])
    assert (await both.grant(one.token(key))).scope is Scope.PULL
    assert "no rule lets" in await refusal(both, one.token(key, sub="admin"))
    assert "no rule lets" in await refusal(both, other.token(key))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"aud": "other"}, "no rule lets http"),
        ({"aud": ["other"]}, "no rule lets http"),
        ({"aud": None}, "missing the \"aud\" claim"),
        ({"sub": "repo:evil/app"}, "no rule lets http"),
        ({"sub": None}, "no rule lets http"),
        ({"sub": ["repo:team/app"]}, "Subject must be a string"),
        ({"exp": None}, "missing the \"exp\" claim"),
        ({"iat": None}, "missing the \"iat\" claim"),
        ({"iss": None}, "its issuer is not known here"),
        ({"iss": 5}, "its issuer is not known here"),
        ({"iss": ["http://127.0.0.1"]}, "its issuer is not known here"),
        ({"iss": "https://other.example.org"}, "its issuer is not known here"),
        ({"exp": 5}, "Signature has expired"),
        ({"exp": True}, "Signature has expired"),
        ({"exp": -1}, "Signature has expired"),
        ({"exp": float("nan")}, "must be an integer"),
        ({"exp": float("inf")}, "must be an integer"),
        ({"exp": "soon"}, "must be an integer"),
        ({"exp": [1 << 40]}, "must be an integer"),
        ({"exp": 10**400}, "the identity token is not good"),
        ({"iat": 1 << 40}, "not yet valid"),
        ({"iat": float("nan")}, "must be an integer"),
        ({"nbf": 1 << 40}, "not yet valid"),
    ],
    ids=repr,
)  # fmt: skip
async def test_claims_that_are_not_good_grant_nothing(
    issuer: Issuer, identities: Identities, key: Key, more: dict[str, Any], line: str
) -> None:
    token = issuer.token(key, **more)
    assert line in await refusal(identities, token)
    assert token not in await refusal(identities, token)


async def test_an_end_far_away_or_broken_is_as_good_as_any(issuer: Issuer, identities: Identities, key: Key) -> None:
    for exp in (1 << 50, 1e18, time.time() + 0.5):
        assert (await identities.grant(issuer.token(key, exp=exp))).scope is Scope.PUSH


async def test_clocks_may_differ_by_a_minute_and_no_more(issuer: Issuer, identities: Identities, key: Key) -> None:
    now = time.time()
    assert (await identities.grant(issuer.token(key, exp=now - 50))).scope is Scope.PUSH
    assert "expired" in await refusal(identities, issuer.token(key, exp=now - 70))
    assert (await identities.grant(issuer.token(key, iat=now + 50, nbf=now + 50))).scope is Scope.PUSH
    assert "not yet valid" in await refusal(identities, issuer.token(key, iat=now + 70))
    assert "not yet valid" in await refusal(identities, issuer.token(key, nbf=now + 70))


async def test_a_grant_is_not_remembered_beyond_the_end_of_its_token(
    issuer: Issuer, identities: Identities, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities_module, "_SKEW", 0.0)
    token = issuer.token(key, exp=time.time() + 1)
    # The library takes whole seconds alone.
    assert (await identities.grant(token)).scope in {Scope.PUSH, Scope.NOTHING}
    await asyncio.sleep(1.2)
    assert "expired" in await refusal(identities, token)


async def test_no_more_grants_are_remembered_than_fit(
    issuer: Issuer, identities: Identities, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities_module, "_REMEMBERED", 3)
    for number in range(10):
        assert (await identities.grant(issuer.token(key, jti=str(number)))).scope is Scope.PUSH
        await refusal(identities, issuer.token(key, sub=str(number)))
        await refusal(identities, f"{number}.b.c")
    assert len(identities._kept) == 3


async def test_forged_tokens_grant_nothing(issuer: Issuer, identities: Identities, key: Key, foreign_key: Key) -> None:
    good = issuer.token(key)
    assert (await identities.grant(good)).scope is Scope.PUSH
    head, body, signature = good.split(".")
    claims = issuer.claims()
    public = json.dumps(issuer.keys[0]).encode()
    hs = encoded({"alg": "HS256", "kid": "rsa"}) + b"." + encoded(claims)
    deep = b"{" + b'"a":{' * 1500
    forged = {
        "by another key": signed(foreign_key, claims),
        "no signature": f"{head}.{body}.",
        "another body": f"{head}.{encoded({**claims, 'sub': 'repo:team/other'}).decode()}.{signature}",
        "another head": f"{encoded({'alg': 'RS384', 'kid': 'rsa'}).decode()}.{body}.{signature}",
        "none": f"{encoded({'alg': 'none'}).decode()}.{body}.",
        "None with a key": f"{encoded({'alg': 'None', 'kid': 'rsa'}).decode()}.{body}.{signature}",
        "no algorithm": f"{encoded({'kid': 'rsa'}).decode()}.{body}.{signature}",
        "a list of algorithms": f"{encoded({'alg': ['RS256'], 'kid': 'rsa'}).decode()}.{body}.{signature}",
        "the public key as a secret": f"{hs.decode()}.{encoded(hmac.digest(public, hs, 'sha256')).decode()}",
        "its own key": signed(foreign_key, claims, jwk=foreign_key.public()),
        "keys elsewhere": signed(foreign_key, claims, jku="https://evil.example.org/keys", x5u="https://evil.example.org/x"),
        "its own certificate": signed(foreign_key, claims, x5c=["AAAA"]),
        "extensions": signed(key, claims, crit=["exp"], exp=1),
        "an empty list of extensions": signed(key, claims, crit=[]),
        "a body apart": signed(key, claims, b64=False),
        "a key that nobody has": signed(key, claims, kid="other"),
        "a key without a name": signed(foreign_key, claims, kid=None),
        "a name that is none": signed(key, claims, kid=5),
        "a name that is a list": signed(key, claims, kid=["rsa"]),
        "a path for a name": signed(foreign_key, claims, kid="../../../../dev/null"),
        "no object": signed(key, [claims]),
        "no JSON": signed(key, b"claims"),
        "deep": f"{encoded(b'[' * 3000).decode()}.{body}.{signature}",
        "deep claims": f"{head}.{encoded(b'[' * 4000).decode()}.{signature}",
        "a deep object": f"{head}.{encoded(deep).decode()}.{signature}",
        "a huge number": f"{head}.{encoded(b'1' * 5000).decode()}.{signature}",
        "dots": "..",
        "letters": "a.b.c",
        "not ASCII": "ä.ö.ü",
    }  # fmt: skip
    for what, token in forged.items():
        assert await refusal(identities, token), what
    assert issuer.fetches <= 2


async def test_headers_that_name_keys_elsewhere_are_passed_over(issuer: Issuer, identities: Identities, key: Key) -> None:
    token = signed(key, issuer.claims(), jku=f"{issuer.url}/evil", x5u=f"{issuer.url}/evil", jwk={"kty": "oct", "k": "AA"})
    assert (await identities.grant(token)).scope is Scope.PUSH
    assert not any("evil" in path for path in issuer.asked)


async def test_a_key_serves_its_own_algorithm_alone(start_issuer: Callable[..., Issuer]) -> None:
    made = rsa_key(algorithm="RS256")
    issuer = start_issuer(made)
    as_512 = Key("rsa", "RS512", made.private)
    assert "another algorithm" in await refusal(Identities([rule(issuer)]), issuer.token(as_512))


async def test_keys_that_are_not_for_signatures_are_left_out(start_issuer: Callable[..., Issuer], key: Key) -> None:
    issuer = start_issuer()
    strange: list[Any] = [
        None,
        "key",
        {},
        {"kty": "oct", "k": "AAAA", "kid": "rsa"},
        key.public(use="enc"),
        {**key.public(), "kid": ["rsa"]},
        {**key.public(), "n": "!"},
        {**key.public(), "alg": "HS256"},
        {**key.public(), "alg": ["RS256"]},
        {"kty": "EC", "crv": "P-1", "x": "AA", "y": "AA", "kid": "rsa"},
        {"kty": "OKP", "crv": "X25519", "x": "AA", "kid": "rsa"},
    ]
    issuer.keys = strange
    assert "no such key" in await refusal(Identities([rule(issuer)]), issuer.token(key))
    issuer.keys = [*strange, key.public()]
    assert (await Identities([rule(issuer)]).grant(issuer.token(key))).scope is Scope.PUSH


async def test_rotated_keys_are_found_at_once_by_all_that_ask(issuer: Issuer, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_keys, "_PAUSE", 0.0)
    identities = Identities([rule(issuer)])
    assert (await identities.grant(issuer.token(key))).scope is Scope.PUSH
    monkeypatch.setattr(issuer_keys, "_PAUSE", 60.0)
    new = ec_key("new")
    issuer.keys.append(new.public())
    issuer.before = lambda: time.sleep(0.2)
    grants = await asyncio.gather(*(identities.grant(issuer.token(new, jti=str(n))) for n in range(20)))
    assert {grant.scope for grant in grants} == {Scope.PUSH}
    assert issuer.fetches == 2


async def test_a_withdrawn_key_is_good_until_the_keys_are_looked_at_anew(
    issuer: Issuer, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "_PAUSE", 0.0)
    monkeypatch.setattr(issuer_keys, "_KEPT", 0.3)
    identities = Identities([rule(issuer)])
    token = issuer.token(key)
    assert (await identities.grant(token)).scope is Scope.PUSH
    issuer.keys = [ec_key().public()]
    await asyncio.sleep(0.4)
    assert "no such key" in await refusal(identities, issuer.token(key, jti="another"))


async def test_made_up_names_of_keys_let_the_issuer_alone(issuer: Issuer, identities: Identities, key: Key) -> None:
    assert (await identities.grant(issuer.token(key))).scope is Scope.PUSH
    made_up = [signed(key, issuer.claims(), kid=f"made up {n}") for n in range(200)]
    assert all("no such key" in each.refusal for each in await asyncio.gather(*map(identities.grant, made_up)))
    assert issuer.fetches == 1
    keys = identities._keys[issuer.url]
    assert len(keys._keys) == 1


async def test_who_asks_and_leaves_does_not_keep_the_keys_away(issuer: Issuer, identities: Identities, key: Key) -> None:
    issuer.before = lambda: time.sleep(0.3)
    asking = asyncio.create_task(identities.grant(issuer.token(key)))
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.wait({asking})
    assert (await identities.grant(issuer.token(key))).scope is Scope.PUSH
    assert issuer.fetches == 1


async def test_while_an_issuer_is_slow_known_keys_are_good_and_few_wait(
    issuer: Issuer, identities: Identities, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "_PAUSE", 0.0)
    assert (await identities.grant(issuer.token(key))).scope is Scope.PUSH
    monkeypatch.setattr(issuer_keys, "_MOST_WAITING", 3)
    go_on = threading.Event()
    issuer.before = go_on.wait
    waiting = [asyncio.create_task(identities.grant(signed(key, issuer.claims(), kid=f"made up {n}"))) for n in range(10)]
    await asyncio.sleep(0.1)
    assert sum(task.done() for task in waiting) == 7
    assert (await asyncio.wait_for(identities.grant(issuer.token(key, jti="new")), 1)).scope is Scope.PUSH
    go_on.set()
    assert all("no such key" in grant.refusal for grant in await asyncio.gather(*waiting))
    assert issuer.fetches == 2


async def test_an_issuer_that_never_answers_is_given_up(
    issuer: Issuer, identities: Identities, key: Key, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(issuer_keys, "_TIME", 2.0)
    go_on = threading.Event()
    issuer.before = go_on.wait
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            assert "cannot be fetched now" in await refusal(identities, issuer.token(key))
    go_on.set()
    assert issuer.fetches == 1
    assert [record.getMessage() for record in caplog.records] == [f"the keys of {issuer.url} cannot be fetched: TimeoutError"]


async def test_an_issuer_that_is_down_is_asked_again_later(
    start_issuer: Callable[..., Issuer], key: Key, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(issuer_keys, "_PAUSE", 0.2)
    issuer = start_issuer(key)
    identities = Identities([rule(issuer)])
    issuer.status = 503
    with caplog.at_level(logging.ERROR):
        for _ in range(10):
            assert await refusal(identities, issuer.token(key)) == f"the keys of {issuer.url} cannot be fetched now"
    assert issuer.fetches == 1
    assert len(caplog.records) == 1
    issuer.status = 200
    await asyncio.sleep(0.25)
    assert (await identities.grant(issuer.token(key))).scope is Scope.PUSH


KEYS = "/keys"
DISCOVERY = "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("path", "body", "line"),
    [
        (DISCOVERY, b"{}", "calls itself 'None'"),
        (DISCOVERY, b"[]", "is no JSON object"),
        (DISCOVERY, b"<html>", "Expecting value"),
        (DISCOVERY, b"", "Expecting value"),
        (DISCOVERY, b'{"issuer": "https://other.example.org"}', "calls itself 'https://other.example.org'"),
        (DISCOVERY, b"[" * 200_000, "recursion"),
        (DISCOVERY, b" " * (2 << 20), "has more than 1048576 bytes"),
        (KEYS, b" " * (2 << 20), "has more than 1048576 bytes"),
        (KEYS, b"null", "is no JSON object"),
        (KEYS, b"1" * 10_000, "digits"),
    ],
    ids=lambda value: repr(value[:20]),
)
async def test_an_issuer_that_answers_nonsense_is_one_line_in_the_log(
    issuer: Issuer, identities: Identities, key: Key, caplog: pytest.LogCaptureFixture, path: str, body: bytes, line: str
) -> None:
    issuer.documents[path] = body
    with caplog.at_level(logging.ERROR):
        assert "cannot be fetched now" in await refusal(identities, issuer.token(key))
    [record] = caplog.records
    assert line in record.getMessage()
    assert len(record.getMessage()) < 1000


@pytest.mark.parametrize("where", ["http://keys.example.org/", "ftp://127.0.0.1/keys", "/keys", 5, None, "https://a@b/keys"])
async def test_keys_come_over_tls_or_from_this_machine(issuer: Issuer, identities: Identities, key: Key, where: object) -> None:
    issuer.documents[DISCOVERY] = json.dumps({"issuer": issuer.url, "jwks_uri": where}).encode()
    assert "cannot be fetched now" in await refusal(identities, issuer.token(key))
    assert issuer.asked == [DISCOVERY]


async def test_redirects_are_not_followed(
    issuer: Issuer, identities: Identities, key: Key, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.status = 302
    issuer.headers["Location"] = f"{issuer.url}/elsewhere"
    with caplog.at_level(logging.ERROR):
        assert "cannot be fetched now" in await refusal(identities, issuer.token(key))
    assert "is answered with status 302" in caplog.text
    assert issuer.asked == [DISCOVERY]


@pytest.mark.parametrize("keys", [{}, {"keys": None}, {"keys": {}}, {"keys": []}, {"keys": [[]] * 1000}], ids=repr)
async def test_an_issuer_without_keys_has_none(issuer: Issuer, identities: Identities, key: Key, keys: object) -> None:
    issuer.documents[KEYS] = json.dumps(keys).encode()
    assert "no such key" in await refusal(identities, issuer.token(key))


async def test_no_more_keys_are_kept_than_fit(issuer: Issuer, key: Key) -> None:
    issuer.keys = [ec_key(str(number)).public() for number in range(150)]
    keys = IssuerKeys(issuer.url)
    assert await keys.key("99") is not None
    assert await keys.key("100") is None


async def test_an_issuer_gets_no_credentials_of_a_netrc_file(
    issuer: Issuer, identities: Identities, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert (await identities.grant(issuer.token(key))).scope is Scope.PUSH
    assert "authorization" not in issuer.last


async def test_over_tls_an_issuer_has_a_certificate_that_is_trusted(
    start_issuer: Callable[..., Issuer], key: Key, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(TLS / "localhost.pem", TLS / "localhost.key")
    issuer = start_issuer(key, tls=server)
    monkeypatch.delenv("NIX_SSL_CERT_FILE", raising=False)
    with caplog.at_level(logging.ERROR):
        assert "cannot be fetched now" in await refusal(Identities([rule(issuer)]), issuer.token(key))
    assert "certificate verify failed" in caplog.text
    monkeypatch.setenv("NIX_SSL_CERT_FILE", str(TLS / "localhost.pem"))
    assert (await Identities([rule(issuer)]).grant(issuer.token(key))).scope is Scope.PUSH


async def test_an_issuer_that_nobody_is_at(key: Key, start_issuer: Callable[..., Issuer]) -> None:
    keys = IssuerKeys("http://127.0.0.1:1")
    with pytest.raises(UnavailableError, match=r"^the keys of http://127.0.0.1:1 cannot be fetched now$"):
        await keys.key("rsa")
