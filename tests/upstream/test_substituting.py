"""What a store lacks comes from upstream caches, once, and is kept."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import logging
import lzma
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard

from tests.upstream.conftest import QUICK, Before
from tests.upstream.server import KEY, STRANGER, CacheServer, Gate, body, cached, encoded, stalling, status
from tvix_store import __version__
from tvix_store.backends import memory
from tvix_store.config import open_store
from tvix_store.errors import ExhaustedError, InvalidError, UnsupportedError
from tvix_store.layers.cache.cached import cached as cached_offer
from tvix_store.layers.cache.memory_near import MemoryNear
from tvix_store.layers.composing import composed
from tvix_store.layers.fetch_lock import FetchLock
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.paths.check import missing_references
from tvix_store.testing.content import collect, file_nar, noise, put_file
from tvix_store.testing.faults import FaultyBlobs, failing
from tvix_store.testing.trees import Tree, TreeFile

TREE: Tree = {b"bin": {b"run": TreeFile(noise(400_000), executable=True)}, b"link": SymlinkNode(b"bin/run")}


async def test_a_path_comes_from_the_cache_with_all_its_content(cache: CacheServer, before: Before) -> None:
    path = cache.publish(cached(TREE).but(references=(StorePath(noise(20, "other"), "other"),)))
    front = await before(cache)
    got = await front.get(path.output_hash)
    assert got is not None
    assert got == path.narinfo.path_info(got.node)
    assert await collect(render_nar(front.store.blobs, front.store.directories.tree(got.node))) == path.nar


async def test_it_is_fetched_once_and_kept(cache: CacheServer, before: Before) -> None:
    path = cache.publish(cached())
    front = await before(cache)
    first = await front.get(path.output_hash)
    assert first is not None
    asked = len(cache.requests)
    assert await front.get(path.output_hash) == first
    assert len(cache.requests) == asked
    assert [each async for each in front.path_infos.list()] == [first]


async def test_a_reference_that_a_cache_has_is_there_and_not_fetched(cache: CacheServer) -> None:
    there, unsigned = cache.publish(cached()), cached(b"unsigned", "unsigned")
    cache.answers[unsigned.narinfo_path] = replace(unsigned.narinfo, signatures=()).format()
    absent = StorePath(noise(20, "absent"), "absent")
    renamed = StorePath(there.output_hash, "renamed")
    async with await open_store("memory://", substituters=[cache.url]) as store:
        node = await put_file(store.blobs, b"x")
        for reference, missing in (
            (there.narinfo.store_path, False),
            (unsigned.narinfo.store_path, True),
            (absent, True),
            (renamed, True),
        ):
            info = PathInfo(StorePath(noise(20, "own"), "own"), node, file_nar(b"x"), (reference,))
            assert await missing_references(store, info) == [reference] * missing
        assert [each async for each in store.path_infos.list()] == []
    assert not [request for request in cache.requests if request.path.startswith("/nar/")]


@pytest.mark.parametrize(
    ("compression", "compress"),
    [
        ("none", bytes),
        ("xz", lzma.compress),
        ("gzip", gzip.compress),
        ("bzip2", bz2.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
        ("br", brotli.compress),
    ],
)
@pytest.mark.parametrize("file_facts", [True, False])
async def test_nars_may_be_compressed(
    cache: CacheServer, before: Before, compression: str, compress: Callable[[bytes], bytes], file_facts: bool
) -> None:
    path = cache.publish(cached(TREE, compression=compression, compress=compress, file_facts=file_facts))
    got = await (await before(cache)).get(path.output_hash)
    assert got is not None
    assert got.nar == path.narinfo.nar


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("br", brotli.compress), ("gzip", gzip.compress), ("x-gzip", gzip.compress), ("xz", lzma.compress), ("identity", bytes)],
)
async def test_content_encodings_are_undone(
    cache: CacheServer, before: Before, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    path = cached(TREE, compression="xz", compress=lzma.compress)
    cache.answers[path.narinfo_path] = encoded(encode(path.narinfo.format()), encoding)
    cache.answers[path.nar_path] = encoded(encode(path.file), encoding)
    assert await (await before(cache)).get(path.output_hash)


async def test_a_file_size_of_zero_says_nothing(cache: CacheServer, before: Before) -> None:
    """As for Nix: caches that do not know it write it so."""
    path = cache.publish(cached(TREE).but(file_size=0, signed=False))
    assert await (await before(cache)).get(path.output_hash)


async def test_no_encoding_is_asked_for(cache: CacheServer, before: Before) -> None:
    await (await before(cache)).get(bytes(20))
    assert {request.headers["accept-encoding"] for request in cache.requests} == {"identity"}
    assert {request.headers["user-agent"] for request in cache.requests} == {f"tvix-store-python/{__version__}"}


async def test_the_url_of_a_nar_may_be_absolute_and_have_a_query(cache: CacheServer, before: Before) -> None:
    relative = cached()
    path = relative.but(url=f"{cache.origin}/nar/x?sign=a%2Fb+c%20d")
    cache.answers[path.narinfo_path] = path.narinfo.format()
    cache.answers["/nar/x?sign=a%2Fb+c%20d"] = path.file
    assert await (await before(cache)).get(path.output_hash)


async def test_a_cache_may_stand_below_a_path(cache: CacheServer, before: Before) -> None:
    path = cached()
    cache.answers[f"/deep/er{path.narinfo_path}"] = path.narinfo.format()
    cache.answers[f"/deep/er{path.nar_path}"] = path.file
    assert await (await before(f"{cache.origin}/deep/er?trusted-public-keys={KEY.public}")).get(path.output_hash)


async def test_a_nar_that_the_store_knows_is_not_fetched_again(cache: CacheServer, before: Before) -> None:
    first, second = (cache.publish(cached(b"the same", name)) for name in ("one", "two"))
    front = await before(cache)
    assert await front.get(first.output_hash)
    assert await front.get(second.output_hash)
    assert cache.asked(first.nar_path) == 1


async def test_one_fetch_serves_all_who_wait(cache: CacheServer, before: Before) -> None:
    path = cache.publish(cached(TREE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    front = await before(cache)
    waiting = [asyncio.create_task(front.get(path.output_hash)) for _ in range(20)]
    await gate.reached.wait()
    gate.opened.set()
    assert len({id(got) for got in await asyncio.gather(*waiting)}) == 1
    assert cache.asked(path.nar_path) == cache.asked(path.narinfo_path) == 1


async def test_who_stops_waiting_stops_nobody_else(cache: CacheServer, before: Before) -> None:
    path = cache.publish(cached(TREE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    front = await before(cache)
    first, second = (asyncio.create_task(front.get(path.output_hash)) for _ in range(2))
    await gate.reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.opened.set()
    assert await second
    assert cache.asked(path.nar_path) == 1


async def test_when_nobody_waits_any_more_the_fetch_is_called_off(cache: CacheServer, before: Before) -> None:
    path = cache.publish(cached(TREE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    front = await before(cache)
    waiting = [asyncio.create_task(front.get(path.output_hash)) for _ in range(2)]
    await gate.reached.wait()
    for each in waiting:
        each.cancel()
    await asyncio.wait_for(gate.left.wait(), 5)
    cache.publish(path)
    assert await front.get(path.output_hash)


@pytest.mark.parametrize("known", ["", "&priority=10"])
async def test_caches_are_asked_in_order_of_priority(
    cache: CacheServer, other_cache: CacheServer, before: Before, known: str
) -> None:
    other_cache.answers["/nix-cache-info"] = b"StoreDir: /nix/store\nPriority: %d\n" % (90 if known else 30)
    path = cached()
    cache.publish(path)
    other_cache.publish(path)
    assert await (await before(cache, other_cache.url + known)).get(path.output_hash)
    assert other_cache.asked(path.narinfo_path) == 1
    assert cache.asked(path.narinfo_path) == 0


async def test_a_priority_that_was_given_holds_for_a_cache_that_has_not_answered_yet(
    cache: CacheServer, other_cache: CacheServer, before: Before
) -> None:
    introduction = other_cache.answers["/nix-cache-info"]
    other_cache.answers["/nix-cache-info"] = status(500)
    front = await before(cache, f"{other_cache.url}&priority=10", pause=0.1)
    assert await front.get(bytes(20)) is None
    other_cache.answers["/nix-cache-info"] = introduction
    await asyncio.sleep(0.11)
    assert await front.get(cache.publish(other_cache.publish(cached())).output_hash)
    assert [request.path for request in other_cache.requests][-1].startswith("/nar/")


async def test_connections_are_used_again(cache: CacheServer, before: Before) -> None:
    """Also after answers that nobody reads."""
    missing = cached(name="missing")
    cache.answers[missing.narinfo_path] = body(b"<html>It is not here</html>", "404 Not Found")
    moved = cache.publish(cached(name="moved"))
    cache.answers[moved.nar_path] = body(b"<html>It is there</html>", "302 Found\r\nLocation: /there")
    cache.answers["/there"] = moved.file
    front = await before(cache)
    assert await front.get(missing.output_hash) is None
    assert await front.get(moved.output_hash)
    assert cache.connections == 1


async def test_what_the_first_cache_lacks_the_next_may_have(cache: CacheServer, other_cache: CacheServer, before: Before) -> None:
    path = other_cache.publish(cached())
    assert await (await before(cache, other_cache)).get(path.output_hash)
    assert cache.asked(path.narinfo_path) == 1


@pytest.mark.parametrize("code", [403, 404, 410])
async def test_that_a_cache_lacks_a_path_is_remembered_for_a_while(cache: CacheServer, before: Before, code: int) -> None:
    path = cached()
    cache.answers[path.narinfo_path] = status(code)
    front = await before(f"{cache.url}&narinfo-cache-negative-ttl=1")
    for _ in range(3):
        assert await front.get(path.output_hash) is None
    assert cache.asked(path.narinfo_path) == 1
    cache.publish(path)
    assert await front.get(path.output_hash) is None
    await asyncio.sleep(1.05)
    assert await front.get(path.output_hash)


async def test_a_path_that_is_put_is_found_whatever_was_remembered(cache: CacheServer, before: Before) -> None:
    """Here and at another worker, which asked before and remembers."""
    store = await memory.open_store()
    front, other_worker = await before(cache, store=store), await before(cache, store=store)
    path = PathInfo(StorePath(noise(20, "put"), "put"), await put_file(store.blobs, b"put"), file_nar(b"put"))
    for each in (front, other_worker):
        assert await each.get(path.store_path.output_hash) is None
    await front.put(path)
    for each in (front, other_worker):
        assert await each.get(path.store_path.output_hash) == path


async def test_a_put_makes_the_cache_be_asked_again(cache: CacheServer, before: Before) -> None:
    front = await before(cache)
    path = cached(b"put")
    assert await front.get(path.output_hash) is None
    stored = path.narinfo.path_info(await put_file(front.store.blobs, b"put"))
    await front.put(stored)
    front.store.path_infos._path_infos.clear()  # type: ignore[attr-defined]  # as if it was deleted
    assert await front.get(path.output_hash) is None
    assert cache.asked(path.narinfo_path) == 2


@pytest.mark.parametrize("has_cache", [False, True])
async def test_another_worker_that_fetched_meanwhile_has_fetched_for_us(
    cache: CacheServer, before: Before, tmp_path: Path, has_cache: bool
) -> None:
    """Also where each worker has a cache before the store, which believes for a while that a path is not there."""
    path = cache.publish(cached(TREE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    far = await memory.open_store()
    put, puts = far.path_infos.put, 0

    async def counted(path_info: PathInfo, *args: Any, **kwargs: Any) -> PathInfo:
        nonlocal puts
        puts += 1
        return await put(path_info, *args, **kwargs)

    far.path_infos.put = counted  # type: ignore[method-assign]
    offers = [cached_offer(MemoryNear(1 << 20), far) if has_cache else far for _ in range(4)]
    fronts = [await before(cache, store=composed(offer, offer, offer), lock=FetchLock(tmp_path / "lock")) for offer in offers]
    waiting = [asyncio.create_task(front.get(path.output_hash)) for front in fronts]
    await gate.reached.wait()
    await asyncio.sleep(0.1)
    gate.opened.set()
    assert all(await asyncio.gather(*waiting))
    assert (cache.asked(path.nar_path), puts) == (1, 1)


async def test_a_cache_that_is_down_costs_one_request_a_pause(
    cache: CacheServer, other_cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [other_cache.publish(cached(name=f"path-{n}")) for n in range(5)]
    cache.answers["/nix-cache-info"] = stalling()
    front = await before(cache, other_cache, pause=60, timeouts=QUICK)
    for path in paths:
        assert await front.get(path.output_hash)
    assert len(cache.requests) == 1
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.getMessage() == f"substituter {cache.origin} is down: {cache.origin}/nix-cache-info does not answer in time"


async def test_a_cache_that_is_up_again_is_asked_again(cache: CacheServer, before: Before) -> None:
    path = cache.publish(cached())
    cache.answers[path.narinfo_path] = status(503)
    front = await before(cache, pause=1)
    assert await front.get(path.output_hash) is None
    cache.publish(path)
    assert await front.get(path.output_hash) is None
    await asyncio.sleep(1.05)
    assert await front.get(path.output_hash)


async def test_what_fails_at_once_is_tried_again_at_once(cache: CacheServer, before: Before) -> None:
    path = cache.publish(cached())

    async def first(writer: asyncio.StreamWriter) -> None:
        cache.publish(path)
        writer.transport.abort()

    cache.answers[path.narinfo_path] = first
    assert await (await before(cache)).get(path.output_hash)


async def test_nothing_is_asked_of_a_cache_for_another_store_directory(
    cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache.publish(cached())
    cache.answers["/nix-cache-info"] = b"StoreDir: /gnu/store\n"
    assert await (await before(cache)).get(path.output_hash) is None
    assert cache.asked(path.narinfo_path) == 0
    assert "a cache for '/gnu/store', not for /nix/store" in caplog.text


async def test_without_signatures_it_works_where_that_is_said(cache: CacheServer, before: Before) -> None:
    path = cache.publish(cached(key=None))
    assert await (await before(f"{cache.origin}?require-signatures=false")).get(path.output_hash)


async def test_one_of_several_keys_is_enough(cache: CacheServer, before: Before) -> None:
    path = cache.publish(cached())
    front = await before(f"{cache.origin}?trusted-public-keys={STRANGER.public}%20{KEY.public}")
    assert await front.get(path.output_hash)


async def test_a_full_disk_is_told_to_who_asks(cache: CacheServer, other_cache: CacheServer, before: Before) -> None:
    path = other_cache.publish(cache.publish(cached()))
    store = await memory.open_store()
    full = FaultyBlobs(store.blobs, failing(ExhaustedError("the disk is full")))
    front = await before(cache, other_cache, store=replace(store, blobs=full, staging=None))
    for _ in range(2):
        with pytest.raises(ExhaustedError, match="the disk is full"):
            await front.get(path.output_hash)
    assert other_cache.asked(path.nar_path) == 2


async def test_closing_ends_what_is_running(cache: CacheServer, tmp_path: Path) -> None:
    path = cache.publish(cached(TREE))
    gate = cache.answers[path.nar_path] = Gate(path.file)
    store = await open_store(str(tmp_path / "store"), substituters=[cache.url])
    left, waiting = (asyncio.create_task(store.path_infos.get(path.output_hash)) for _ in range(2))
    await gate.reached.wait()
    left.cancel()
    await store.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(gate.left.wait(), 5)


async def test_a_store_has_substituters_by_its_opening(cache: CacheServer, tmp_path: Path) -> None:
    path = cache.publish(cached(TREE))
    async with await open_store(
        str(tmp_path / "store"), substituters=[cache.origin], substituter_public_keys=[KEY.public]
    ) as store:
        assert await store.path_infos.get(path.output_hash)
    async with await open_store(str(tmp_path / "store")) as store:
        assert await store.path_infos.get(path.output_hash)


async def test_the_address_of_a_cache_is_one_of_path_infos(cache: CacheServer, tmp_path: Path) -> None:
    path = cache.publish(cached(TREE))
    async with await open_store(str(tmp_path / "store"), path_infos=f"nix+{cache.url}") as store:
        assert await store.path_infos.get(path.output_hash)
    async with await open_store(str(tmp_path / "store")) as store:
        got = await store.path_infos.get(path.output_hash)
        assert got is not None
        assert await collect(render_nar(store.blobs, store.directories.tree(got.node))) == path.nar


async def test_the_address_of_a_cache_may_say_where_content_goes(cache: CacheServer, tmp_path: Path) -> None:
    path = cache.publish(cached(TREE))
    blobs, directories = tmp_path / "blobs", tmp_path / "directories"
    async with await open_store(f"nix+{cache.url}&blob_service={blobs}&directory_service={directories}") as store:
        assert await store.path_infos.get(path.output_hash)
    async with await open_store(str(directories)) as store:
        assert await store.path_infos.get(path.output_hash)
    async with await open_store(str(blobs)) as store:
        assert await store.path_infos.get(path.output_hash) is None


async def test_such_an_address_goes_by_the_keys_and_the_store_directory_that_are_given(cache: CacheServer, tmp_path: Path) -> None:
    path = cache.publish(cached(TREE))
    signed = replace(path.narinfo, signatures=(KEY.sign(path.narinfo.fingerprint("/gnu/store")),))
    cache.answers[path.narinfo_path] = signed.format("/gnu/store")
    cache.answers["/nix-cache-info"] = b"StoreDir: /gnu/store\n"
    address = f"nix+{cache.origin}?blob_service={tmp_path}/store"
    with pytest.raises(InvalidError, match="no key to check its signatures"):
        await open_store(address, store_dir="/gnu/store")
    async with await open_store(address, store_dir="/gnu/store", substituter_public_keys=[KEY.public]) as store:
        assert await store.path_infos.get(path.output_hash)


async def test_a_cache_alone_is_no_store() -> None:
    address = "nix+http://127.0.0.1:1?require-signatures=false"
    lacks = r"^nix\+http://127.0.0.1:1 has no %s: give the address of a store that has them, or say where they go, "
    with pytest.raises(UnsupportedError, match=lacks % "blobs and no directories and no path infos"):
        await open_store(address)
    with pytest.raises(UnsupportedError, match=lacks % "blobs"):
        await open_store("memory://", blobs=address)


async def test_a_cache_may_be_one_of_path_infos_whose_content_stands_in_two_places(cache: CacheServer, tmp_path: Path) -> None:
    path = cache.publish(cached(TREE))
    blobs, directories = str(tmp_path / "blobs"), str(tmp_path / "directories")
    async with await open_store(blobs=blobs, directories=directories, path_infos=f"nix+{cache.url}") as store:
        got = await store.path_infos.get(path.output_hash)
        assert got is not None
        assert await collect(render_nar(store.blobs, store.directories.tree(got.node))) == path.nar
        assert store.foreign_documents is not None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1", "there is no key to check its signatures with"),
        ("http://127.0.0.1:1?trusted-public-keys=x", "trusted-public-keys: not a public key"),
        ("http://127.0.0.1:1?colour=1", "unknown parameter 'colour' .known: trusted-public-keys, "),
        ("http://127.0.0.1:1?priority=high", "'high' is not a value for priority"),
        ("http://127.0.0.1:1?priority=1&priority=2", "twice"),
        ("ftp://127.0.0.1", "expected http://"),
        ("http://", "not the address of a binary cache"),
        ("http://h:99999", "not the address of a binary cache"),
        ("http://me:secret@h\u00e9", "not the address of a binary cache: 'http://h\u00e9'"),
    ],
)
async def test_a_wrong_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason) as caught:
        await open_store("memory://", substituters=[url])
    assert "secret" not in str(caught.value)
