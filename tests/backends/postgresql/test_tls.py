"""TLS on the way to a database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.postgresql import Server
from tests.server.certificates import Authority
from tvix_store.backends.postgresql import Settings, open_offer
from tvix_store.errors import InvalidError, UnavailableError


def by_tls(settings: Settings, mode: str, authority: Path | None = None, host: str = "localhost") -> Settings:
    dsn = settings.dsn.replace("127.0.0.1", host).replace("sslmode=disable", f"sslmode={mode}")
    return replace(settings, dsn=dsn + (f"&sslrootcert={authority}" if authority else ""))


async def test_the_certificate_of_a_server_is_checked(server: Server, settings: Settings, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority("other").certificate)
    for mode in ("require", "verify-full"):
        offer = await open_offer(by_tls(settings, mode, server.authority))
        await offer.check()
        await offer.close()
    for refused in (by_tls(settings, "verify-full", other), by_tls(settings, "verify-full", server.authority, "127.0.0.1")):
        with pytest.raises(UnavailableError, match=r"no connection by TLS: .*certificate verify failed"):
            await open_offer(refused)
    with pytest.raises(InvalidError, match="sslmode"):
        await open_offer(by_tls(settings, "sometimes"))
