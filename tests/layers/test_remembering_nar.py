"""What is true of a NAR is computed once."""

import pytest

from tvix_store.backends.memory import MemoryNarCache, open_store
from tvix_store.errors import UnavailableError
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import NarFacts
from tvix_store.testing.content import file_nar, put_file
from tvix_store.testing.faults import FaultyBlobs, failing

AWAY = UnavailableError("away")


async def test_the_second_answer_needs_no_content() -> None:
    store = await open_store()
    node = await put_file(store.blobs, b"once")
    cache = MemoryNarCache()
    first = RememberingNarService(store.blobs, store.directories, cache)
    second = RememberingNarService(FaultyBlobs(store.blobs, failing(AWAY)), store.directories, cache)
    assert await first.calculate(node) == await second.calculate(node) == file_nar(b"once")


async def test_a_failure_is_not_remembered() -> None:
    store = await open_store()
    node = await put_file(store.blobs, b"later")
    cache = MemoryNarCache()
    with pytest.raises(UnavailableError):
        await RememberingNarService(FaultyBlobs(store.blobs, failing(AWAY)), store.directories, cache).calculate(node)
    assert await RememberingNarService(store.blobs, store.directories, cache).calculate(node) == file_nar(b"later")


async def test_an_executable_file_is_another_node() -> None:
    store = await open_store()
    for executable in (False, True):
        node = await put_file(store.blobs, b"same bytes", executable=executable)
        assert await store.nar.calculate(node) == file_nar(b"same bytes", executable=executable)


async def test_recorded_facts_are_given_out_without_a_look_at_the_content() -> None:
    store = await open_store()
    facts = NarFacts(1, bytes(32))
    await store.nar.record(SymlinkNode(b"anywhere"), facts)
    assert await store.nar.calculate(SymlinkNode(b"anywhere")) == facts
