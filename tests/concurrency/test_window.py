"""A window shows a stream to readers that the writer never waits for, and never the whole of one that is not confirmed."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.concurrency.window import Window, WindowReader

PIECE = 40 << 10
STREAM = [bytes([number]) * PIECE for number in range(20)]
SIZE = sum(map(len, STREAM))
NAME = b"stream"


async def read(reader: WindowReader) -> bytes:
    return b"".join([piece async for piece in reader.pieces()])


async def settled(task: asyncio.Task[bytes]) -> bytes:
    return await asyncio.wait_for(task, 5)


async def test_a_reader_gets_all_of_a_stream_that_is_confirmed() -> None:
    window = Window(SIZE)
    reader = window.reader(NAME)
    reading = asyncio.create_task(read(reader))
    window.begin(NAME, SIZE)
    for piece in STREAM:
        window.add(piece)
        await asyncio.sleep(0)
    assert not reading.done()
    assert SIZE - PIECE * 3 <= reader.at < SIZE - (64 << 10) + PIECE, "it has all but the end"
    window.confirm()
    window.end()
    assert await settled(reading) == b"".join(STREAM)
    assert reader.was_right


async def test_the_end_of_a_stream_that_is_not_confirmed_is_never_shown() -> None:
    window = Window(SIZE)
    reader = window.reader(NAME)
    reading = asyncio.create_task(read(reader))
    window.begin(NAME, SIZE)
    for piece in STREAM:
        window.add(piece)
    window.end()
    assert len(await settled(reading)) <= SIZE - (64 << 10)
    assert not reader.was_right


async def test_a_short_stream_is_shown_when_it_is_confirmed() -> None:
    window = Window(SIZE)
    right, wrong = Window(SIZE), window
    for each in (right, wrong):
        each.begin(NAME, 1000)
        each.add(b"x" * 1000)
    right.confirm()
    for each in (right, wrong):
        each.end()
    assert await read(right.reader(NAME)) == b"x" * 1000
    assert await read(wrong.reader(NAME)) == b""


async def test_a_reader_that_falls_behind_has_lost_the_stream_and_what_it_has_is_right() -> None:
    window = Window(4 * PIECE)
    reader = window.reader(NAME)
    window.begin(NAME, SIZE)
    for piece in STREAM[:3]:
        window.add(piece)
    pieces = reader.pieces()
    assert await anext(pieces) == STREAM[0]
    for piece in STREAM[3:]:
        window.add(piece)
    assert [piece async for piece in pieces] == []
    assert not reader.was_right
    window.confirm()
    window.end()
    assert reader.was_right
    assert reader.at == PIECE


async def test_a_reader_that_has_nothing_goes_on_with_the_stream_that_begins_anew() -> None:
    window = Window(SIZE)
    early, late = window.reader(NAME), window.reader(NAME)
    window.begin(NAME, SIZE)
    pieces = early.pieces()
    window.add(b"wrong" + STREAM[0])
    assert await anext(pieces)
    reading = asyncio.create_task(read(late))  # begins when the stream has begun anew
    window.begin(NAME, SIZE)
    assert [piece async for piece in pieces] == []
    for piece in STREAM:
        window.add(piece)
        await asyncio.sleep(0)
    window.confirm()
    window.end()
    assert await settled(reading) == b"".join(STREAM)
    assert (early.was_right, late.was_right) == (False, True)


async def test_a_stream_of_another_name_is_not_shown() -> None:
    window = Window(SIZE)
    reader = window.reader(b"other")
    reading = asyncio.create_task(read(reader))
    window.begin(NAME, SIZE)
    for piece in STREAM:
        window.add(piece)
    window.confirm()
    window.end()
    assert await settled(reading) == b""
    assert reader.was_right


@pytest.mark.parametrize("room", [0, PIECE, SIZE])
async def test_what_is_kept_is_bounded(room: int) -> None:
    window = Window(room)
    window.begin(NAME, SIZE)
    for piece in STREAM:
        window.add(piece)
        assert sum(len(piece) for piece, _ in window._pieces) <= room


@given(
    steps=st.lists(st.sampled_from(["add", "begin", "read", "read", "read"]), max_size=60),
    confirmed=st.booleans(),
    room=st.sampled_from([0, PIECE, 3 * PIECE, SIZE]),
)
async def test_whatever_happens_what_was_right_is_the_beginning_of_the_stream(steps: list[str], confirmed: bool, room: int) -> None:
    """Streams that were given up have other bytes. A reader that is told that it was right has none of them."""
    window = Window(room)
    reader = window.reader(NAME)
    got = bytearray()
    may_read = asyncio.Semaphore(0)

    async def read_on() -> None:
        async for piece in reader.pieces():
            got.extend(piece)
            await may_read.acquire()

    attempt = added = 0
    window.begin(NAME, SIZE)
    reading = asyncio.create_task(read_on())
    for step in [*steps, "begin", *["add"] * len(STREAM)]:
        if step == "begin":
            attempt, added = attempt + 1, 0
            window.begin(NAME, SIZE)
        elif step == "add" and added < len(STREAM):
            window.add(bytes([attempt]) * PIECE)
            added += 1
        elif step == "read":
            may_read.release()
            for _ in range(3):
                await asyncio.sleep(0)
    if confirmed:
        window.confirm()
    window.end()
    for _ in STREAM:
        may_read.release()
    await asyncio.wait_for(reading, 5)
    if got:
        assert reader.was_right in (False, confirmed)
    if reader.was_right:
        assert bytes(got) == bytes([attempt]) * len(got)
    if not confirmed:
        assert len(got) <= SIZE - (64 << 10)
