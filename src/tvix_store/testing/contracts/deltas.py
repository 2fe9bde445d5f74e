"""The contract of Deltas."""

from __future__ import annotations

import pytest

from tvix_store.compression.delta import MAX_TARGET, make_delta
from tvix_store.errors import IncompleteError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import Chunk
from tvix_store.services.deltas import Deltas
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, missing, noise, stream

BASE = noise(700_000, "base")
TARGET = BASE[:300_000] + b"another version" + BASE[300_000:]
BLOB = Chunk(Digest.of(TARGET), len(TARGET))
PLENTY = 1 << 30


async def put(store: Store, *contents: bytes) -> list[Digest]:
    return [await store.blobs.put(stream([content])) for content in contents]


@pytest.mark.asyncio
class DeltasContract:
    """Subclasses give a fixture `store`, new and empty, whose `deltas` are not None."""

    @pytest.fixture
    def deltas(self, store: Store) -> Deltas:
        assert store.deltas is not None
        return store.deltas

    async def test_a_delta_makes_the_blob_where_the_base_is(self, store: Store, deltas: Deltas) -> None:
        base, target = await put(store, BASE, TARGET)
        for _ in range(2):  # made, and remembered
            delta = await deltas.make(base, Chunk(target, len(TARGET)), PLENTY)
            assert delta is not None
            assert len(delta) < 5000
            await deltas.apply(base, Chunk(target, len(TARGET)), delta)  # it is there already
        other = TARGET[:-7]
        await deltas.apply(base, Chunk(Digest.of(other), len(other)), make_delta(BASE, other))
        assert await collect(store.blobs.read(Digest.of(other))) == other

    async def test_a_delta_that_is_too_long_is_not_given(self, store: Store, deltas: Deltas) -> None:
        base, target = await put(store, BASE, TARGET)
        for _ in range(2):
            assert await deltas.make(base, Chunk(target, len(TARGET)), 10) is None

    async def test_what_is_not_there_makes_no_delta(self, store: Store, deltas: Deltas) -> None:
        base, target = await put(store, BASE, TARGET)
        assert await deltas.make(missing(), Chunk(target, len(TARGET)), PLENTY) is None
        assert await deltas.make(base, Chunk(missing(), 10), PLENTY) is None
        assert await deltas.make(base, Chunk(target, len(TARGET) + 1), PLENTY) is None
        assert await deltas.make(base, Chunk(target, MAX_TARGET + 1), PLENTY) is None

    async def test_a_base_that_is_not_there_is_named(self, store: Store, deltas: Deltas) -> None:
        with pytest.raises(IncompleteError) as caught:
            await deltas.apply(Digest.of(BASE), BLOB, make_delta(BASE, TARGET))
        assert str(Digest.of(BASE)) in str(caught.value)

    @pytest.mark.parametrize("kind", ["another blob", "another size", "another base", "damaged", "empty", "huge"])
    async def test_a_delta_that_makes_something_else_stores_nothing(self, store: Store, deltas: Deltas, kind: str) -> None:
        base, other = await put(store, BASE, BASE[::-1])
        blob, delta, its_base = BLOB, make_delta(BASE, TARGET), base
        match kind:
            case "another blob":
                delta = make_delta(BASE, TARGET[::-1])
            case "another size":
                blob = Chunk(BLOB.digest, BLOB.size - 1)
            case "another base":
                its_base = other
            case "damaged":
                delta = delta[:50] + bytes([delta[50] ^ 1]) + delta[51:]
            case "empty":
                delta = b""
            case "huge":
                blob = Chunk(BLOB.digest, MAX_TARGET + 1)
        with pytest.raises(InvalidError):
            await deltas.apply(its_base, blob, delta)
        assert await store.blobs.missing([BLOB.digest]) == {BLOB.digest}
