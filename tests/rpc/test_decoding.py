"""No client waits until the messages of others are decoded."""

from __future__ import annotations

import asyncio
import threading

from tvix_store.rpc.decoding import Decoder

SMALL, SHORT, LONG = (bytes(size) for size in (1000, 100_000, 1_000_000))


async def test_a_short_message_does_not_wait_for_a_long_one() -> None:
    decoder = Decoder()
    goes_on = threading.Event()

    def decode_slowly(message: bytes) -> int:
        goes_on.wait()
        return len(message)

    slow = asyncio.create_task(decoder.decoded(decode_slowly, LONG))
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            assert [await decoder.decoded(len, message) for message in (SHORT, SMALL)] == [len(SHORT), len(SMALL)]
        assert not slow.done()
    finally:
        goes_on.set()
    assert await slow == len(LONG)


async def test_only_small_messages_are_decoded_on_the_event_loop() -> None:
    decoder = Decoder()
    threads = [await decoder.decoded(lambda _: threading.current_thread(), message) for message in (SMALL, SHORT, LONG)]
    assert threads[0] is threading.current_thread()
    assert len(set(threads)) == 3


async def test_a_message_that_needs_no_decoding_stays_as_it_is() -> None:
    assert await Decoder().decoded(None, LONG) is LONG
