"""Addresses of databases."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tvix_store.backends import postgresql
from tvix_store.backends.postgresql import Settings
from tvix_store.config.scheme import Opening
from tvix_store.config.schemes import open_address
from tvix_store.errors import InvalidError, StoreError, UnsupportedError


async def settings_of(address: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the backend gets for an address."""
    taken: list[Settings] = []

    async def open_offer(settings: Settings, **_: object) -> None:
        taken.append(settings)
        raise StoreError

    monkeypatch.setattr(postgresql, "open_offer", open_offer)
    with pytest.raises(StoreError):
        await open_address(address, Opening())
    return taken[0]


async def test_an_address_alone_leaves_the_rest_to_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("postgresql", "postgres"):
        settings = await settings_of(f"{scheme}://nix:s%40cret@db.example:5433/store", monkeypatch)
        assert settings == Settings(f"{scheme}://nix:s%40cret@db.example:5433/store", f"{scheme}://db.example:5433/store")
        assert (settings.schema, settings.pool, settings.timeout) == ("tvix_store", 10, 30)
    assert (await settings_of("postgresql://", monkeypatch)).dsn == "postgresql://"


async def test_parameters_are_ours_or_those_of_libpq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a+b&c.pem"
    file.touch()
    quoted = str(file).replace("&", "%26")
    address = f"postgresql:///store?schema=team_a&pool=3&sslmode=verify-full&sslrootcert={quoted}&timeout=5&host=/run/pg"
    settings = await settings_of(address, monkeypatch)
    assert (settings.schema, settings.pool, settings.timeout) == ("team_a", 3, 5)
    assert settings.name == "postgresql:///store at /run/pg"
    # As the driver reads it.
    asked = parse_qs(urlsplit(settings.dsn).query, strict_parsing=True)
    assert asked == {"sslmode": ["verify-full"], "sslrootcert": [str(file)], "host": ["/run/pg"]}


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("search_path=x", r"unknown parameter 'search_path' \(known: schema, pool, timeout, size_rule, host, .*sslmode"),
        ("schema=Team", "a schema has a-z, 0-9 and _ in its name, up to 63 of them, not 'Team'"),
        ("pool=0", "'0' is not a value for pool"),
        ("pool=many", "'many' is not a value for pool"),
        ("timeout=0", "'0' is not a value for timeout"),
        ("size_rule=other", "'other' is not a value for size_rule"),
        ("sslmode=perhaps", "sslmode"),
        ("port=none", "'none' is not a value for port"),
        ("sslmode=verify-ca&sslrootcert=/nowhere.pem", "sslrootcert: there is no file /nowhere.pem"),
    ],
)
async def test_a_parameter_that_is_no_good_is_refused(parameter: str, message: str) -> None:
    with pytest.raises(InvalidError, match=rf"^postgresql://127.0.0.1:1/store: .*{message}") as caught:
        await open_address(f"postgresql://nix:secret@127.0.0.1:1/store?{parameter}&password=secret", Opening())
    assert "secret" not in str(caught.value)


async def test_without_the_driver_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("tvix_store.backends.postgresql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("tvix_store.backends.postgresql", raising=False)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(UnsupportedError, match=r"^postgresql://db/store: .*: pip install 'tvix-store\[postgresql\]'$"):
        await open_address("postgresql://db/store", Opening())
