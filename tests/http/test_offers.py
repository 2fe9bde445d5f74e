"""What narinfos offer is true: the hash and size of the file, and that it is there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import zstandard

from tests.http.in_process import answer
from tvix_store.backends.local import contents, open_store
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.records import Buffer
from tvix_store.backends.nix_http.client import USER_AGENT
from tvix_store.errors import CorruptError, ExhaustedError
from tvix_store.http import narinfos
from tvix_store.http.app import BinaryCache
from tvix_store.http.settings import COMPRESSIONS, CacheSettings
from tvix_store.model import nixbase32
from tvix_store.model.digest import Digest
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nars import offer
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.operations.nars.offer import NarOffers
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.operations.nars.planner import MAX_NAR
from tvix_store.services.store import Store
from tvix_store.testing.content import missing, noise, put_tree
from tvix_store.testing.trees import TreeFile

PATH = StorePath(b"o" * 20, "offered")
NARINFO = f"/{nixbase32.encode(PATH.output_hash)}.narinfo"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_store(tmp_path / "store") as store:
        yield store


async def put_path(store: Store, size: int = 3_000_000) -> PathInfo:
    node = await put_tree(store, {b"noise": TreeFile(noise(size)), b"text": TreeFile(b"text " * 100_000), b"x": {b"y": {}}})
    return await store.path_infos.put(PathInfo(PATH, node, await store.nar.calculate(node)))


async def ask(
    app: BinaryCache, path: str, method: str = "GET", body: bytes = b"", fields: Mapping[bytes, bytes] = MappingProxyType({})
) -> tuple[int, bytes]:
    status, _, got = await answer(app, path, method, body, fields)
    return status, got


async def narinfo(app: BinaryCache, query: str = "", agent: str = "") -> NarInfo:
    status, body = await ask(app, NARINFO + query, fields={b"user-agent": agent.encode()})
    assert status == 200
    return NarInfo.parse(body)


@pytest.mark.parametrize("compression", ["zstd", "none"])
async def test_the_hash_and_size_are_those_of_the_file_that_is_served(store: Store, compression: str) -> None:
    info = await put_path(store)
    for _ in range(2):
        app = BinaryCache(store, CacheSettings(nar_compression=compression))
        told = await narinfo(app)
        assert told.compression == compression
        _, file = await ask(app, "/" + told.url)
        assert told.file_size == len(file)
        assert told.file_hash is not None
        assert told.file_hash.digest == hashlib.sha256(file).digest()
        nar = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read() if compression == "zstd" else file
        assert hashlib.sha256(nar).digest() == info.nar.sha256


@pytest.mark.parametrize(
    ("agent", "offered"),
    [
        ("snix-store/0.1.0", "none"),
        ("tvix-store/0.1.0", "none"),
        (USER_AGENT, "zstd"),
        ("curl/8.5.0 Nix/2.34.8", "zstd"),
        ("", "zstd"),
    ],
)
async def test_clients_that_take_root_nodes_are_offered_these(store: Store, agent: str, offered: str) -> None:
    await put_path(store)
    app = BinaryCache(store, CacheSettings())
    for told in (await narinfo(app), await narinfo(app, agent=agent), await narinfo(app)):
        assert told.compression == (offered if told.url.startswith("nar/snix-castore/") else "zstd")
    for _ in range(2):
        assert (await narinfo(app, agent=agent)).compression == offered
        for compression in COMPRESSIONS:
            assert (await narinfo(app, f"?compression={compression}", agent=agent)).compression == compression
    assert (await narinfo(BinaryCache(store, CacheSettings(nar_compression="none")), agent=agent)).compression == "none"


async def test_what_depends_on_the_client_says_so(store: Store) -> None:
    await put_path(store)
    for compression, vary in (("zstd", {b"vary": b"user-agent"}), ("none", {})):
        app = BinaryCache(store, CacheSettings(nar_compression=compression))
        for fields in ({}, {b"if-none-match": b"*"}):
            _, headers, _ = await answer(app, NARINFO, fields=fields)
            assert {name: value for name, value in headers.items() if name == b"vary"} == vary


@pytest.mark.parametrize(("patience", "offered"), [(0, ["none", "zstd"]), (30, ["zstd", "zstd"])])
async def test_a_large_file_is_hashed_beside_and_offered_when_that_is_done(
    store: Store, monkeypatch: pytest.MonkeyPatch, patience: float, offered: list[str]
) -> None:
    monkeypatch.setattr(offer, "_HASHED_AT_ONCE", 1000)
    monkeypatch.setattr(narinfos, "_FRESH_FOR_NOW", 0.0)
    monkeypatch.setattr(offer, "_PATIENCE", patience)
    await put_path(store)
    app = BinaryCache(store, CacheSettings())
    compressions = []
    for _ in range(2):
        told = await narinfo(app)
        compressions.append(told.compression)
        _, file = await ask(app, "/" + told.url)
        assert told.file_hash is not None
        assert (told.file_hash.digest, told.file_size) == (hashlib.sha256(file).digest(), len(file))
        await asyncio.gather(*app._narinfos._offers._hashing.values())
    assert compressions == offered


async def test_who_puts_a_large_path_has_its_file_hashed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offer, "_HASHED_AT_ONCE", 1000)
    monkeypatch.setattr(offer, "_PATIENCE", 0)
    path_info = await put_path(store)
    app = BinaryCache(store, CacheSettings())
    narinfo_text = NarInfo.of(path_info, "nar/x", "none").format()
    assert (await ask(app, NARINFO, "PUT", narinfo_text))[0] == 201
    await asyncio.gather(*app._narinfos._offers._hashing.values())
    assert (await narinfo(app)).compression == "zstd"


async def test_a_large_file_is_hashed_once_for_all_who_ask(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offer, "_HASHED_AT_ONCE", 1000)
    path_info = await put_path(store)
    offers = NarOffers(store, PlannedNars.of(store))
    offers.prepare(path_info)
    [hashing] = offers._hashing.values()
    offers.prepare(path_info)
    assert list(offers._hashing.values()) == [hashing]
    assert {(await offers.offer(path_info, "zstd")).compression for _ in range(2)} == {"zstd"}
    assert hashing.done()
    assert hashing.exception() is None
    assert not offers._hashing


async def test_no_file_is_hashed_beside_where_many_wait_for_that_or_it_would_be_too_large(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offer, "_HASHED_AT_ONCE", 1000)
    path_info = await put_path(store)
    offers = NarOffers(store, PlannedNars.of(store))
    offers.prepare(replace(path_info, nar=NarFacts(MAX_NAR + 1, path_info.nar.sha256)))
    assert not offers._hashing
    monkeypatch.setattr(offer, "_MOST_HASHING", 0)
    offers.prepare(path_info)
    assert not offers._hashing
    assert (await offers.offer(path_info, "zstd")).compression == "none"


async def test_a_path_that_was_never_pushed_can_be_signed(store: Store) -> None:
    await put_path(store)
    app = BinaryCache(store, CacheSettings(nar_compression="none"))
    told = await narinfo(app)
    signed = replace(told, signatures=(SecretKey.generate("by-hand-1").sign(b"whatever"),))
    assert (await ask(app, NARINFO, "PUT", signed.format()))[0] == 201
    assert [signature.name for signature in (await narinfo(app)).signatures] == ["by-hand-1"]
    other = replace(told, nar=NarFacts(told.nar.size, bytes(32)))
    status, line = await ask(app, NARINFO, "PUT", other.format())
    assert (status, b"put it first" in line) == (409, True)


async def test_the_hash_of_a_file_holds_until_its_frames_may_be_others(store: Store, tmp_path: Path) -> None:
    path_info = await put_path(store)
    app = BinaryCache(store, CacheSettings())
    planned = PlannedNars.of(store)
    links = NarLinks.of(store)
    assert planned is not None
    assert links is not None
    [told] = {(await narinfo(app)).format() for _ in range(2)}
    seal = await planned.seal()
    facts = await links.zstd_file(path_info.nar.sha256, seal)
    assert facts is not None
    lone = noise(1000, "damaged, and of no path")
    await store.blobs.put_many([lone])
    await damaged(store, tmp_path, lone)
    other_seal = await planned.seal()
    assert other_seal != seal
    assert await links.zstd_file(path_info.nar.sha256, other_seal) is None
    app._narinfos._look_at = 0.0
    assert (await narinfo(app)).format() == told
    assert await links.zstd_file(path_info.nar.sha256, other_seal) == facts


async def damaged(store: Store, tmp_path: Path, blob: bytes) -> None:
    """Let a small blob that is stored as it is be damaged, and found so."""
    for pack in (tmp_path / "store/packs").iterdir():
        pack.write_bytes(pack.read_bytes().replace(blob, bytes(len(blob))))
    with pytest.raises(CorruptError):
        await store.blobs.get_many([Digest.of(blob)])
    await store.sync()


class Reversed:
    """Compresses otherwise than the store does: what can be compressed is stored as it is."""

    @staticmethod
    def packed(payloads: Sequence[Buffer], level: int, threads: int) -> Sequence[Buffer]:
        return payloads


async def test_a_chunk_that_is_stored_anew_in_other_bytes_makes_another_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash is never told of the file of before, nor the other way round; whoever asks for the narinfo gets it at once."""
    files = {b"noise": TreeFile(noise(3_000_000)), b"text": TreeFile(b"0123456789" * 10_000)}
    node = await put_tree(store, files)
    await store.path_infos.put(PathInfo(PATH, node, await store.nar.calculate(node)))
    apps = [BinaryCache(store, CacheSettings()) for _ in range(2)]  # two workers
    [told] = {(await narinfo(app)).format() for app in apps}
    url = "/" + NarInfo.parse(told).url
    _, headers, _ = await answer(apps[0], url)
    [text_file] = (tmp_path / "store/packs").iterdir()
    text = Digest.of(b"0123456789" * 10_000)
    engine = Engine.acquire(tmp_path / "store", {})
    place = engine.index.chunk(text.raw)
    engine.release()
    assert place is not None
    assert place.stored < place.length
    with text_file.open("r+b") as file:
        file.seek(place.offset)
        file.write(bytes(place.stored))
    with pytest.raises(CorruptError):
        await store.blobs.get_many([text])
    await store.sync()
    monkeypatch.setattr(contents, "packed", Reversed.packed)
    assert await put_tree(store, files) == node
    for app in apps:
        app._narinfos._look_at = 0.0
        now = await narinfo(app)
        assert now.file_hash != NarInfo.parse(told).file_hash
        status, fields, file_now = await answer(app, url)
        assert status == 200
        assert fields[b"etag"] != headers[b"etag"]
        assert now.file_hash is not None
        assert (now.file_hash.digest, now.file_size) == (hashlib.sha256(file_now).digest(), len(file_now))
        nar = zstandard.ZstdDecompressor().stream_reader(file_now, read_across_frames=True).read()
        assert hashlib.sha256(nar).digest() == now.nar.sha256


async def test_on_a_full_disk_paths_are_still_offered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, **__: object) -> None:
        raise ExhaustedError("the disk is full")

    await put_path(store)
    assert store.records is not None
    monkeypatch.setattr(store.records, "put", full)
    app = BinaryCache(store, CacheSettings())
    told = await narinfo(app)
    assert told.compression == "none"
    assert hashlib.sha256((await ask(app, "/" + told.url))[1]).digest() == told.nar.sha256


@pytest.mark.parametrize("suffix", ["", ".xz", ".zst", ".bz2"])
async def test_a_link_whose_content_was_lost_tells_that_the_nar_is_not_here(store: Store, suffix: str) -> None:
    assert store.records is not None
    lost = NarLink(NarFacts(1000, b"n" * 32), FileNode(missing(), 800))
    await NarLinks(store.records).put(lost, b"f" * 32)
    app = BinaryCache(store, CacheSettings())
    for name in (b"n" * 32, b"f" * 32):
        for method in ("HEAD", "GET"):
            assert (await ask(app, f"/nar/{nixbase32.encode(name)}.nar{suffix}", method))[0] == 404


async def test_a_path_whose_content_is_damaged_is_not_offered(store: Store, tmp_path: Path) -> None:
    await put_path(store)
    needle = noise(3_000_000)[1_000_000:1_000_050]
    for pack in (tmp_path / "store/packs").iterdir():
        data = bytearray(pack.read_bytes())
        data[data.index(needle)] ^= 1
        pack.write_bytes(data)
    assert (await ask(BinaryCache(store, CacheSettings()), NARINFO))[0] == 404
