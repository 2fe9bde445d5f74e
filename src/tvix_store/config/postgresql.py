"""Addresses of databases: `postgresql://user:password@host:port/database`, also `postgres://`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tvix_store.config.scheme import Opening, Scheme
from tvix_store.config.size_rule import read_size_rule
from tvix_store.errors import InvalidError, UnsupportedError
from tvix_store.layers.noting_uses import noting_uses
from tvix_store.model.address import Address, without_secrets
from tvix_store.services.offer import Offer

if TYPE_CHECKING:
    from tvix_store.backends.postgresql import Settings

_SCHEMA = re.compile("[a-z_][a-z0-9_]{0,62}")
_MOST_CONNECTIONS = 1000
_LONGEST = 3600
"""Seconds."""


def _read_schema(text: str) -> str:
    if _SCHEMA.fullmatch(text) is None:
        raise InvalidError(f"a schema has a-z, 0-9 and _ in its name, up to 63 of them, not {text!r}")
    return text


def _read_pool(text: str) -> int:
    connections = int(text)
    if not 1 <= connections <= _MOST_CONNECTIONS:
        raise ValueError(text)
    return connections


def _read_timeout(text: str) -> float:
    seconds = int(text)
    if not 1 <= seconds <= _LONGEST:
        raise ValueError(text)
    return float(seconds)


def _read_ports(text: str) -> str:
    """A port for each host."""
    if not all(port.isdecimal() for port in text.split(",")):
        raise ValueError(text)
    return text


def _read_file(text: str) -> str:
    """The driver looks at files when it connects, and does not say which one it misses."""
    if not Path(text).is_file():
        raise InvalidError(f"there is no file {text}")
    return text


_OURS: dict[str, Callable[[str], object]] = {
    "schema": _read_schema,
    "pool": _read_pool,
    "timeout": _read_timeout,
    "size_rule": read_size_rule,
}
_OF_LIBPQ: dict[str, Callable[[str], str]] = {
    "host": str,
    "port": _read_ports,
    "user": str,
    "password": str,
    "passfile": _read_file,
    "service": str,
    "sslmode": str,
    "sslrootcert": _read_file,
    "sslcert": _read_file,
    "sslkey": _read_file,
    "sslpassword": str,
    "sslcrl": _read_file,
    "sslnegotiation": str,
    "ssl_min_protocol_version": str,
    "ssl_max_protocol_version": str,
    "target_session_attrs": str,
    "krbsrvname": str,
}
"""Parameters that are the driver's, with the names of libpq. What the driver does not know would become a setting of the server."""


async def open_address(address: Address, opening: Opening) -> Offer:
    """Open `postgresql://user:password@host:port/database?schema=NAME&pool=CONNECTIONS&timeout=SECONDS&size_rule=documented|snix`.

    Parameters of libpq, such as `sslmode` and `host`, are the driver's. What the address leaves out comes from the environment, as
    with all clients of PostgreSQL (`PGHOST`, `PGPASSFILE`, …).

    Raises:
        InvalidError: the address is malformed.
        UnsupportedError: the driver is not installed.
        StoreError: as `postgresql.open_offer`.
    """
    ours = address.read_parameters(_OURS | _OF_LIBPQ)
    of_libpq = "&".join(f"{name}={quote(ours.pop(name), safe='')}" for name in _OF_LIBPQ if name in ours)
    size_rule = ours.pop("size_rule", None)
    name = without_secrets(address.text)
    if "host" in address.parameters:
        name += f" at {address.parameters['host']}"
    try:
        from tvix_store.backends import postgresql
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise UnsupportedError(f"{name}: the driver is not installed: pip install 'tvix-store[postgresql]'") from None
    settings: Settings = postgresql.Settings(f"{address.location}?{of_libpq}".rstrip("?"), name, **ours)
    offer = await postgresql.open_offer(settings, store_dir=opening.store_dir, size_rule=size_rule, create=opening.create)
    if opening.as_worker:
        return offer
    try:
        return await noting_uses(offer)
    except BaseException:
        await offer.close()
        raise


SCHEME = Scheme(open_address)
