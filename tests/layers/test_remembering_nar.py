"""What is true of a NAR is computed once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.errors import UnavailableError
from tvix_store.layers.memory_nars import MemoryNars
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode, SymlinkNode
from tvix_store.model.path_info import NarFacts
from tvix_store.services.blobs import SMALL_BLOB, BlobService
from tvix_store.testing.content import file_nar, noise, put_file
from tvix_store.testing.faults import FaultyBlobs, delaying, failing

AWAY = UnavailableError("away")


class GatedBlobs(FaultyBlobs):
    """Large blobs that are given out once `opened` is set; counts how often they are asked for, and how many wait for it."""

    def __init__(self, inner: BlobService) -> None:
        super().__init__(inner, delaying(0))
        self.opened = asyncio.Event()
        self.reads = self.waiting = 0

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        self.reads += 1
        self.waiting += 1
        try:
            await self.opened.wait()
        finally:
            self.waiting -= 1
        async for piece in super().read(digest, start, stop):
            yield piece


async def gated(count: int = 1) -> tuple[RememberingNarService, GatedBlobs, list[FileNode]]:
    """A service that waits for its blobs, and some large files in it."""
    store = await open_store()
    nodes = [await put_file(store.blobs, noise(SMALL_BLOB + 1, str(n))) for n in range(count)]
    blobs = GatedBlobs(store.blobs)
    return RememberingNarService(blobs, store.directories, MemoryNars()), blobs, nodes


async def until_still() -> None:
    """Let everything run as far as it comes."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_second_answer_needs_no_content() -> None:
    store = await open_store()
    node = await put_file(store.blobs, b"once")
    cache = MemoryNars()
    first = RememberingNarService(store.blobs, store.directories, cache)
    second = RememberingNarService(FaultyBlobs(store.blobs, failing(AWAY)), store.directories, cache)
    assert await first.calculate(node) == await second.calculate(node) == file_nar(b"once")


async def test_a_failure_is_not_remembered() -> None:
    store = await open_store()
    node = await put_file(store.blobs, b"later")
    cache = MemoryNars()
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
    await store.remember_nar(SymlinkNode(b"anywhere"), facts, store.begin_nar())
    assert await store.nar.calculate(SymlinkNode(b"anywhere")) == facts


async def test_callers_at_once_share_one_calculation() -> None:
    nar, blobs, (node,) = await gated()
    calls = [asyncio.create_task(nar.calculate(node)) for _ in range(5)]
    await until_still()
    blobs.opened.set()
    assert set(await asyncio.gather(*calls)) == {file_nar(noise(SMALL_BLOB + 1, "0"))}
    assert blobs.reads == 1


async def test_callers_at_once_share_a_failure_and_the_next_one_tries_again() -> None:
    store = await open_store()
    node = await put_file(store.blobs, b"later")
    nar = RememberingNarService(FaultyBlobs(store.blobs, failing(AWAY)), store.directories, MemoryNars())
    for _ in range(2):
        assert await asyncio.gather(*(nar.calculate(node) for _ in range(3)), return_exceptions=True) == [AWAY] * 3


async def test_a_caller_who_gives_up_takes_nothing_from_the_others() -> None:
    nar, blobs, (node,) = await gated()
    first, second = (asyncio.create_task(nar.calculate(node)) for _ in range(2))
    await until_still()
    first.cancel()
    await until_still()
    assert first.cancelled()
    blobs.opened.set()
    assert await second == file_nar(noise(SMALL_BLOB + 1, "0"))
    assert blobs.reads == 1


async def test_a_calculation_ends_when_all_callers_have_given_up_and_may_begin_anew() -> None:
    nar, blobs, (node,) = await gated()
    calls = [asyncio.create_task(nar.calculate(node)) for _ in range(2)]
    await until_still()
    assert blobs.waiting == 1
    for call in calls:
        call.cancel()
    await until_still()
    assert blobs.waiting == 0
    blobs.opened.set()
    assert await nar.calculate(node) == file_nar(noise(SMALL_BLOB + 1, "0"))


async def test_four_calculations_run_at_once_and_the_others_wait() -> None:
    nar, blobs, nodes = await gated(6)
    calls = [asyncio.create_task(nar.calculate(node)) for node in nodes]
    await until_still()
    assert blobs.waiting == 4
    blobs.opened.set()
    assert await asyncio.gather(*calls) == [file_nar(noise(SMALL_BLOB + 1, str(n))) for n in range(6)]
