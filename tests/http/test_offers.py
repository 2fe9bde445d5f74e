"""What narinfos offer is true: the hash and size of the file, and that it is there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from tvix_store.asgi import Event
from tvix_store.backends.local import open_store
from tvix_store.errors import CorruptError, ExhaustedError
from tvix_store.http import narinfos
from tvix_store.http.app import BinaryCache
from tvix_store.http.settings import CacheSettings
from tvix_store.model import nixbase32
from tvix_store.model.digest import Digest
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nar_links import NarLink, NarLinks
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


async def ask(app: BinaryCache, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
    answer: list[Event] = []
    raw, _, query = path.partition("?")
    scope = {"type": "http", "method": method, "path": raw, "raw_path": raw.encode(), "query_string": query.encode()}

    async def receive() -> Event:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: Event) -> None:
        answer.append(event)

    await app({**scope, "headers": [(b"host", b"x")], "http_version": "1.1"}, receive, send)
    return answer[0]["status"], b"".join(event.get("body", b"") for event in answer[1:])


async def narinfo(app: BinaryCache, query: str = "") -> NarInfo:
    status, body = await ask(app, NARINFO + query)
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


@pytest.mark.parametrize(("patience", "offered"), [(0, ["none", "zstd"]), (30, ["zstd", "zstd"])])
async def test_a_large_file_is_hashed_beside_and_offered_when_that_is_done(
    store: Store, monkeypatch: pytest.MonkeyPatch, patience: float, offered: list[str]
) -> None:
    monkeypatch.setattr(narinfos, "_HASHED_AT_ONCE", 1000)
    monkeypatch.setattr(narinfos, "_FRESH_FOR_NOW", 0.0)
    monkeypatch.setattr(narinfos, "_PATIENCE", patience)
    await put_path(store)
    app = BinaryCache(store, CacheSettings())
    compressions = []
    for _ in range(2):
        told = await narinfo(app)
        compressions.append(told.compression)
        _, file = await ask(app, "/" + told.url)
        assert told.file_hash is not None
        assert (told.file_hash.digest, told.file_size) == (hashlib.sha256(file).digest(), len(file))
        await asyncio.gather(*app._narinfos._hashing.values())
    assert compressions == offered


async def test_who_puts_a_large_path_has_its_file_hashed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narinfos, "_HASHED_AT_ONCE", 1000)
    monkeypatch.setattr(narinfos, "_PATIENCE", 0)
    path_info = await put_path(store)
    app = BinaryCache(store, CacheSettings())
    narinfo_text = NarInfo.of(path_info, "nar/x", "none").format()
    assert (await ask(app, NARINFO, "PUT", narinfo_text))[0] == 201
    await asyncio.gather(*app._narinfos._hashing.values())
    assert (await narinfo(app)).compression == "zstd"


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


async def test_the_hash_of_a_file_holds_until_its_frames_may_lie_elsewhere(store: Store, tmp_path: Path) -> None:
    path_info = await put_path(store)
    app = BinaryCache(store, CacheSettings())
    [told] = {(await narinfo(app)).format() for _ in range(2)}
    lone = noise(1000, "damaged, and of no path")
    await store.blobs.put_many([lone])
    for pack in (tmp_path / "store/packs").iterdir():
        pack.write_bytes(pack.read_bytes().replace(lone, bytes(1000)))
    with pytest.raises(CorruptError):
        await store.blobs.get_many([Digest.of(lone)])
    await store.sync()
    links = NarLinks(store.records)  # type: ignore[arg-type]
    assert store.frames is not None
    assert store.frames.generation == 1
    assert await links.zstd_file(path_info.nar.sha256, 1) is None
    app._narinfos._look_at = 0.0
    assert (await narinfo(app)).format() == told
    assert await links.zstd_file(path_info.nar.sha256, 1) == await links.zstd_file(path_info.nar.sha256, 0)


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
