"""Caches behind TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.upstream.conftest import Before
from tests.upstream.server import KEY, cached, serving
from tvix_store.config import open_store
from tvix_store.errors import InvalidError

TLS = Path(__file__).parents[1] / "backends/tls"


@pytest.fixture
def server_side() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "localhost.pem", TLS / "localhost.key")
    return context


@pytest.mark.parametrize("variable", ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"])
async def test_a_cache_is_trusted_by_the_authorities_of_the_environment(
    before: Before, monkeypatch: pytest.MonkeyPatch, server_side: ssl.SSLContext, variable: str
) -> None:
    monkeypatch.setenv(variable, str(TLS / "localhost.pem"))
    async with serving(tls=server_side) as cache:
        path = cache.publish(cached())
        assert await (await before(f"https://localhost:{cache.port}?trusted-public-keys={KEY.public}")).get(path.output_hash)


async def test_a_cache_that_nobody_vouches_for_is_down(
    before: Before, caplog: pytest.LogCaptureFixture, server_side: ssl.SSLContext
) -> None:
    async with serving(tls=server_side) as cache:
        path = cache.publish(cached())
        front = await before(f"https://localhost:{cache.port}?trusted-public-keys={KEY.public}")
        assert await front.get(path.output_hash) is None
        assert "certificate verify failed" in caplog.text
        assert cache.requests == []


async def test_authorities_that_cannot_be_read_are_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NIX_SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(InvalidError, match=r"cannot read the trusted authorities in .*absent\.pem"):
        await open_store("memory://", substituters=["https://localhost?require-signatures=false"])
