"""What an upstream has said is remembered for a short while, in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tvix_store.layers import recent_offers
from tvix_store.layers.recent_offers import RecentOffers
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import NarFacts
from tvix_store.model.store_path import StorePath
from tvix_store.testing.content import noise


def offer(name: str, references: int = 0) -> NarInfo:
    others = tuple(StorePath(noise(20, f"{name} {number}"), "x") for number in range(references))
    return NarInfo(StorePath(noise(20, name), name), "nar/x", "none", NarFacts(1, bytes(32)), references=others)


def test_a_narinfo_is_remembered_for_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(at=1000.0)
    monkeypatch.setattr(recent_offers, "time", SimpleNamespace(monotonic=lambda: clock.at))
    offers = RecentOffers()
    narinfo = offer("a")
    offers.put(b"a", narinfo)
    clock.at += 29.9
    assert offers.get(b"a") is narinfo
    clock.at += 0.1
    assert offers.get(b"a") is None
    offers.put(b"a", narinfo)
    assert offers.get(b"a") is narinfo
    offers.forget(b"a")
    assert offers.get(b"a") is None


def test_the_oldest_go_first_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_offers, "_MOST_BYTES", 100_000)
    offers = RecentOffers()
    for number in range(1000):
        offers.put(b"%d" % number, offer(f"{number}", references=number % 10))
        offers.put(b"0", offer("0"))  # put anew, it counts once
        assert offers._bytes <= 100_000
    assert 20 <= len(offers._offers) <= 50
    assert offers.get(b"0") is not None
    assert offers.get(b"999") is not None
    assert offers.get(b"1") is None
    for key in list(offers._offers):
        offers.forget(key)
    assert offers._bytes == 0
    offers.put(b"huge", offer("huge", references=1000))
    assert offers.get(b"huge") is None
    assert offers._bytes == 0


def test_what_nobody_has_signed_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream, or whoever stands before it, may pad the URL of a narinfo to 4 MiB."""
    monkeypatch.setattr(recent_offers, "_MOST_BYTES", 1_000_000)
    offers = RecentOffers()
    for number in range(100):
        offers.put(b"%d" % number, replace(offer(f"{number}"), url="nar/" + "x" * 100_000, system="y" * 100_000))
    assert 1 <= len(offers._offers) <= 5
