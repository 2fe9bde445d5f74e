"""A binary cache in a directory: what a stranger may have put there, and a store that is filled from one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.upstream.server import KEY, CachedPath, cached
from tvix_store.backends import nix_file
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.config import open_store
from tvix_store.config.caches import open_cache, parse_cache
from tvix_store.config.substituters import checked_urls
from tvix_store.errors import InvalidError, StoreError
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.paths.copy_from_cache import all_narinfos, copy_from_cache, named_narinfos
from tvix_store.operations.paths.path_copies import Status
from tvix_store.services.upstream import UpstreamDownError, UpstreamLacksError, UpstreamLiesError
from tvix_store.testing.content import collect


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty cache."""
    place = tmp_path / "cache"
    (place / "nar").mkdir(parents=True)
    (place / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    return place


@pytest.fixture
def upstream(directory: Path) -> nix_file.DirectoryCache:
    return nix_file.open_cache(nix_file.DirectoryAddress(directory))


def publish(directory: Path, path: CachedPath) -> CachedPath:
    (directory / path.narinfo_path.removeprefix("/")).write_bytes(path.narinfo.format())
    file = directory / path.narinfo.url
    if file.parent.is_dir() and not os.path.lexists(file):
        file.write_bytes(path.file)
    return path


def url(directory: Path) -> str:
    return f"file://{directory}?trusted-public-keys={KEY.public}"


@pytest.mark.parametrize(
    "where",
    [
        "../secret",
        "nar/../../secret",
        "SECRET",
        "nar//file.nar",
        "./nar/file.nar",
        "nar/./file.nar",
        "nar/",
        "nar",
        ".",
        "..",
        "file:///etc/passwd",
        "http://localhost/file.nar",
        "link",
        "folder/secret",
        "nar/fifo",
        "nar/socket",
        "zero",
        "nar/file.nar/x",
        "n" * 300,
    ],
)
async def test_a_url_leads_to_a_regular_file_of_the_cache_or_nowhere(
    directory: Path, upstream: nix_file.DirectoryCache, where: str
) -> None:
    secret = directory.parent / "secret"
    secret.write_bytes(b"secret")
    (directory / "link").symlink_to(secret)
    (directory / "folder").symlink_to(directory.parent)
    (directory / "zero").symlink_to("/dev/zero")
    (directory / "nar/file.nar").write_bytes(b"file")
    os.mkfifo(directory / "nar/fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(directory)  # the path of a socket is short
        try:
            listening.bind("nar/socket")
        finally:
            os.chdir(before)
        place = str(secret) if where == "SECRET" else where
        with pytest.raises(UpstreamLiesError):
            await collect(upstream.nar_file(cached().but(url=place).narinfo))
        with pytest.raises(UpstreamLiesError):
            await upstream.document(place, 100)


async def test_a_device_is_not_opened(directory: Path, upstream: nix_file.DirectoryCache) -> None:
    if os.geteuid() != 0:
        pytest.skip("making a device needs root")
    os.mknod(directory / "nar/zero", 0o20666, os.makedev(1, 5))
    with pytest.raises(UpstreamLiesError, match="leads to a device"):
        await collect(upstream.nar_file(cached().but(url="nar/zero").narinfo))


async def test_a_fifo_in_place_of_a_narinfo_keeps_nobody_waiting(directory: Path, upstream: nix_file.DirectoryCache) -> None:
    path = cached()
    os.mkfifo(directory / path.narinfo_path.removeprefix("/"))
    with pytest.raises(UpstreamLiesError, match="leads to a FIFO, which is refused"):
        await upstream.narinfo(path.output_hash)


async def test_an_absent_cache_and_a_directory_that_is_none_are_told_apart(tmp_path: Path) -> None:
    absent = nix_file.open_cache(nix_file.DirectoryAddress(tmp_path / "absent"))
    for asking in (absent.priority(), absent.narinfo(bytes(20)), absent.output_hashes()):
        with pytest.raises(UpstreamDownError, match="absent cannot be read: No such file or directory"):
            await asking
    with pytest.raises(UpstreamLiesError, match="is not a binary cache: it has no nix-cache-info"):
        await nix_file.open_cache(nix_file.DirectoryAddress(tmp_path)).priority()


async def test_a_nar_that_cannot_be_read_is_as_good_as_absent(
    directory: Path, upstream: nix_file.DirectoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish(directory, cached())

    def read(fd: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("tvix_store.backends.nix_file.cache.os.read", read)
    with pytest.raises(UpstreamLacksError, match="cannot be read: Input/output error"):
        await collect(upstream.nar_file(path.narinfo))


async def test_all_is_what_can_be_believed_and_the_rest_is_told(directory: Path) -> None:
    good = publish(directory, cached(b"good", "good"))
    publish(directory, cached(b"unsigned", "unsigned", key=None))
    publish(directory, cached(b"false", "false").but(signed=False, nar=good.narinfo.nar))
    moved = cached(b"moved", "moved")
    (directory / f"{'0' * 32}.narinfo").write_bytes(moved.narinfo.format())
    (directory / f"{'1' * 32}.narinfo").write_bytes(b"no narinfo")
    (directory / "short.narinfo").write_bytes(b"")
    cache = await open_cache(url(directory), (), store_dir="/nix/store")
    refused: list[StoreError] = []
    assert await all_narinfos(cache, refused.append, store_dir="/nix/store") == [good.narinfo]
    told = "\n".join(sorted(map(str, refused)))
    assert len(refused) == 4
    for line in (
        "is not signed by upstream-1",
        "bad signature by upstream-1",
        f"asked for {'0' * 32}, it describes",
        "1.narinfo: ",
    ):
        assert line in told


async def test_one_path_that_lies_does_not_stop_the_others(directory: Path) -> None:
    good = publish(directory, cached(b"good", "good"))
    short = publish(directory, cached(b"short" * 1000, "short"))
    (directory / short.narinfo.url).write_bytes(short.file[:-8])
    longer = publish(directory, cached(b"longer" * 1000, "longer"))
    (directory / longer.narinfo.url).write_bytes(longer.file + bytes(8))
    lost = publish(directory, cached(b"lost", "lost"))
    (directory / lost.narinfo.url).unlink()
    out = publish(directory, cached(b"out", "out").but(url="../cache/nix-cache-info"))
    linked = publish(directory, cached(b"linked", "linked"))
    (directory / linked.narinfo.url).rename(directory / "elsewhere")
    (directory / linked.narinfo.url).symlink_to("../elsewhere")
    cache = await open_cache(url(directory), (), store_dir="/nix/store")
    async with await open_memory() as store:
        names = [str(path.narinfo.store_path) for path in (good, short, longer, lost, out, linked)]
        narinfos = await named_narinfos(cache, names, store_dir="/nix/store", closure=False)
        done = {each.store_path.name: each async for each in copy_from_cache(cache, store, narinfos)}
        assert [name for name, each in done.items() if each.status is Status.COPIED] == ["good"]
        assert "not 5112, its FileSize" in str(done["short"].error)
        assert "more than 6112 bytes" in str(done["longer"].error)
        assert "is not there" in str(done["lost"].error)
        assert "is not the name of a file in the cache" in str(done["out"].error)
        assert "leads to a symlink, which is refused" in str(done["linked"].error)
        assert [each.store_path async for each in store.path_infos.list()] == [good.narinfo.store_path]


async def test_a_store_is_filled_from_a_directory(directory: Path) -> None:
    path, unsigned = publish(directory, cached(b"good", "good")), publish(directory, cached(b"unsigned", "unsigned", key=None))
    async with await open_store("memory://", substituters=[url(directory)]) as store:
        got = await store.path_infos.get(path.output_hash)
        assert got is not None
        assert await collect(render_nar(store.blobs, store.directories.tree(got.node))) == path.nar
        assert await store.path_infos.get(unsigned.output_hash) is None
    with pytest.raises(InvalidError, match="no key to check its signatures"):
        await open_store("memory://", substituters=[f"file://{directory}"])
    with pytest.raises(InvalidError, match="but signatures are required"):
        checked_urls([f"file://{directory}?trusted=1"], require_signatures=True)


@pytest.mark.parametrize("place", ["file://relative/path", "file:relative", "file://me:secret@host/path", "file:", "file:///x%00"])
def test_a_directory_is_absolute_and_on_this_machine(place: str) -> None:
    for parse in (parse_cache, nix_file.WritableAddress.parse):
        with pytest.raises(InvalidError, match="not the address of a binary cache in a directory") as caught:
            parse(place)
        assert "secret" not in str(caught.value)


def test_what_the_address_of_a_cache_to_write_may_say() -> None:
    parse = nix_file.WritableAddress.parse
    assert parse("file:///a%20b") == nix_file.WritableAddress(Path("/a b"))
    assert parse("nix+file:///a?compression=none&secret-key=/k").terms.compression == "none"
    assert parse("file:///a?secret-key=/k&secret-keys=/l,/k").terms.secret_keys == (Path("/k"), Path("/l"))
    assert parse("file:///a?want-mass-query=1&write-nar-listing=1").terms.ignored == ("want-mass-query", "write-nar-listing")
    for query, reason in (("compression=xz", "written as zstd or none, not as 'xz'"), ("trusted=1", "unknown parameter 'trusted'")):
        with pytest.raises(InvalidError, match=reason):
            parse(f"file:///a?{query}")
