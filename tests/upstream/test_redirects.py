"""Where a cache may send us, and what goes along."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.upstream.conftest import Before
from tests.upstream.server import KEY, Behaviour, CacheServer, cached, own_address, raw, redirect, serving, status
from tvix_store.backends.nix_http.forbidden import is_forbidden, is_forbidden_host

PATH = cached(b"behind a redirect")


@pytest.fixture
async def elsewhere() -> AsyncIterator[CacheServer]:
    """A cache at an address of this machine that others could have too."""
    address = own_address()
    if address is None or ip_address(address).is_loopback:
        pytest.skip("this machine has no address but loopback")
    async with serving(address) as server:
        yield server


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(cache: CacheServer, elsewhere: CacheServer, before: Before, code: int) -> None:
    elsewhere.publish(PATH)
    cache.answers[PATH.narinfo_path] = redirect(elsewhere.origin + PATH.narinfo_path, code)
    cache.answers[PATH.nar_path] = redirect(elsewhere.origin + PATH.nar_path, code)
    assert await (await before(cache)).get(PATH.output_hash)


@pytest.mark.parametrize("location", ["/moved", "moved", "?moved", "{origin}/moved", "//{host}/moved"])
async def test_a_cache_may_redirect_to_itself_wherever_it_is(cache: CacheServer, before: Before, location: str) -> None:
    location = location.format(origin=cache.origin, host=cache.origin.removeprefix("http://"))
    cache.publish(PATH)
    cache.answers[PATH.narinfo_path] = redirect(location)
    cache.answers["/moved"] = PATH.narinfo.format()
    cache.answers[f"{PATH.narinfo_path}?moved"] = PATH.narinfo.format()
    assert await (await before(cache)).get(PATH.output_hash)


async def test_the_query_of_a_redirect_arrives_as_it_was_written(
    cache: CacheServer, elsewhere: CacheServer, before: Before
) -> None:
    query = "/x?X-Amz-Signature=a%2Fb%2fc+d%20e&y=%E2%82%AC~!*'()"
    elsewhere.answers[query] = PATH.file
    cache.publish(PATH)
    cache.answers[PATH.nar_path] = redirect(elsewhere.origin + query)
    assert await (await before(cache)).get(PATH.output_hash)


async def test_this_machine_is_no_target(
    cache: CacheServer, other_cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture
) -> None:
    other_cache.publish(PATH)
    cache.answers[PATH.narinfo_path] = redirect(other_cache.origin + PATH.narinfo_path)
    assert await (await before(cache)).get(PATH.output_hash) is None
    assert other_cache.connections == 0
    assert "it leads to 127.0.0.1, which is refused" in caplog.text


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "x.localhost."]
)
async def test_this_machine_by_another_name_is_no_target(
    cache: CacheServer, other_cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    other_cache.publish(PATH)
    cache.answers[PATH.narinfo_path] = redirect(f"http://{host}:{other_cache.port}{PATH.narinfo_path}")
    assert await (await before(cache)).get(PATH.output_hash) is None
    assert other_cache.connections == 0
    assert "which is refused" in caplog.text


async def test_the_url_of_a_nar_leads_no_further_than_a_redirect(
    cache: CacheServer, other_cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache.publish(PATH.but(url=f"{other_cache.origin}/nar"))
    other_cache.answers["/nar"] = path.file
    assert await (await before(cache)).get(path.output_hash) is None
    assert other_cache.connections == 0
    assert "which is refused" in caplog.text


async def test_a_redirect_from_elsewhere_back_to_the_cache_is_followed(
    cache: CacheServer, elsewhere: CacheServer, before: Before
) -> None:
    cache.publish(PATH)
    cache.answers[PATH.nar_path] = redirect(f"{elsewhere.origin}/back")
    elsewhere.answers["/back"] = redirect(f"{cache.origin}/nar")
    cache.answers["/nar"] = PATH.file
    assert await (await before(cache)).get(PATH.output_hash)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["::1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], ["127.0.0.1", "::1"]])
async def test_a_name_that_resolves_to_this_machine_is_no_target(
    cache: CacheServer,
    other_cache: CacheServer,
    before: Before,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    addresses: list[str],
) -> None:
    resolve(monkeypatch, addresses)
    other_cache.publish(PATH)
    cache.answers[PATH.narinfo_path] = redirect(f"http://rebound.example:{other_cache.port}{PATH.narinfo_path}")
    assert await (await before(cache)).get(PATH.output_hash) is None
    assert other_cache.connections == 0
    assert f"it leads to {addresses[0]}, which is refused" in caplog.text.replace("::ffff:7f00:1", "::ffff:127.0.0.1")


async def test_of_a_names_addresses_only_the_others_are_connected_to(
    cache: CacheServer, elsewhere: CacheServer, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server listens at both addresses, on the same port."""
    async with serving("127.0.0.1") as unlisted:
        resolve(monkeypatch, ["127.0.0.1", elsewhere.host])
        elsewhere.publish(PATH)
        cache.answers[PATH.narinfo_path] = redirect(f"http://both.example:{elsewhere.port}{PATH.narinfo_path}")
        cache.answers[PATH.nar_path] = PATH.file
        assert await (await before(cache)).get(PATH.output_hash)
        assert unlisted.connections == 0


async def test_a_name_that_resolves_anew_at_every_question_gains_nothing(
    cache: CacheServer, elsewhere: CacheServer, other_cache: CacheServer, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [[elsewhere.host], ["127.0.0.1"]]
    asked = resolve(monkeypatch, answers[0], *answers[1:])
    other_cache.publish(PATH)
    cache.answers[PATH.narinfo_path] = redirect(f"http://rebound.example:{other_cache.port}{PATH.narinfo_path}")
    front = await before(cache, pause=0)
    for _ in range(3):
        assert await front.get(PATH.output_hash) is None
    assert asked
    assert other_cache.connections == 0


async def test_credentials_of_the_url_go_to_the_cache_and_nowhere_else(
    cache: CacheServer, elsewhere: CacheServer, before: Before
) -> None:
    cache.answers[PATH.narinfo_path] = redirect("/moved")
    cache.answers["/moved"] = PATH.narinfo.format()
    cache.answers[PATH.nar_path] = redirect(f"{elsewhere.origin}/nar")
    elsewhere.answers["/nar"] = redirect(f"{cache.origin}/back")
    cache.answers["/back"] = PATH.file
    url = cache.url.replace("://", "://me:p%40ss@")
    assert await (await before(url)).get(PATH.output_hash)
    expected = "Basic " + base64.b64encode(b"me:p@ss").decode().lower()
    sent = {request.path: (request.headers.get("authorization") or "").replace("basic", "Basic") for request in cache.requests}
    assert {path: value.lower() for path, value in sent.items()} == {
        "/nix-cache-info": expected.lower(),
        PATH.narinfo_path: expected.lower(),
        "/moved": expected.lower(),
        PATH.nar_path: expected.lower(),
        "/back": "",
    }
    assert ["authorization" in request.headers for request in elsewhere.requests] == [False]


async def test_credentials_of_netrc_go_to_the_cache_and_nowhere_else(
    cache: CacheServer, elsewhere: CacheServer, before: Before, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login a password b\nmachine {elsewhere.host} login c password d\n")
    cache.publish(PATH)
    cache.answers[PATH.nar_path] = redirect(f"{elsewhere.origin}/nar")
    elsewhere.answers["/nar"] = PATH.file
    assert await (await before(cache)).get(PATH.output_hash)
    assert {request.headers.get("authorization") for request in cache.requests} == {
        "basic " + base64.b64encode(b"a:b").decode().lower()
    }
    assert ["authorization" in request.headers for request in elsewhere.requests] == [False]


async def test_credentials_are_in_no_message(cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture) -> None:
    cache.answers[PATH.narinfo_path] = raw(b"nonsense")
    assert await (await before(cache.url.replace("://", "://me:secret@"))).get(PATH.output_hash) is None
    assert caplog.records
    assert "secret" not in caplog.text
    assert "me" not in caplog.text.split("substituter ")[-1].split(" ")[0]


@pytest.mark.parametrize("answer", [status(500), raw(b"nonsense"), raw(b""), redirect("ftp://me:secret@host/?secret")])
async def test_signatures_of_urls_are_in_no_message(
    cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture, answer: Behaviour
) -> None:
    path = PATH.but(url="nar/file.nar?X-Amz-Signature=secret")
    cache.publish(path)
    cache.answers[path.nar_path] = answer
    assert await (await before(cache)).get(PATH.output_hash) is None
    assert caplog.records
    assert "secret" not in caplog.text


async def test_a_proxy_of_the_environment_is_used(
    cache: CacheServer, other_cache: CacheServer, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", other_cache.origin.replace("://", "://u:p@"))
    path = cached()
    base = "http://cache.example"
    other_cache.answers[f"{base}/nix-cache-info"] = b"StoreDir: /nix/store\n"
    other_cache.answers[base + path.narinfo_path] = redirect("http://nars.example/x.narinfo")
    other_cache.answers["http://nars.example/x.narinfo"] = path.narinfo.format()
    other_cache.answers[base + path.nar_path] = path.file
    assert await (await before(f"{base}?trusted-public-keys={KEY.public}")).get(path.output_hash)
    assert {request.headers.get("proxy-authorization") for request in other_cache.requests} == {
        "basic " + base64.b64encode(b"u:p").decode().lower()
    }
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    cache.publish(path)
    assert await (await before(cache)).get(path.output_hash)


async def test_a_proxy_does_not_open_the_way_to_what_is_refused(
    other_cache: CacheServer, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", other_cache.origin)
    other_cache.answers[f"http://cache.example{PATH.narinfo_path}"] = redirect("http://169.254.169.254/secrets")
    assert await (await before(f"http://cache.example?trusted-public-keys={KEY.public}")).get(PATH.output_hash) is None
    assert other_cache.asked("http://169.254.169.254/secrets") == 0


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "169.254.1.1", "224.0.0.1", "::", "::1", "fe80::1", "fe80::1%2", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:169.254.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_link_are_forbidden(address: str) -> None:
    assert is_forbidden(ip_address(address))
    assert is_forbidden_host(address)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "192.0.2.1", "8.8.8.8", "2001:db8::1", "fd00::1", "::ffff:8.8.8.8"])
def test_other_addresses_are_allowed(address: str) -> None:
    assert not is_forbidden(ip_address(address))
    assert not is_forbidden_host(address)


def resolve(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let every name resolve to the first answer, then to the next; the last stays. Returns the names asked for, as they come."""
    left, asked = list(answers), []
    loop = asyncio.get_running_loop()

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [
            (
                socket.AF_INET6 if ":" in each else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (each, port, 0, 0) if ":" in each else (each, port),
            )
            for each in addresses
        ]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked
