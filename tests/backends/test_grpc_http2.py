"""The client's HTTP/2: servers that say things in unusual ways, that break rules, or that vanish."""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tvix_store.backends.grpc import connection as connection_module
from tvix_store.backends.grpc import grpc_channel as channel_module
from tvix_store.backends.grpc import http2
from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.call_error import CallError
from tvix_store.backends.grpc.envelopes import MAX_MESSAGE
from tvix_store.backends.grpc.frames import ACK, END_HEADERS, END_STREAM, PADDED, PREFACE, PRIORITY, Kind, frame
from tvix_store.backends.grpc.grpc_channel import GrpcChannel
from tvix_store.backends.grpc.hpack import HeaderDecoder, HeaderError, encode_headers
from tvix_store.backends.grpc.stream import WINDOW, Stream
from tvix_store.protocol.status import Status

HEAD = encode_headers([(b":status", b"200"), (b"content-type", b"application/grpc")])
OK = encode_headers([(b"grpc-status", b"0")])
SETTINGS = frame(Kind.SETTINGS, 0, 0)


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4) + data


def answer(stream: int, *messages: bytes, end: bytes = OK) -> bytes:
    """A whole answer to a call."""
    return (
        frame(Kind.HEADERS, END_HEADERS, stream, HEAD)
        + b"".join(frame(Kind.DATA, 0, stream, message(each)) for each in messages)
        + frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, end)
    )


class Peer:
    """A server's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def frame(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, payload."""
        head = await self._reader.readexactly(9)
        payload = await self._reader.readexactly(int.from_bytes(head[:3]))
        return head[3], head[4], int.from_bytes(head[5:]), payload

    async def until(self, wanted: Kind, *, acknowledges: bool = False) -> tuple[int, int, bytes]:
        """The next frame of a kind: flags, stream, payload. Others are passed over."""
        while True:
            kind, flags, stream, payload = await self.frame()
            if kind == wanted and (kind != Kind.SETTINGS or bool(flags & ACK) == acknowledges):
                return flags, stream, payload

    async def call(self) -> int:
        """The next call, when its first message has come whole; the number of its stream."""
        _, stream, _ = await self.until(Kind.HEADERS)
        await self.until(Kind.DATA)
        return stream

    @property
    def buffered(self) -> int:
        """Bytes that have come, and were not read yet."""
        return len(self._reader._buffer)  # type: ignore[attr-defined]

    async def begin(self) -> None:
        assert await self._reader.readexactly(len(PREFACE)) == PREFACE


@asynccontextmanager
async def server(
    script: Callable[[Peer], Awaitable[None]], settings: bytes = SETTINGS, *, greets: bool = True
) -> AsyncIterator[GrpcChannel]:
    """A channel to a server that greets, says its `settings`, and then does what `script` says, on each connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peer = Peer(reader, writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            if greets:
                await peer.begin()
                writer.write(settings)
            await script(peer)
            await reader.read()
        writer.transport.abort()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    channel = GrpcChannel(ServerAddress.parse(f"grpc+http://{host}:{port}"), None)
    try:
        yield channel
    finally:
        await channel.close()
        listener.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def outcome(channel: GrpcChannel, seconds: float = 20) -> bytes | CallError | None:
    try:
        return await channel.unary("/x.Y/Z", b"request", seconds=seconds)
    except CallError as error:
        return error


async def everything(stream: Stream) -> list[bytes]:
    answers: list[bytes] = []
    while batch := await stream.messages():
        answers += batch
    return answers


def sending(*frames: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Answers the first call by frames on stream 1."""

    async def script(peer: Peer) -> None:
        await peer.call()
        for each in frames:
            peer.writer.write(each)
            await peer.writer.drain()

    return script


async def status_of(*frames: bytes) -> tuple[Status, str]:
    async with server(sending(*frames)) as channel:
        ended = await outcome(channel)
    assert isinstance(ended, CallError), ended
    return ended.status, ended.message


# What is right.


async def test_calls_that_begin_at_once_go_out_together() -> None:
    reads: list[int] = []

    async def script(peer: Peer) -> None:
        peer.writer.write(answer(await peer.call(), b"answer"))
        first = await peer.call()
        reads.append(peer.buffered)
        for stream in [first, *[await peer.call() for _ in range(19)]]:
            peer.writer.write(answer(stream, b"answer"))

    async with server(script) as channel:
        await outcome(channel)
        assert await asyncio.gather(*(outcome(channel) for _ in range(20))) == [b"answer"] * 20
    assert reads[0] > 1000


async def test_a_call_is_sent_as_grpc_has_it() -> None:
    seen: list[tuple[int, int, bytes]] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.until(Kind.HEADERS))
        seen.append(await peer.until(Kind.DATA))
        peer.writer.write(answer(1, b"answer"))

    async with server(script) as channel:
        assert await outcome(channel) == b"answer"
    (flags, stream, block), data = seen
    fields = HeaderDecoder().decode(block)
    assert (flags, stream) == (END_HEADERS, 1)
    assert list(fields)[:4] == [b":method", b":scheme", b":authority", b":path"]
    assert fields[b":path"] == b"/x.Y/Z"
    assert fields[b"te"] == b"trailers"
    assert fields[b"content-type"] == b"application/grpc"
    assert fields[b"grpc-timeout"] == b"20000m"
    assert data == (END_STREAM, 1, message(b"request"))


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([answer(1, b"answer")], id="whole"),
        pytest.param([answer(1, b"answer")[at : at + 1] for at in range(len(answer(1, b"answer")))], id="byte by byte"),
        pytest.param(
            [
                frame(Kind.HEADERS, END_HEADERS | PADDED | PRIORITY, 1, b"\x03" + bytes(5) + HEAD + bytes(3)),
                frame(Kind.DATA, PADDED, 1, b"\x02" + message(b"answer")[:4] + bytes(2)),
                frame(Kind.DATA, PADDED, 1, b"\0" + message(b"answer")[4:]),
                frame(Kind.HEADERS, END_STREAM, 1, OK[:3]),
                frame(Kind.CONTINUATION, 0, 1, OK[3:5]),
                frame(Kind.CONTINUATION, END_HEADERS, 1, OK[5:]),
            ],
            id="padded and continued",
        ),
        pytest.param(
            [
                frame(0xBE, 0, 1, b"of a kind that nobody knows"),
                frame(Kind.HEADERS, END_HEADERS, 1, encode_headers([(b":status", b"100")])),
                frame(Kind.PRIORITY, 0, 1, bytes(5)),
                frame(Kind.DATA, 0, 77, b"for a call that nobody made"),
                answer(1, b"answer"),
            ],
            id="with others between",
        ),
    ],
)
async def test_an_answer_is_read_however_it_is_cut(frames: list[bytes]) -> None:
    async with server(sending(*frames)) as channel:
        assert await outcome(channel) == b"answer"


async def test_a_status_may_come_first_and_the_end_behind_it() -> None:
    status = encode_headers([(b":status", b"200"), (b"grpc-status", b"5"), (b"grpc-message", b"not h%C3%A9re")])
    head = frame(Kind.HEADERS, END_HEADERS, 1, status)
    assert await status_of(head, frame(Kind.DATA, END_STREAM, 1)) == (Status.NOT_FOUND, "not hére")
    assert await status_of(frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, status)) == (Status.NOT_FOUND, "not hére")


async def test_many_small_messages_come_in_few_batches() -> None:
    pieces = [bytes([n % 256]) * 2048 for n in range(3000)]

    async def script(peer: Peer) -> None:
        await peer.call()
        peer.writer.write(answer(1, *pieces))

    async with server(script) as channel, channel.receive("/x.Y/Z", b"") as stream:
        batches: list[list[bytes]] = []
        while batch := await stream.messages():
            batches.append(batch)
    assert [each for batch in batches for each in batch] == pieces
    assert len(batches) < len(pieces) / 4


async def test_a_server_is_answered() -> None:
    pong: list[tuple[int, int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.call()
        peer.writer.write(frame(Kind.PING, 0, 0, b"8 bytes!"))
        pong.append(await peer.until(Kind.PING))
        peer.writer.write(frame(Kind.SETTINGS, 0, 0, struct.pack(">HI", 4, 10)))
        await peer.until(Kind.SETTINGS, acknowledges=True)
        peer.writer.write(answer(1))

    async with server(script) as channel:
        assert await outcome(channel) is None
    assert pong == [(ACK, 0, b"8 bytes!")]


async def test_an_upload_goes_as_fast_as_the_windows_open() -> None:
    sent = [bytes([n]) * 5000 for n in range(20)]
    most = 0

    async def script(peer: Peer) -> None:
        nonlocal most
        got = 0
        while True:
            kind, flags, stream, payload = await peer.frame()
            if kind == Kind.DATA:
                got += len(payload)
                most = max(most, len(payload))
                peer.writer.write(frame(Kind.WINDOW_UPDATE, 0, stream, len(payload).to_bytes(4)) if payload else b"")
                peer.writer.write(frame(Kind.WINDOW_UPDATE, 0, 0, len(payload).to_bytes(4)) if payload else b"")
                if flags & END_STREAM:
                    peer.writer.write(answer(stream, got.to_bytes(8)))
                    return

    async def messages() -> AsyncIterator[bytes]:
        for each in sent:
            yield each

    async with server(script, frame(Kind.SETTINGS, 0, 0, struct.pack(">HI", 4, 700))) as channel:
        assert await channel.upload("/x.Y/Z", messages(), ()) == (20 * 5005).to_bytes(8)
    assert most <= 700


async def test_an_upload_that_the_server_ends_early_tells_its_status() -> None:
    given = 0

    async def messages() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield bytes(50_000)

    end = encode_headers([(b":status", b"200"), (b"grpc-status", b"8"), (b"grpc-message", b"full")])
    async with server(sending(frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, end))) as channel:
        with pytest.raises(CallError, match="RESOURCE_EXHAUSTED: full"):
            await asyncio.wait_for(channel.upload("/x.Y/Z", messages(), ()), 20)
    assert given < 10


async def test_no_more_calls_run_at_once_than_the_server_takes() -> None:
    async def script(peer: Peer) -> None:
        for _ in range(5):
            stream = await peer.call()
            await asyncio.sleep(0.02)
            peer.writer.write(answer(stream, b"%d" % stream))

    async with server(script, frame(Kind.SETTINGS, 0, 0, struct.pack(">HI", 3, 1))) as channel:
        answers = await asyncio.gather(*(outcome(channel) for _ in range(5)))
    assert sorted(answers) == [b"1", b"3", b"5", b"7", b"9"]  # type: ignore[type-var]


async def test_a_call_that_is_given_up_is_taken_back() -> None:
    resets: list[tuple[int, int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.call()
        resets.append(await peer.until(Kind.RST_STREAM))
        peer.writer.write(answer(1, b"late") + answer(await peer.call(), b"next"))

    async with server(script) as channel:
        late = await outcome(channel, seconds=0.2)
        assert isinstance(late, CallError)
        assert late.status is Status.DEADLINE_EXCEEDED
        assert await outcome(channel) == b"next"
    assert resets == [(0, 1, (8).to_bytes(4))]


async def test_a_connection_that_is_lost_is_made_again() -> None:
    async def script(peer: Peer) -> None:
        peer.writer.write(answer(await peer.call(), b"answer"))
        await peer.writer.drain()
        peer.writer.close()

    async with server(script) as channel:
        for _ in range(3):
            assert await outcome(channel) == b"answer"
            await asyncio.sleep(0.1)


async def test_a_server_that_goes_away_finishes_what_it_has_begun() -> None:
    async def script(peer: Peer) -> None:
        await peer.call()
        await peer.call()
        peer.writer.write(frame(Kind.GOAWAY, 0, 0, (1).to_bytes(4) + bytes(4) + b"restarting"))
        peer.writer.write(answer(1, b"first"))

    async with server(script) as channel:
        first, second = await asyncio.gather(outcome(channel), outcome(channel))
    assert first == b"first"
    assert isinstance(second, CallError)
    assert (second.status, second.message) == (Status.UNAVAILABLE, "the server is going away: restarting")


# What is wrong.


@pytest.mark.parametrize(
    ("frames", "status", "words"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], Status.UNAVAILABLE, "it answers in HTTP/1; is this its port for gRPC"),
        ([frame(Kind.PING, 0, 0, bytes(8))], Status.UNAVAILABLE, "does not begin with SETTINGS"),
        ([b""], Status.UNAVAILABLE, "the server closed the connection"),
    ],
)
async def test_a_server_that_does_not_greet_is_not_waited_for(frames: list[bytes], status: Status, words: str) -> None:
    async def script(peer: Peer) -> None:
        peer.writer.write(b"".join(frames))
        await peer.writer.drain()
        peer.writer.write_eof()

    async with server(script, greets=False) as channel:
        ended = await outcome(channel)
    assert isinstance(ended, CallError)
    assert ended.status is status
    assert words in ended.message


BEGUN = frame(Kind.HEADERS, END_HEADERS, 1, HEAD)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([frame(Kind.DATA, 0, 1, message(b"answer"))], "data before header fields"),
        ([(1 << 20).to_bytes(3) + bytes((0, 0)) + (1).to_bytes(4)], "a frame of 1048576 bytes"),
        ([BEGUN, BEGUN], "in the middle of an answer"),
        ([frame(Kind.HEADERS, 0, 1, HEAD), frame(Kind.PING, 0, 0, bytes(8))], "a header block breaks off"),
        ([frame(Kind.CONTINUATION, 0, 1, HEAD)], "has not begun"),
        ([frame(Kind.HEADERS, 0, 1, HEAD), *[frame(Kind.CONTINUATION, 0, 1, bytes(16_000))] * 9], "more than 65536 bytes"),
        ([frame(Kind.HEADERS, END_HEADERS, 1, b"\xbf")], "entry 63 of the header table"),
        ([frame(Kind.HEADERS, END_HEADERS | PADDED, 1, b"\x09" + bytes(8))], "shorter than its padding"),
        ([BEGUN, *[frame(Kind.DATA, 0, 1, bytes(16_384))] * (WINDOW // 16_384 + 1)], "more data than was let in"),
        ([frame(Kind.PUSH_PROMISE, END_HEADERS, 1, bytes(4) + HEAD)], "nobody has asked for"),
        ([frame(Kind.SETTINGS, 0, 0, bytes(5))], "cut short"),
        ([frame(Kind.SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31))], "window that is too large"),
        ([frame(Kind.WINDOW_UPDATE, 0, 0, (0x7FFFFFFF).to_bytes(4))], "window that is too large"),
    ],
)
async def test_a_server_that_breaks_a_rule_is_left(frames: list[bytes], words: str) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.call()
        peer.writer.write(b"".join(frames))
        try:
            await peer.until(Kind.GOAWAY)
        finally:
            left.set()

    async with server(script) as channel, channel.receive("/x.Y/Z", b"") as stream:
        await asyncio.wait_for(left.wait(), 20)  # nothing is read of what comes
        reading = everything(stream)
        with pytest.raises(CallError, match=f"UNAVAILABLE: the server does not speak HTTP/2 as it should: .*{words}"):
            await reading


@pytest.mark.parametrize(
    ("frames", "status", "words"),
    [
        ([frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, HEAD)], Status.UNKNOWN, "without a status"),
        ([BEGUN, frame(Kind.DATA, END_STREAM, 1, message(b"answer"))], Status.UNKNOWN, "without a status"),
        ([answer(1, b"one", b"two")], Status.INTERNAL, "more than one answer"),
        ([answer(1, end=encode_headers([(b"grpc-status", b"many")]))], Status.UNKNOWN, ""),
        ([answer(1, end=encode_headers([(b"grpc-status", b"99")]))], Status.UNKNOWN, ""),
        (
            [BEGUN, frame(Kind.DATA, 0, 1, message(b"cut")[:-1]), frame(Kind.HEADERS, 5, 1, OK)],
            Status.INTERNAL,
            "middle of a message",
        ),
        ([BEGUN, frame(Kind.DATA, 0, 1, b"\1" + message(gzip.compress(b"x"))[1:])], Status.INTERNAL, "compressed"),
        ([BEGUN, frame(Kind.DATA, 0, 1, b"\0" + (MAX_MESSAGE + 1).to_bytes(4))], Status.RESOURCE_EXHAUSTED, "over the limit"),
        ([frame(Kind.RST_STREAM, 0, 1, (7).to_bytes(4))], Status.UNAVAILABLE, "REFUSED_STREAM"),
        ([frame(Kind.RST_STREAM, 0, 1, (8).to_bytes(4))], Status.CANCELLED, "CANCEL"),
        ([frame(Kind.RST_STREAM, 0, 1, (11).to_bytes(4))], Status.RESOURCE_EXHAUSTED, "ENHANCE_YOUR_CALM"),
        ([frame(Kind.RST_STREAM, 0, 1, (1).to_bytes(4))], Status.INTERNAL, "PROTOCOL_ERROR"),
        ([frame(Kind.RST_STREAM, 0, 1, (999).to_bytes(4))], Status.INTERNAL, "error 999"),
        *[
            (
                [frame(Kind.HEADERS, 5, 1, encode_headers([(b":status", code), (b"content-type", b"text/html")]))],
                status,
                code.decode(),
            )
            for code, status in ((b"404", Status.UNIMPLEMENTED), (b"503", Status.UNAVAILABLE), (b"418", Status.UNKNOWN))
        ],
        (
            [
                frame(Kind.HEADERS, END_HEADERS, 1, encode_headers([(b":status", b"502"), (b"content-type", b"text/html")])),
                frame(Kind.DATA, END_STREAM, 1, b"<html>Bad Gateway</html>"),
            ],
            Status.UNAVAILABLE,
            "the HTTP status 502",
        ),
        (
            [frame(Kind.HEADERS, END_HEADERS, 1, encode_headers([(b":status", b"200"), (b"content-type", b"text/html")]))],
            Status.UNKNOWN,
            "'text/html'; does it speak gRPC?",
        ),
    ],
)
async def test_a_call_that_ends_badly_tells_how(frames: list[bytes], status: Status, words: str) -> None:
    found, message = await status_of(*frames)
    assert (found, words in message) == (status, True), message


async def test_what_a_server_says_is_one_line_that_steers_no_terminal() -> None:
    words = encode_headers([(b"grpc-status", b"13"), (b"grpc-message", b"%1b[2Jhello%0Aerror: all is lost%0d%c2%9b1m")])
    status, message = await status_of(frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, HEAD + words))
    assert (status, message) == (Status.INTERNAL, " [2Jhello error: all is lost 1m")
    goodbye = struct.pack(">II", 0, 11) + b"too many\x1b[31m\ncalls"
    assert (await status_of(frame(Kind.GOAWAY, 0, 0, goodbye)))[1] == "the server is going away: too many [31m calls"


async def test_a_server_that_answers_nothing_but_pings_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "STALL", 0.2)
    monkeypatch.setattr(connection_module, "STALL", 0.2)

    async def script(peer: Peer) -> None:
        await peer.call()

    async with server(script) as channel:
        async with channel.receive("/x.Y/Z", b"request") as stream:
            with pytest.raises(CallError) as caught:
                await connection_module._next_of(stream)
        assert (caught.value.status, caught.value.message) == (Status.DEADLINE_EXCEEDED, "no message within 0.2 seconds")

    async def uploaded() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(1 << 16)  # more than the window that the server opens in the beginning

    async with server(script) as channel:
        with pytest.raises(CallError, match="the server took nothing within"):
            await channel.upload("/x.Y/Z", uploaded(), ())


async def test_a_server_that_is_silent_is_asked_and_then_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "_SILENCE", 0.2)
    monkeypatch.setattr(http2, "_PATIENCE", 0.2)
    pings: list[object] = []

    async def script(peer: Peer) -> None:
        await peer.call()
        pings.append(await peer.until(Kind.PING))
        await peer.until(Kind.GOAWAY)

    async with server(script) as channel:
        ended = await outcome(channel)
    assert isinstance(ended, CallError)
    assert "nothing was heard" in ended.message
    assert pings


async def test_a_server_that_asks_and_does_not_read_is_left() -> None:
    async def script(peer: Peer) -> None:
        await peer.call()
        while True:
            peer.writer.write(frame(Kind.PING, 0, 0, bytes(8)) * 10_000)
            await peer.writer.drain()

    async with server(script) as channel:
        ended = await outcome(channel, seconds=60)
    assert isinstance(ended, CallError)
    assert ended.message == "the server does not read"


# Header blocks. The examples are those of RFC 7541, Appendix C.


def test_header_blocks_are_read() -> None:
    literal = bytes.fromhex("408825a849e95ba97d7f8925a849e95bb8e8b4bf")
    assert HeaderDecoder().decode(literal) == {b"custom-key": b"custom-value"}
    answered = "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3"
    assert HeaderDecoder().decode(bytes.fromhex(answered)) == {b":status": b"302"}
    assert HeaderDecoder().decode(b"\x20\x88") == {b":status": b"200"}
    long = [(b"x-long", bytes(range(256)) * 300)]
    assert HeaderDecoder().decode(encode_headers(long)) == dict(long)


@pytest.mark.parametrize(
    "block",
    ["80", "be", "4088", "40", "7fffffffffffff", "0001610a", "00016182ffff", "000161841fffffff", "00016184fffffffc"],
)
def test_a_broken_header_block_is_refused(block: str) -> None:
    with pytest.raises(HeaderError):
        HeaderDecoder().decode(bytes.fromhex(block))


async def test_a_channel_that_is_closed_makes_no_connection() -> None:
    """A call that was under way would be repeated on one, which nobody closes."""
    connections: list[Peer] = []
    called = asyncio.Event()

    async def script(peer: Peer) -> None:
        connections.append(peer)
        await peer.call()
        called.set()

    async with server(script) as channel:
        under_way = asyncio.create_task(outcome(channel))
        await called.wait()
        await channel.close()
        assert isinstance(await under_way, CallError)
        ended = await outcome(channel)
        assert isinstance(ended, CallError)
        assert ended.status is Status.CANCELLED
    assert len(connections) == 1


async def test_a_closed_channel_leaves_no_connection_of_a_server_that_was_going_away() -> None:
    """A call is still under way on the first connection when the channel has made another one."""
    connections: list[Peer] = []

    async def script(peer: Peer) -> None:
        connections.append(peer)
        stream = await peer.call()
        if len(connections) == 1:
            peer.writer.write(
                frame(Kind.HEADERS, END_HEADERS, stream, HEAD) + frame(Kind.GOAWAY, 0, 0, stream.to_bytes(4) + bytes(4))
            )
            peer.writer.write(frame(Kind.DATA, 0, stream, message(b"first")))
        else:
            peer.writer.write(answer(stream, b"second"))

    async with server(script) as channel, channel.receive("/x.Y/Z", b"request") as under_way:
        assert await under_way.messages() == [b"first"]
        while not isinstance(await outcome(channel), bytes):  # the word that it goes away is on its way
            pass
        await channel.close()
        assert under_way.ended
        with pytest.raises(CallError, match="the connection was closed"):
            await under_way.messages()
    assert len(connections) == 2
