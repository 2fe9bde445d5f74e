"""The collection that a daemon lets run."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from tests.cli.program import Program
from tvix_store.backends.local import open_store
from tvix_store.backends.local.collection_lock import FILE, collecting
from tvix_store.cli import collecting as collections
from tvix_store.cli.collecting import CollectionTerms, collected
from tvix_store.telemetry import meters
from tvix_store.testing.content import noise


@pytest.fixture
def terms(tvix_store: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CollectionTerms:
    """Those of a store with a path, and content that none needs."""
    for name in ("kept", "gone"):
        (tmp_path / name).write_bytes(noise(300_000, name))
    tvix_store("import", "kept")
    tvix_store("delete", "--quiet", tvix_store("import", "gone"))
    monkeypatch.setattr(collections, "_BEGIN", 0.1)
    monkeypatch.setattr(collections, "_AGAIN", 0.1)
    return CollectionTerms(3600, str(tvix_store.store), tvix_store.store, ("--grace", "0"))


async def until_it_was_run(terms: CollectionTerms) -> None:
    async with asyncio.timeout(60):
        while not (terms.directory / FILE).exists() or meters.COLLECTIONS.of().value == 0:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_a_run_that_is_due_is_a_process_of_its_own(terms: CollectionTerms, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with collected(await open_store(terms.directory), terms):
        await until_it_was_run(terms)
        await asyncio.sleep(0.5)
    assert meters.COLLECTED_BYTES.of().value > 300_000
    assert meters.FREED_BYTES.of().value > 290_000
    assert meters.COLLECTED_AT.of().value > 1_700_000_000
    assert caplog.text.count("collected: 0 paths removed, 30") == 1, "the next one is due in an hour"


async def test_an_older_run_makes_the_next_one_due(terms: CollectionTerms) -> None:
    before = meters.COLLECTIONS.of().value
    with collecting(terms.directory):
        pass
    async with collected(await open_store(terms.directory), terms):
        await asyncio.sleep(0.5)
        assert meters.COLLECTIONS.of().value == before
        os.utime(terms.directory / FILE, (0, 0))
        async with asyncio.timeout(60):
            while meters.COLLECTIONS.of().value == before:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


async def test_a_run_that_fails_is_told(terms: CollectionTerms, caplog: pytest.LogCaptureFixture) -> None:
    failed = meters.COLLECTIONS_FAILED.of()
    before = failed.value
    wrong = CollectionTerms(3600, terms.address, terms.directory, ("--max-size", "much"))
    async with collected(await open_store(terms.directory), wrong):
        async with asyncio.timeout(60):
            while failed.value == before:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
    assert "the collection of" in caplog.text
    assert "not a number of bytes: 'much'" in caplog.text


async def test_a_store_that_is_closed_ends_the_run(terms: CollectionTerms) -> None:
    store = collected(await open_store(terms.directory), terms)
    await asyncio.sleep(0.4)  # it has just begun
    await store.close()
