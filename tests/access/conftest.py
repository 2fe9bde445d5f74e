from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from tests.access.issuer import Issuer, Key, rsa_key
from tests.cli.conftest import tvix_store
from tests.http.conftest import nix, start_daemon

__all__ = ["nix", "start_daemon", "tvix_store"]


@pytest.fixture(scope="session")
def key() -> Key:
    """A key for signatures by RSA, which takes long to make."""
    return rsa_key()


@pytest.fixture(scope="session")
def foreign_key() -> Key:
    """One of somebody else, of the same name."""
    return rsa_key()


@pytest.fixture
def start_issuer() -> Iterator[Callable[..., Issuer]]:
    """Starts issuers with the given keys."""
    with ExitStack() as running:
        yield lambda *keys, **options: running.enter_context(closing(Issuer(*keys, **options)))


@pytest.fixture
def issuer(start_issuer: Callable[..., Issuer], key: Key) -> Issuer:
    """An issuer with one key."""
    return start_issuer(key)
