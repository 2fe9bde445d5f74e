"""Realisations, build traces, logs and debug information come from upstream caches too, checked where that can be done."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator

import brotli
import pytest

from tests.upstream.server import KEY, STRANGER, CacheServer, encoded, raw, stalling, status
from tvix_store.config import open_store
from tvix_store.errors import InvalidError
from tvix_store.model.realisation import Realisation
from tvix_store.model.signature import PublicKey, SecretKey
from tvix_store.services.store import Store
from tvix_store.testing.content import noise

OUTPUT = "sha256:" + "ab" * 32 + "!out"
OTHER = "sha256:" + "cd" * 32 + "!out"
DERIVATION = "0" * 32 + "-app.drv"
PATH = "1" * 32 + "-app"
LOG = "a" * 32 + "-fetched?v=1.drv"


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def realisation(key: SecretKey | None = KEY, output: str = OUTPUT, **changes: object) -> bytes:
    """One as Nix until 2.34 writes it; `changes` are made when it was signed."""
    told: dict[str, object] = {"dependentRealisations": {OTHER: PATH}, "id": output, "outPath": PATH}
    signatures = [str(key.sign(compact(told)))] if key else []
    return compact({**told, "signatures": signatures, **changes})


def build_trace(key: SecretKey | None = KEY, derivation: str = DERIVATION, *, structured: bool = True) -> bytes:
    """One as newer ones write it."""
    value: dict[str, object] = {"outPath": PATH}
    signed = {"key": {"drvPath": derivation, "outputName": "out"}, "value": value}
    signature = key.sign(compact(signed)) if key else None
    if signature is None:
        return compact(value)
    entry = {"keyName": signature.name, "sig": base64.b64encode(signature.data).decode()} if structured else str(signature)
    return compact({**value, "signatures": [entry]})


RECORDED = (
    (
        '{"dependentRealisations":{},"id":"sha256:3c60b1eed16ae058dffb521c6bdcae5d65a61f0b874bcd6973e7607cbad093a3!out"'
        ',"outPath":"bjmjg7hj9ibixa0awaj3qsw7gqwgpy2c-lib","signatures":["up-1:lQmhcxv9KBNB3Jk0gtMRoZ96WroWGsTxjVrGRRTB'
        'zBoairYLVt2FQufdSlwrbgnsq1BCBgTNvxGIuaBf8/SqCw=="]}'
    ),
    (
        '{"dependentRealisations":{"sha256:3c60b1eed16ae058dffb521c6bdcae5d65a61f0b874bcd6973e7607cbad093a3!out":"bjmjg'
        '7hj9ibixa0awaj3qsw7gqwgpy2c-lib"},"id":"sha256:add2632b98322e52c6d9de2088bedb0839ac27d4e9d13a3f86362a578fc8628'
        '0!out","outPath":"f669xws6i24mhbnrli5bbgr0j7hpl6gb-app","signatures":["up-1:cMiAiaYE19gnVyy7UJXXgyqd18BYW5q3xl'
        'RztsvLdYpZnfiLG+smSp+BqdEGWbuuylJiUkg2bLOOwIHqU9R3BQ=="]}'
    ),
    (
        '{"dependentRealisations":{},"id":"sha256:7aebc1d4b56a51bb77deccfd3c833b494bb79cb89ff45c3c0331eea921d1dfc0!out"'
        ',"outPath":"mj52lvabbz1sckwrfgya2gg32x6igm69-app","signatures":["up-1:bId6KlTSDTI05P6vpH+DpzNqqJ/aJKi/jvW3dM8D'
        'Cp2d2hZYYCVVZW3HzfycJDdqzgOfct1nI0zeh2/1yG0KBQ=="]}'
    ),
)
OUTPUT_OF_LIB = json.loads(RECORDED[0])["id"]


def test_what_nix_has_signed_is_good() -> None:
    """Recorded from Nix 2.8, of two derivations, and from 2.34."""
    key = PublicKey.parse("up-1:2ShQZIlN9pTdihLzWYQzsPDvbdOg9ejm2PMHyPYdQ0Q=")
    for text in RECORDED:
        made = Realisation.parse(text.encode(), json.loads(text)["id"])
        assert made.document == text.encode()
        assert made.check_signatures([key]) == 1
    with pytest.raises(InvalidError, match="bad signature by up-1"):
        Realisation.parse(RECORDED[0].replace("-lib", "-bil").encode(), OUTPUT_OF_LIB).check_signatures([key])


async def asked(store: Store, kind: str, name: str) -> bytes | None:
    """The document, whole."""
    assert store.foreign_documents is not None
    got = await store.foreign_documents.get(kind, name)
    if isinstance(got, AsyncGenerator):
        return b"".join([piece async for piece in got])
    return got


@pytest.fixture
async def front(cache: CacheServer, other_cache: CacheServer) -> AsyncIterator[Store]:
    """A store before two caches."""
    urls = [f"{cache.url}&priority=1&narinfo-cache-negative-ttl=60", other_cache.url]
    async with await open_store("memory://", substituters=urls) as store:
        yield store


@pytest.mark.parametrize(
    ("kind", "name", "document"),
    [
        ("realisations", OUTPUT, realisation()),
        ("build-trace-v2", f"{DERIVATION}/out", build_trace()),
        ("build-trace-v2", f"{DERIVATION}/out", build_trace(structured=False)),
    ],
)
async def test_what_is_signed_comes_and_only_as_it_was_signed(
    cache: CacheServer, front: Store, kind: str, name: str, document: bytes
) -> None:
    cache.answers[f"/{kind}/{name}.doi"] = compact({**json.loads(document), "unsigned": "words"})
    assert await asked(front, kind, name) == document


LIES = {
    "nobody has signed": realisation(None),
    "a stranger has signed": realisation(STRANGER),
    "another path": realisation(outPath="2" * 32 + "-app"),
    "other dependencies": realisation(dependentRealisations={}),
    "another output": realisation(output=OTHER),
    "no path": realisation(outPath=None),
    "a path elsewhere": realisation(outPath="/nix/store/" + PATH),
    "a dependency that is none": realisation(dependentRealisations={"x": PATH}),
    "dependencies that are none": realisation(dependentRealisations=[OTHER]),
    "a signature that is none": realisation(signatures=["upstream-1:x"]),
    "a signature of another shape": realisation(signatures=[{"keyName": "a", "sig": "b", "more": "c"}]),
    "a signature in no letters": realisation(signatures=["\ud800:" + "A" * 88]),
    "signatures that are no list": realisation(signatures="x"),
    "too many signatures": realisation(signatures=[str(STRANGER.sign(b"%d" % n)) for n in range(65)]),
    "a list": b"[]",
    "no JSON": b"{",
    "JSON that is too deep": b"[" * 100_000,
    "a number of too many digits": b'{"id": %b}' % (b"7" * 5000),
    "too much": b'"' + b"x" * (1 << 20) + b'"',
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_refused_and_the_next_cache_is_asked(
    cache: CacheServer, other_cache: CacheServer, front: Store, caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    cache.answers[f"/realisations/{OUTPUT}.doi"] = LIES[lie]
    other_cache.answers[f"/realisations/{OUTPUT}.doi"] = realisation()
    assert await asked(front, "realisations", OUTPUT) == realisation()
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"substituter {cache.origin} is refused: ")
    assert len(line) < 600


async def test_a_build_trace_holds_for_its_own_derivation_alone(cache: CacheServer, front: Store) -> None:
    cache.answers[f"/build-trace-v2/{DERIVATION}/out.doi"] = build_trace(derivation="3" * 32 + "-app.drv")
    assert await asked(front, "build-trace-v2", f"{DERIVATION}/out") is None


async def test_a_trusted_cache_needs_no_signatures_but_no_bad_ones_either(cache: CacheServer) -> None:
    cache.answers[f"/realisations/{OUTPUT}.doi"] = realisation(None)
    cache.answers[f"/realisations/{OTHER}.doi"] = realisation(output=OTHER, outPath="2" * 32 + "-app")
    async with await open_store("memory://", substituters=[f"{cache.url}&trusted=1"]) as store:
        assert await asked(store, "realisations", OUTPUT) == realisation(None)
        assert await asked(store, "realisations", OTHER) is None


async def test_what_the_first_cache_lacks_the_next_may_have_and_that_is_remembered(
    cache: CacheServer, other_cache: CacheServer, front: Store
) -> None:
    other_cache.answers[f"/log/{LOG.replace('?', '%3F')}"] = b"built"
    for _ in range(3):
        assert await asked(front, "log", LOG) == b"built"
    assert cache.asked(f"/log/{LOG.replace('?', '%3F')}") == 1


async def test_debug_information_has_two_names(cache: CacheServer, front: Store) -> None:
    told = {"archive": "../nar/x.nar.xz", "member": "lib/debug/x.debug"}
    cache.answers["/debuginfo/abcd"] = compact({**told, "more": 1})
    assert json.loads(await asked(front, "debuginfo", "abcd") or b"") == told
    cache.answers["/debuginfo/abce.debug"] = compact({**told, "member": "../../etc/passwd"})
    assert await asked(front, "debuginfo", "abce") is None


async def test_a_log_comes_in_pieces_and_without_its_encoding(cache: CacheServer, front: Store) -> None:
    large = noise(5 << 20)
    cache.answers[f"/log/{DERIVATION}"] = large
    cache.answers[f"/log/{PATH}.drv"] = encoded(brotli.compress(b"log\n" * 1000), "br")
    assert await asked(front, "log", DERIVATION) == large
    assert await asked(front, "log", f"{PATH}.drv") == b"log\n" * 1000


@pytest.mark.parametrize("code", [400, 401, 405, 500, 501])
async def test_a_cache_that_knows_no_such_files_is_not_taken_for_down(cache: CacheServer, front: Store, code: int) -> None:
    cache.answers[f"/realisations/{OUTPUT}.doi"] = status(code)
    cache.answers[f"/realisations/{OTHER}.doi"] = realisation(output=OTHER)
    assert await asked(front, "realisations", OUTPUT) is None
    assert await asked(front, "realisations", OTHER) == realisation(output=OTHER)


async def test_a_log_that_breaks_off_is_told_to_who_reads_it(cache: CacheServer, front: Store) -> None:
    cache.answers[f"/log/{DERIVATION}"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + noise(2 << 20))
    with pytest.raises(Exception, match=f"{cache.port}/log/{DERIVATION}"):
        await asked(front, "log", DERIVATION)


async def test_streams_that_are_closed_early_make_room_for_others(cache: CacheServer, front: Store) -> None:
    cache.answers[f"/log/{DERIVATION}"] = stalling(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + noise(2 << 20))
    assert front.foreign_documents is not None
    for _ in range(20):
        stream = await front.foreign_documents.get("log", DERIVATION)
        assert isinstance(stream, AsyncGenerator)
        await stream.aclose()
