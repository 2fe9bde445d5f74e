"""observed: what is counted of a store's calls. And `around` knows all methods of all services."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tvix_store.backends.local import open_store as open_local
from tvix_store.errors import CorruptError
from tvix_store.layers.around import METHODS, Kind
from tvix_store.layers.composing import composed
from tvix_store.layers.observed import error_kind, observed
from tvix_store.services.offer import POWERS, Offer, Service
from tvix_store.services.store import Store
from tvix_store.telemetry import meters
from tvix_store.testing.content import collect, diamond, missing, noise, pieces, put_tree, stream
from tvix_store.testing.faults import FaultyBlobs, failing
from tvix_store.testing.trees import TreeFile

MIB = 1 << 20


def composed_of(offer: Offer) -> Store:
    return composed(offer, offer, offer)


def calls(store: str, service: str, method: str, outcome: str = "ok") -> float:
    return meters.SERVICE_CALLS.of(store, service, method, outcome).value


def size(store: str, service: str, method: str) -> float:
    return meters.SERVICE_BYTES.of(store, service, method).value


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_local(tmp_path / "store") as store:
        yield store


async def test_calls_bytes_and_seconds_are_counted(store: Store) -> None:
    seen = composed_of(observed(store, "counted"))
    data = noise(3 * MIB, "counted")
    digest = await seen.blobs.put(pieces(data, 100_000))
    assert await collect(seen.blobs.read(digest, 0, MIB)) == data[:MIB]
    small = await seen.blobs.put_many([b"small", b"other"])
    await seen.blobs.get_many([*small, missing()])
    graph = diamond()
    await seen.directories.put(stream(graph))
    await seen.directories.tree(graph[-1].node()).get(graph[-1].digest)
    expected = {
        ("blobs", "put"): 3 * MIB,
        ("blobs", "read"): MIB,
        ("blobs", "put_many"): 10,
        ("blobs", "get_many"): 10,
        ("directories", "put"): sum(len(each.encoded) for each in graph),
        ("directories", "tree"): 0,
    }
    assert {method: size("counted", *method) for method in expected} == expected
    assert [calls("counted", *method) for method in expected] == [1] * len(expected)
    buckets = meters.entry(meters.SERVICE_SECONDS, "counted", "blobs", "put")
    row = meters.current_row()
    counts = [row.values[row.position(f"{buckets}{meters.SEPARATOR}{bound}")] for bound in (*meters.SERVICE_SECONDS.bounds, "inf")]
    assert sum(counts) == 1


async def test_stages_are_counted_as_what_is_put_into_them(store: Store) -> None:
    seen = composed_of(observed(store, "staged"))
    assert seen.staging is not None
    stage = seen.staging.begin()
    await stage.blobs.put_many([b"staged"])
    await stage.accept()
    await stage.close()
    assert (calls("staged", "blobs", "put_many"), size("staged", "blobs", "put_many")) == (1, 6)
    assert calls("staged", "staging", "accept") == 1
    await put_tree(seen, {b"file": TreeFile(b"content")})
    assert calls("staged", "directories", "put") == 1


async def test_errors_are_counted_by_their_kind(store: Store) -> None:
    seen = observed(Offer(blobs=FaultyBlobs(store.blobs, failing(CorruptError("damaged"), after=3))), "failing").blobs
    assert seen is not None
    digest = await store.blobs.put(pieces(noise(3 * MIB, "failing"), MIB))
    with pytest.raises(CorruptError):
        await collect(seen.read(digest))
    blobs: Any = observed(store, "failing").blobs
    reading = blobs.read(digest)
    await anext(reading)
    await reading.aclose()
    assert calls("failing", "blobs", "read", "corrupt") == 1
    assert calls("failing", "blobs", "read", "left") == 1
    assert calls("failing", "blobs", "read", "ok") == 0


@pytest.mark.parametrize(("kind", "name"), [(CorruptError, "corrupt"), (ZeroDivisionError, "zero-division")])
def test_errors_have_names_for_labels(kind: type[Exception], name: str) -> None:
    assert error_kind(kind) == name


def test_all_methods_of_all_services_are_known() -> None:
    hints = typing.get_type_hints(Offer)
    for service in (*typing.get_args(Service), *POWERS):
        protocol = next(each for each in typing.get_args(hints[service]) if each is not type(None))
        functions = {name: each for name, each in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")}
        assert METHODS[service].keys() == functions.keys(), service
        for name, function in functions.items():
            kind = METHODS[service][name]
            _, *parameters = inspect.signature(function).parameters.values()
            takes_stream = bool(parameters) and str(parameters[0].annotation).startswith("AsyncIterable[")
            gives_stream = str(inspect.signature(function).return_annotation).startswith("AsyncIterator[")
            assert (kind is Kind.PUT) == takes_stream, (service, name)
            assert (kind is Kind.STREAM) == gives_stream, (service, name)
            assert (kind in (Kind.PUT, Kind.CALL)) == inspect.iscoroutinefunction(function), (service, name)
