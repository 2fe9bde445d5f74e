"""What stands in the URL of a cache beside its place: Nix's own parameters are understood, or ignored and said to be."""

from __future__ import annotations

import logging

import pytest

from tvix_store.backends.nix_http import CacheAddress
from tvix_store.config import open_store
from tvix_store.config.substituters import checked_urls
from tvix_store.errors import InvalidError
from tvix_store.model.cache_terms import without_ignored


@pytest.mark.parametrize(
    ("query", "required"),
    [
        ("", True),
        ("trusted=1", False),
        ("trusted=true", False),
        ("trusted=yes", False),
        ("trusted=0", True),
        ("trusted=no", True),
        ("require-signatures=no", False),
        ("require-signatures=false&trusted=true", False),
        ("require-signatures=true&trusted=false", True),
    ],
)
def test_a_trusted_cache_needs_no_signatures(query: str, required: bool) -> None:
    assert CacheAddress.parse(f"https://cache.example?{query}").terms.require_signatures is required


@pytest.mark.parametrize("query", ["trusted=1&require-signatures=true", "trusted=0&require-signatures=0"])
def test_trust_is_not_said_both_ways(query: str) -> None:
    with pytest.raises(InvalidError, match=r"trusted and require-signatures say the opposite"):
        CacheAddress.parse(f"https://cache.example?{query}")


NIX = "want-mass-query=1&compression=zstd&parallel-compression=true&real=/nix/store&secret-key=/etc/key&path-info-cache-size=0"


NAMES = "want-mass-query, compression, parallel-compression, real, secret-key, path-info-cache-size"


def test_what_means_nothing_here_is_ignored_and_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    address = CacheAddress.parse(f"https://cache.example?{NIX}&priority=30&compression=xz")
    assert address.terms.priority == 30
    assert checked_urls([f"https://cache.example?{NIX}&priority=30", "https://b.example"]) == [
        "https://cache.example?priority=30",
        "https://b.example",
    ]
    assert [record.getMessage() for record in caplog.records] == [
        f"substituter https://cache.example: ignored, since it means nothing here: {NAMES}"
    ]
    assert without_ignored(f"https://cache.example?{NIX}")[0] == "https://cache.example"


async def test_who_opens_a_store_hears_of_it_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with await open_store("memory://", substituters=["http://cache.example?trusted=1&want-mass-query=1"]):
            pass
    assert "ignored, since it means nothing here: want-mass-query" in caplog.text


@pytest.mark.parametrize("query", ["colour=1", "Compression=xz", "compresion=xz", "ssh-key=x"])
def test_what_neither_nix_knows_is_refused(query: str) -> None:
    with pytest.raises(InvalidError, match=r"unknown parameter .* \(known: trusted-public-keys, .*priority"):
        CacheAddress.parse(f"https://cache.example?{query}")


@pytest.mark.parametrize("query", ["trusted=maybe", "trusted=", "priority=low", "trusted=1&trusted=1"])
def test_a_value_that_is_none_is_refused(query: str) -> None:
    with pytest.raises(InvalidError, match=r"(is not a value for|twice)"):
        CacheAddress.parse(f"https://cache.example?{query}")


async def test_a_cache_may_say_for_which_store_directory_it_is() -> None:
    urls = ["http://cache.example?trusted=1&store=/gnu/store"]
    async with await open_store("memory://", store_dir="/gnu/store", substituters=urls):
        pass
    with pytest.raises(InvalidError, match=r"it is a cache for '/gnu/store', not for /nix/store"):
        await open_store("memory://", substituters=urls)


@pytest.mark.parametrize("query", ["require-signatures=false", "trusted=1"])
def test_unsigned_paths_are_not_let_in_where_signatures_are_required(query: str) -> None:
    with pytest.raises(InvalidError, match=r"its unsigned paths would be taken, but signatures are required"):
        checked_urls([f"https://me:secret@cache.example?{query}"], require_signatures=True)
    assert checked_urls([f"https://cache.example?{query}"])
