"""The NAR of a path that only an upstream has comes to clients while it is fetched, and never the whole of a false one."""

from __future__ import annotations

import asyncio
import hashlib
import lzma
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.upstream.server import KEY, CachedPath, CacheServer, Gate, cached, raw, serving, stalling, status
from tvix_store.asgi import Event
from tvix_store.backends import memory
from tvix_store.backends.nix_http import client as http_client
from tvix_store.config import open_store, verified
from tvix_store.config.substituters import with_substituters
from tvix_store.errors import ExhaustedError
from tvix_store.http import nars
from tvix_store.http.app import BinaryCache
from tvix_store.http.settings import CacheSettings
from tvix_store.layers import substituting
from tvix_store.layers.without_upstreams import without_upstreams
from tvix_store.model import nixbase32
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.server.push_route import PushRoute
from tvix_store.services.store import Store
from tvix_store.testing.content import noise
from tvix_store.testing.faults import FaultyBlobs, failing
from tvix_store.testing.trees import TreeFile
from tvix_store.traffic import Traffic

NOISE = noise(3_000_000, "nar")
LARGE = {b"noise": TreeFile(NOISE), b"text": TreeFile(b"text " * 50_000)}
LOG = f"{'0' * 32}-x.drv"
OWN = SecretKey.from_seed("own-1", noise(32, "own"))


@dataclass
class Answer:
    """What a client has got so far. `is_whole` says that the answer ended as it should."""

    head: Event = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_take: asyncio.Event = field(default_factory=asyncio.Event)
    is_whole: bool = False

    @property
    def status(self) -> int:
        return int(self.head["status"])

    @property
    def fields(self) -> dict[bytes, bytes]:
        return dict(self.head["headers"])

    @property
    def length(self) -> int:
        return int(self.fields[b"content-length"])


class Client:
    """Asks an application, as an engine does."""

    def __init__(
        self,
        store: Store,
        settings: CacheSettings = CacheSettings(),  # noqa: B008 - it is frozen
        traffic: Traffic | None = None,
    ) -> None:
        alone = BinaryCache(without_upstreams(store), settings, traffic)
        self.app = PushRoute(BinaryCache(store, settings, traffic), alone)

    def begin(
        self, path: str, method: str = "GET", fields: dict[bytes, bytes] | None = None, body: bytes = b"", *, slow: bool = False
    ) -> tuple[Answer, asyncio.Task[Answer]]:
        """An answer, and the task that fills it. A slow client takes the head, and waits for `may_take` with the rest."""
        answer = Answer()
        if not slow:
            answer.may_take.set()
        name, _, query = path.partition("?")
        scope: dict[str, object] = {
            "type": "http",
            "method": method,
            "path": name,
            "raw_path": name.encode(),
            "query_string": query.encode(),
        }
        length = [(b"content-length", b"%d" % len(body))] if body else []
        scope |= {"headers": [(b"host", b"x"), *length, *(fields or {}).items()], "http_version": "1.1", "client": None}

        async def receive() -> Event:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(event: Event) -> None:
            if event["type"] == "http.response.start":
                answer.head = event
                return
            answer.body += event.get("body", b"")
            answer.is_whole = not event.get("more_body")
            answer.begun.set()
            await answer.may_take.wait()

        async def ask() -> Answer:
            await self.app(scope, receive, send)
            return answer

        return answer, asyncio.create_task(ask())

    async def ask(self, path: str, method: str = "GET", fields: dict[bytes, bytes] | None = None, body: bytes = b"") -> Answer:
        return await asyncio.wait_for(self.begin(path, method, fields, body)[1], 20)

    async def narinfo(self, path: CachedPath) -> NarInfo:
        answer = await self.ask(path.narinfo_path)
        assert answer.status == 200, bytes(answer.body)
        assert answer.length == len(answer.body)
        return NarInfo.parse(bytes(answer.body))

    async def nar_url(self, path: CachedPath) -> str:
        return "/" + (await self.narinfo(path)).url


@pytest.fixture
async def store(cache: CacheServer, tmp_path: Path) -> AsyncIterator[Store]:
    """A store on the disk before the cache."""
    async with await open_store(str(tmp_path / "store"), substituters=[cache.url]) as opened:
        yield verified(opened, require_references=True)


def opened_layer(store: Store) -> substituting.SubstitutingPathInfos:
    assert isinstance(store.foreign_paths, substituting.SubstitutingPathInfos)
    return store.foreign_paths


async def paths_of(store: Store) -> list[StorePath]:
    return [path_info.store_path async for path_info in store.path_infos.list()]


def nars_asked(cache: CacheServer) -> int:
    return sum(request.path.startswith("/nar/") for request in cache.requests)


async def test_a_narinfo_comes_at_once_and_true(cache: CacheServer, store: Store) -> None:
    path = cache.publish(
        cached(LARGE, compression="xz", compress=lzma.compress).but(references=(StorePath(noise(20, "other"), "other"),))
    )
    client = Client(store)
    head = await client.ask(path.narinfo_path, "HEAD")
    narinfo = await client.narinfo(path)
    assert head.status == 200
    assert head.length == len(narinfo.format())
    assert narinfo == replace(
        path.narinfo,
        url=f"nar/{nixbase32.encode(path.narinfo.nar.sha256)}.nar?path={nixbase32.encode(path.output_hash)}",
        compression="none",
        file_hash=NixHash("sha256", path.narinfo.nar.sha256),
        file_size=path.narinfo.nar.size,
    )
    assert nars_asked(cache) == 0
    assert cache.asked(path.narinfo_path) == 1, "it is remembered"
    assert await paths_of(store) == []


async def test_a_client_that_has_the_narinfo_is_told_so(cache: CacheServer, store: Store) -> None:
    path, client = cache.publish(cached()), Client(store)
    etag = (await client.ask(path.narinfo_path)).fields[b"etag"]
    assert (await client.ask(path.narinfo_path, fields={b"if-none-match": etag})).status == 304


async def test_the_nar_is_streamed_while_it_is_fetched_and_kept(cache: CacheServer, store: Store) -> None:
    path = cache.publish(cached(LARGE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    client = Client(store)
    url = await client.nar_url(path)
    answer, asking = client.begin(url)
    await asyncio.wait_for(answer.begun.wait(), 10)
    assert not gate.opened.is_set(), "the first byte came before the upstream's last"
    assert (answer.status, answer.length) == (200, path.narinfo.nar.size)
    assert await paths_of(store) == []
    gate.opened.set()
    await asyncio.wait_for(asking, 10)
    assert answer.is_whole
    assert bytes(answer.body) == path.nar
    assert await paths_of(store) == [path.narinfo.store_path]
    assert nars_asked(cache) == 1


async def test_the_url_stays_valid_when_the_path_is_kept_and_the_upstream_is_gone(
    cache: CacheServer, store: Store, tmp_path: Path
) -> None:
    path = cache.publish(cached(LARGE))
    url = await Client(store).nar_url(path)
    assert bytes((await Client(store).ask(url)).body) == path.nar
    cache.answers.clear()
    async with await open_store(str(tmp_path / "store"), substituters=[cache.url]) as later:
        again = await Client(later).ask(url, fields={b"range": b"bytes=100-"})
        assert (again.status, bytes(again.body)) == (206, path.nar[100:])
        assert (await Client(later).narinfo(path)).compression == "zstd"
    async with await open_store(str(tmp_path / "store")) as without_upstreams:
        assert bytes((await Client(without_upstreams).ask(url)).body) == path.nar


async def test_another_worker_finds_the_nar_by_the_url_alone(cache: CacheServer, store: Store, tmp_path: Path) -> None:
    path = cache.publish(cached(LARGE))
    url = await Client(store).nar_url(path)
    async with await open_store(str(tmp_path / "store"), substituters=[cache.url]) as other_worker:
        assert bytes((await Client(other_worker).ask(url)).body) == path.nar
    assert bytes((await Client(store).ask(url)).body) == path.nar
    assert nars_asked(cache) == 1


async def test_a_head_of_a_nar_and_a_wrong_url_fetch_nothing(cache: CacheServer, store: Store) -> None:
    path, client = cache.publish(cached(LARGE)), Client(store)
    url = await client.nar_url(path)
    head = await client.ask(url, "HEAD")
    assert (head.status, head.length) == (200, path.narinfo.nar.size)
    unchanged = await client.ask(url, fields={b"if-none-match": head.fields[b"etag"]})
    assert (unchanged.status, unchanged.length, bytes(unchanged.body)) == (304, path.narinfo.nar.size, b"")
    other = nixbase32.encode(noise(32, "other"))
    for wrong in (
        url.replace(url[5:57], other),
        url[: url.index("?")],
        url.replace("path=", "path=x"),
        url.replace("path=", "narinfo="),
        f"{url[: url.index('=')]}={nixbase32.encode(noise(20, 'other'))}",
    ):
        assert (await client.ask(wrong)).status == 404, wrong
    assert nars_asked(cache) == 0


async def test_a_range_of_a_path_that_was_not_fetched_comes_when_it_was(cache: CacheServer, store: Store) -> None:
    path, client = cache.publish(cached(LARGE)), Client(store)
    answer = await client.ask(await client.nar_url(path), fields={b"range": b"bytes=1000000-1000999"})
    assert (answer.status, bytes(answer.body)) == (206, path.nar[1_000_000:1_001_000])
    assert await paths_of(store) == [path.narinfo.store_path]


async def test_500_clients_share_one_fetch(cache: CacheServer, store: Store) -> None:
    path = cache.publish(cached(LARGE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    client = Client(store)

    async def get_all() -> tuple[bool, bytes]:
        url = await client.nar_url(path)
        answer, asking = client.begin(url)
        await asking
        return answer.is_whole, hashlib.sha256(answer.body).digest()

    clients = [asyncio.create_task(get_all()) for _ in range(500)]
    url = await client.nar_url(path)
    first, asking = client.begin(url)
    await asyncio.wait_for(first.begun.wait(), 30)
    early = not gate.opened.is_set()
    gate.opened.set()
    answers = await asyncio.wait_for(asyncio.gather(*clients), 60)
    await asking
    print("NARs fetched", nars_asked(cache))
    print("narinfos fetched", cache.asked(path.narinfo_path))
    assert set(answers) == {(True, path.narinfo.nar.sha256)}
    assert early
    assert nars_asked(cache) == 1
    assert cache.asked(path.narinfo_path) == 1


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - others know of no event
        await asyncio.sleep(0.01)


async def test_a_client_that_comes_late_gets_it_from_the_store(
    cache: CacheServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(substituting, "_SHOWN", 1_200_000)
    path = cache.publish(cached(LARGE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    client = Client(store)
    url = await client.nar_url(path)
    first, first_asks = client.begin(url)
    await asyncio.wait_for(until(lambda: len(first.body) >= 1_300_000), 10)
    late, late_asks = client.begin(url)
    await asyncio.sleep(0.05)
    assert not late.head, "nothing can be told of it yet"
    gate.opened.set()
    for answer in (await first_asks, await late_asks):
        assert answer.is_whole
        assert bytes(answer.body) == path.nar
    assert nars_asked(cache) == 1
    assert late.status == 200


async def test_a_client_that_reads_nothing_holds_up_nobody_and_gets_the_rest_later(
    cache: CacheServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(substituting, "_SHOWN", 1_200_000)
    path, client = cache.publish(cached(LARGE)), Client(store)
    url = await client.nar_url(path)
    slow, slow_asks = client.begin(url, slow=True)
    await asyncio.wait_for(slow.begun.wait(), 10)
    quick = await client.ask(url)
    assert bytes(quick.body) == path.nar
    assert await paths_of(store) == [path.narinfo.store_path]
    assert len(slow.body) < 2_000_000
    slow.may_take.set()
    assert bytes((await asyncio.wait_for(slow_asks, 10)).body) == path.nar
    assert slow.is_whole
    assert nars_asked(cache) == 1


async def test_clients_that_wait_for_an_upstream_leave_the_room_to_others(
    cache: CacheServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for six downloads. Twenty wait for an upstream that stalls; what is here is served meanwhile."""
    monkeypatch.setattr(nars, "_MOST_FOLLOWING", 2)
    here, stalled = cache.publish(cached(LARGE, "here")), cache.publish(cached(noise(2_000_000, "other"), "stalled"))
    gate = cache.answers[stalled.nar_path] = Gate(stalled.file)
    client = Client(store, traffic=Traffic(16 << 20))
    assert bytes((await client.ask(await client.nar_url(here))).body) == here.nar
    url = await client.nar_url(stalled)
    waiting = [client.begin(url)[1] for _ in range(20)]
    await asyncio.wait_for(gate.reached.wait(), 10)
    assert bytes((await client.ask(f"/nar/{nixbase32.encode(here.narinfo.nar.sha256)}.nar")).body) == here.nar
    gate.opened.set()
    for answer in await asyncio.wait_for(asyncio.gather(*waiting), 30):
        assert bytes(answer.body) == stalled.nar
    assert cache.asked(stalled.nar_path) == 1


async def test_a_client_that_leaves_leaves_the_fetch_to_the_others(cache: CacheServer, store: Store) -> None:
    path = cache.publish(cached(LARGE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    client = Client(store)
    url = await client.nar_url(path)
    (first, first_asks), (second, second_asks) = client.begin(url), client.begin(url)
    await asyncio.wait_for(first.begun.wait(), 10)
    await asyncio.wait_for(second.begun.wait(), 10)
    first_asks.cancel()
    await asyncio.wait((first_asks,))
    gate.opened.set()
    assert bytes((await second_asks).body) == path.nar
    assert nars_asked(cache) == 1


async def test_when_all_have_left_the_fetch_is_called_off_and_leaves_nothing(cache: CacheServer, store: Store) -> None:
    path = cache.publish(cached(LARGE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    client = Client(store)
    url = await client.nar_url(path)
    answer, asking = client.begin(url)
    await asyncio.wait_for(answer.begun.wait(), 10)
    asking.cancel()
    layer = opened_layer(store)
    await asyncio.wait_for(until(lambda: not layer._tasks), 10)
    assert not gate.opened.is_set()
    assert await paths_of(store) == []
    cache.publish(path)
    assert bytes((await client.ask(url)).body) == path.nar


def with_another_end(data: bytes) -> bytes:
    """The same but for a byte after nine tenths: within the contents of a file."""
    at = len(NOISE) * 9 // 10
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def answered(file: bytes, length: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(file) if length is None else length) + file


LIES: dict[str, Callable[[CachedPath], object]] = {
    "a byte is another": lambda path: with_another_end(path.file),
    "cut after 90 %": lambda path: raw(answered(path.file[: len(path.file) * 9 // 10], len(path.file))),
    "cut after 90 %, and the length says so": lambda path: path.file[: len(path.file) * 9 // 10],
    "stalls after 90 %": lambda path: stalling(answered(path.file[: len(path.file) * 9 // 10], len(path.file))),
    "no end": lambda path: raw(b"HTTP/1.1 200 OK\r\n\r\n" + path.file[:-1]),
    "a byte too many": lambda path: raw(b"HTTP/1.1 200 OK\r\n\r\n" + path.file + b"\0"),
    "another NAR of this size": lambda path: cached({**LARGE, b"noise": TreeFile(noise(len(NOISE), "other"))}).file,
    "no NAR from 90 % on": lambda path: path.file[: -len(path.file) // 10] + bytes(len(path.file) // 10),
    "nothing": lambda _: b"",
    "404": lambda _: status(404),
    "500": lambda _: status(500),
}


@pytest.mark.parametrize("lie", LIES)
async def test_no_client_gets_the_whole_of_a_false_nar_and_nothing_is_kept(
    cache: CacheServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lie: str,
) -> None:
    monkeypatch.setattr(http_client.Timeouts, "__init__", _impatient)
    async with await open_store(str(tmp_path / "impatient"), substituters=[cache.url]) as store:
        path = cache.publish(cached(LARGE))
        client = Client(store)
        url = await client.nar_url(path)
        cache.answers[path.nar_path] = LIES[lie](path)  # type: ignore[assignment]
        clients = [client.begin(url) for _ in range(20)]
        answers = await asyncio.wait_for(asyncio.gather(*(asking for _, asking in clients)), 30)
        complete = [answer for answer in answers if answer.status == 200 and answer.is_whole]
        kept = await paths_of(store)
        print("complete answers", len(complete))
        print("most bytes of an answer", max(len(answer.body) for answer in answers))
        assert (complete, kept) == ([], [])
        assert all(len(answer.body) < path.narinfo.nar.size for answer in answers)
        assert len(caplog.records) == 1, "one line for twenty clients"
        # It is refused for a while, and comes when it is right.
        assert (await client.ask(path.narinfo_path)).status == 404


def _impatient(self: http_client.Timeouts) -> None:
    for name in ("connect", "first_byte", "stalled"):
        object.__setattr__(self, name, 1.0)


async def test_what_one_upstream_begins_and_breaks_off_another_does_not_go_on_with(cache: CacheServer, tmp_path: Path) -> None:
    """A client that has bytes of the false NAR does not get the rest of the right one. One that comes then gets it all."""
    path = cached(LARGE)
    async with serving() as other:
        for each in (cache, other):
            each.publish(path)
        gate = Gate(with_another_end(path.file))
        cache.answers[path.nar_path] = gate
        urls = [f"{cache.url}&priority=1", f"{other.url}&priority=2"]
        async with await open_store(str(tmp_path / "two"), substituters=urls) as store:
            client = Client(store)
            url = await client.nar_url(path)
            early, early_asks = client.begin(url)
            await asyncio.wait_for(early.begun.wait(), 10)
            gate.opened.set()
            await asyncio.wait_for(early_asks, 10)
            assert not early.is_whole
            assert len(early.body) < path.narinfo.nar.size
            late = await client.ask(url)
            assert late.is_whole
            assert bytes(late.body) == path.nar
            assert await paths_of(store) == [path.narinfo.store_path]
            assert (nars_asked(cache), nars_asked(other)) == (1, 1)


async def test_the_nar_of_the_narinfo_comes_from_the_upstream_that_has_this_one(cache: CacheServer, tmp_path: Path) -> None:
    """A build that is not reproducible: each upstream has another NAR of one path."""
    first, second = cached(LARGE), cached({**LARGE, b"noise": TreeFile(noise(len(NOISE), "second"))})
    async with serving() as other:
        other.publish(second)
        urls = [f"{cache.url}&priority=1&narinfo-cache-negative-ttl=0", f"{other.url}&priority=2"]
        async with await open_store(str(tmp_path / "two"), substituters=urls) as store:
            client = Client(store)
            url = await client.nar_url(second)
            cache.publish(first)
            assert bytes((await client.ask(url)).body) == second.nar
            assert nars_asked(cache) == 0


async def test_clients_of_two_nars_of_one_path_never_get_a_mixture(cache: CacheServer, tmp_path: Path) -> None:
    first, second = cached(LARGE), cached({**LARGE, b"noise": TreeFile(noise(len(NOISE), "second"))})
    async with serving() as other:
        other.publish(second)
        urls = [f"{cache.url}&priority=1&narinfo-cache-negative-ttl=0", f"{other.url}&priority=2"]
        async with await open_store(str(tmp_path / "two"), substituters=urls) as store:
            client = Client(store)
            wanted = {await client.nar_url(second): second.nar}
            cache.publish(first)
            wanted[await client.nar_url(first)] = first.nar
            asking = [(nar, client.begin(url)[1]) for url, nar in list(wanted.items()) * 5]
            for nar, task in asking:
                answer = await asyncio.wait_for(task, 20)
                assert answer.status == 404 or (answer.is_whole and bytes(answer.body) == nar)
            assert len(await paths_of(store)) == 1


@pytest.mark.parametrize(("content", "pieces"), [(b"small", 0), (NOISE, 4)])
async def test_a_full_disk_breaks_the_stream_off(cache: CacheServer, content: bytes, pieces: int) -> None:
    """Where nothing has been sent yet, the client is told why."""
    path = cache.publish(cached(content))
    inner = await memory.open_store()
    full = FaultyBlobs(inner.blobs, failing(ExhaustedError("the disk is full"), after=pieces))
    store = await with_substituters(replace(inner, blobs=full, staging=None), [cache.url], [], None)
    async with store:
        client = Client(store)
        answer = await client.ask(await client.nar_url(path))
        assert len(answer.body) < path.narinfo.nar.size
        assert await paths_of(store) == []
        if pieces:
            assert not answer.is_whole
        else:
            assert (answer.status, bytes(answer.body)) == (413, b"the disk is full\n")


async def test_a_narinfo_whose_path_does_not_follow_from_its_content_address_is_refused(cache: CacheServer, store: Store) -> None:
    path = cached()
    false = ContentAddress(Method.NAR, NixHash("sha256", noise(32, "false")))
    cache.publish(replace(path, narinfo=replace(path.narinfo, ca=false)))
    assert (await Client(store).ask(path.narinfo_path)).status == 404


async def test_an_unsigned_narinfo_comes_at_once_where_the_upstream_is_trusted(cache: CacheServer, tmp_path: Path) -> None:
    path = cache.publish(cached(key=None))
    async with await open_store(str(tmp_path / "trusts"), substituters=[f"{cache.origin}?require-signatures=false"]) as store:
        client = Client(store)
        assert (await client.narinfo(path)).signatures == ()
        assert bytes((await client.ask(await client.nar_url(path))).body) == path.nar
    async with await open_store(str(tmp_path / "distrusts"), substituters=[cache.url]) as store:
        assert (await Client(store).ask(path.narinfo_path)).status == 404


async def test_our_key_signs_what_was_verified_alone(cache: CacheServer, store: Store) -> None:
    path = cache.publish(cached(LARGE))
    at_once = Client(store, CacheSettings(signing_keys=(OWN,)))
    assert [each.name for each in (await at_once.narinfo(path)).signatures] == [KEY.name]
    waiting = Client(store, CacheSettings(signing_keys=(OWN,), waits_for_nars=True))
    assert (await waiting.ask(path.narinfo_path, "HEAD")).status == 200
    assert nars_asked(cache) == 0
    assert [each.name for each in (await waiting.narinfo(path)).signatures] == [OWN.name, KEY.name]
    assert nars_asked(cache) == 1
    assert [each.name for each in (await at_once.narinfo(path)).signatures] == [OWN.name, KEY.name]


async def test_references_are_asked_for_before_the_client_asks(cache: CacheServer, store: Store) -> None:
    """Each upstream once for each path, and none about what is here."""
    leaves = [cache.publish(cached(name=f"leaf-{number}")) for number in range(50)]
    middle = cache.publish(cached(name="middle").but(references=tuple(leaf.narinfo.store_path for leaf in leaves)))
    absent = StorePath(noise(20, "absent"), "absent")
    here = cache.publish(cached(name="here"))
    top = cache.publish(cached(name="top").but(references=(middle.narinfo.store_path, here.narinfo.store_path, absent)))
    client = Client(store)
    assert (await client.ask(await client.nar_url(here))).is_whole
    asked = cache.asked(here.narinfo_path)
    for _ in range(3):
        await client.narinfo(top)
    await asyncio.wait_for(until(lambda: cache.asked(middle.narinfo_path) > 0), 10)
    await asyncio.sleep(0.1)
    assert not any(cache.asked(leaf.narinfo_path) for leaf in leaves), "not the whole closure"
    await client.narinfo(middle)
    await asyncio.wait_for(until(lambda: all(cache.asked(leaf.narinfo_path) for leaf in leaves)), 10)
    for path in (top, middle, *leaves):
        await client.narinfo(path)
        assert cache.asked(path.narinfo_path) == 1
    assert cache.asked(here.narinfo_path) == asked
    assert nars_asked(cache) == 1


async def test_the_push_route_asks_and_fills_the_store_alone(cache: CacheServer, store: Store) -> None:
    library = cache.publish(cached(b"library", "library"))
    path = cache.publish(cached(LARGE, "app").but(references=(library.narinfo.store_path,)))
    client = Client(store)
    nar = f"/push/nar/{nixbase32.encode(path.narinfo.nar.sha256)}.nar"
    for _ in range(2):
        assert (await client.ask(path.narinfo_path)).status == 200
        assert (await client.ask("/push" + path.narinfo_path)).status == 404
        assert (await client.ask("/push" + path.narinfo_path, "HEAD")).status == 404
        assert (await client.ask(nar, "HEAD")).status == 404
        assert (await client.ask("/push/" + (await client.narinfo(path)).url)).status == 404
    early = await client.ask("/push" + path.narinfo_path, "PUT", body=path.narinfo.format())
    assert early.status == 409
    assert b"is not here; put it first" in early.body
    assert (await client.ask(nar, "PUT", body=path.nar)).status == 201
    assert (await client.ask("/push" + path.narinfo_path, "PUT", body=path.narinfo.format())).status == 201
    assert await paths_of(store) == [path.narinfo.store_path]
    assert (await client.ask("/push" + path.narinfo_path)).status == 200
    assert (await client.ask(nar)).status == 200
    assert (await client.ask("/push/nix-cache-info")).body == (await client.ask("/nix-cache-info")).body
    assert (await client.ask("/push/push/nix-cache-info")).status == 404
    assert nars_asked(cache) == 0


async def test_documents_of_upstreams_are_not_on_the_push_route(cache: CacheServer, store: Store) -> None:
    cache.answers[f"/log/{LOG}"] = b"built\n"
    client = Client(store)
    assert (await client.ask(f"/log/{LOG}")).body == b"built\n"
    assert (await client.ask(f"/push/log/{LOG}")).status == 404
    assert (await client.ask(f"/push/log/{LOG}", "PUT", body=b"ours\n")).status == 201
    assert (await client.ask(f"/push/log/{LOG}")).body == (await client.ask(f"/log/{LOG}")).body == b"ours\n"
