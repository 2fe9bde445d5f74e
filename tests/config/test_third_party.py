"""A package beside ours adds a scheme by an entry point. The contract suites are the test of its backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tvix_store.config import open_store, schemes
from tvix_store.config.composition import types
from tvix_store.errors import InvalidError, UnsupportedError
from tvix_store.services.store import Store
from tvix_store.testing.contracts import StoreContract

PACKAGES = Path(__file__).parent / "third_party"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package is on the path, as if it were installed."""
    monkeypatch.syspath_prepend(PACKAGES)
    schemes._installed.cache_clear()
    types._installed.cache_clear()
    yield
    schemes._installed.cache_clear()
    types._installed.cache_clear()


class TestToyStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_store("toy:") as store:
            yield store


async def test_a_store_may_be_a_part_of_it() -> None:
    async with await open_store("memory://", blobs="toy:") as store:
        assert type(store.blobs).__name__ == "ToyBlobs"
    async with await open_store("toy:?without=path_infos", path_infos="memory://") as store:
        assert type(store.directories).__name__ == "ToyDirectories"


async def test_what_it_lacks_is_told_by_its_address() -> None:
    with pytest.raises(UnsupportedError, match=r"^toy: has no path infos: give the address of a store that has them$"):
        await open_store("toy:?without=path_infos")


async def test_its_scheme_is_among_the_known_ones() -> None:
    with pytest.raises(InvalidError, match=r"unknown scheme 'tou' \(known: local, .*toy.*\); did you mean toy://\?"):
        await open_store("tou://")


async def test_an_entry_point_that_is_no_scheme_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"^the entry point notascheme of tvix_store.schemes is no Scheme, but <class"):
        await open_store("notascheme:")


def _with_blobs(table: dict[str, object]) -> dict[str, object]:
    return {
        "blobservices": {"root": table},
        "directoryservices": {"root": "memory://"},
        "pathinfoservices": {"root": "memory://"},
    }


async def test_its_type_is_one_of_compositions() -> None:
    async with await open_store(composition=_with_blobs({"type": "toy"})) as store:
        assert type(store.blobs).__name__ == "ToyBlobs"
    with pytest.raises(InvalidError, match=r"^\[blobservices.root\] without: not a text: 5$"):
        await open_store(composition=_with_blobs({"type": "toy", "without": 5}))


async def test_its_type_is_among_the_known_ones() -> None:
    with pytest.raises(InvalidError, match=r"unknown type 'tou' \(known: address, .*toy.*\); did you mean toy\?"):
        await open_store(composition=_with_blobs({"type": "tou"}))


async def test_an_entry_point_that_is_no_type_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"the entry point notatype of tvix_store.types is no type of a composition, but <class"):
        await open_store(composition=_with_blobs({"type": "notatype"}))
