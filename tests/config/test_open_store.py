"""Stores from addresses."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tvix_store.config import open_store, verified
from tvix_store.errors import IncompleteError, InvalidError, NoStoreError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath


@pytest.mark.parametrize("form", ["local://{}", "local:{}", "{}"])
async def test_a_local_store_opens_by_url_and_by_path(tmp_path: Path, form: str) -> None:
    async with await open_store(form.format(tmp_path / "a store")) as store:
        await store.blobs.put_many([b"x"])
    assert (tmp_path / "a store/settings.json").exists()


async def test_a_path_in_a_url_may_be_encoded(tmp_path: Path) -> None:
    async with await open_store(f"local://{tmp_path}/a%20store%3F"):
        pass
    assert (tmp_path / "a store?/settings.json").exists()


@pytest.mark.parametrize("address", ["memory://?size_rule=snix", "local://{}/store?size_rule=snix&chunk_average=65536"])
async def test_parameters_are_settings_of_the_store(tmp_path: Path, address: str) -> None:
    async with await open_store(address.format(tmp_path)) as store:
        assert store.size_rule is SizeRule.SNIX


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("memroy://", r"unknown scheme 'memroy' \(known: .*\); did you mean memory://\?"),
        ("ftp://example.org", r"unknown scheme 'ftp' \(known: local, memory"),
        ("memory", r"a path has a slash, as in \./memory; a URL has a scheme"),
        ("memory://host", "nothing follows memory://"),
        ("local://relative/path", "three slashes, as in local:///relative/path"),
        ("local:///x?colour=1", "unknown parameter 'colour' .known: chunk_average, .*size_rule."),
        ("memory://?colour=1", "unknown parameter 'colour' .known: size_rule."),
        ("local:///x?chunk_average=many", "'many' is not a value for chunk_average"),
        ("memory://?size_rule=odd", "'odd' is not a value for size_rule"),
        ("memory://?size_rule=snix&size_rule=snix", "twice"),
        ("memory://?size_rule", "not the address of a store"),
        ("memory://#x", "%23"),
        ("local://[/x", "not the address of a store"),
        ("local:./relative", r"a relative one stands alone, as in \./relative$"),
        ("cache://?near=memory://", "a type of a composition: --store-composition FILE"),
        ("combined:", "two stores as one are a type of a composition: --store-composition FILE"),
        ("keyfile-signing:", "a daemon signs with --signing-key-file"),
        ("lru://?capacity=none", "'none' is not a value for capacity"),
        ("lru:/x", r"nothing follows lru:// but \?capacity=NUMBER"),
        ("local:relative/path", r"a relative one stands alone, as in \./relative/path"),
        ("a:b/store", r"unknown scheme 'a' .*; a path with a colon begins with \./"),
        ("memory:/x", "nothing follows memory://"),
        ("grpc+unix:x.sock", "three slashes before it"),
        ("grpc+http:localhost:8000", r"a server is written as grpc\+http://host:port"),
        ("redb:/var/lib/snix", "redb is a file of snix; a store in a directory is local:///path"),
        ("file:///x", r"a store in a directory is local:///path; with a binary cache in one go copy --from, copy --to and"),
        ("nix+file:///x", r"with a binary cache in one go copy --from"),
        ("sled:///x", "sled is a database of tvix"),
        ("bigtable://instance", "Bigtable is a backend of snix"),
        ("objectstore:///x", r"the address of a bucket is objectstore\+s3://bucket/prefix"),
        ("s3://bucket?region=x", r"a store in a bucket is objectstore\+s3://bucket; .*region"),
        (
            "https://cache.example.org",
            r"a server is grpc\+https://cache.example.org or, .*; a binary cache is nix\+https://cache.example.org",
        ),
        ("unix:/run/x.sock", r"a server on a socket is grpc\+unix:///path"),
    ],
)
async def test_a_wrong_address_is_refused(address: str, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        await open_store(address)


@pytest.mark.parametrize(
    "address",
    [
        "nix+https://me:secret@host?priority=1&priority=2",
        "nix+https://me:secret@host#x",
        "nix+https://me:secret@[host",
        "nix+https://me:secret\u2100@host",
        "nix+https://me@host?secret",
        "nix+https://me@host?blob_service=secret&colour=1",
        "nxi+https://me:secret@host",
        "memory://me:secret@host?size_rule=odd&size_rule=odd",
        "memroy:me:secret@host/path",
        "grpc+http://me:secret@host:8000?colour=secret",
        "grpc+http://me:secret@host:eight",
        "memroy:/path?secret",
    ],
)
async def test_no_password_is_shown(address: str) -> None:
    with pytest.raises(InvalidError) as caught:
        await open_store(address)
    assert "secret" not in str(caught.value)


async def test_services_may_come_from_three_stores(tmp_path: Path) -> None:
    blobs, directories, path_infos = (f"local://{tmp_path}/{name}" for name in ("blobs", "directories", "path-infos"))
    async with await open_store(blobs=blobs, directories=directories, path_infos=path_infos) as store:
        (digest,) = await store.blobs.put_many([b"x"])
        directory = Directory({b"x": FileNode(digest, 1)})
        await store.directories.put(_stream(directory))
        node = directory.node()
        await store.path_infos.put(PathInfo(StorePath(bytes(20), "x"), node, await store.nar.calculate(node)))
    async with await open_store(blobs) as store:
        assert await store.blobs.stat(digest)
        assert await store.directories.get(directory.digest) is None
    async with await open_store(path_infos) as store:
        assert await store.path_infos.get(bytes(20))


async def test_two_services_at_one_address_are_of_one_store() -> None:
    async with await open_store("memory://", path_infos="memory://?size_rule=snix") as store:
        (digest,) = await store.blobs.put_many([b"x"])
        assert (await store.nar.calculate(FileNode(digest, 1))).size == 120


async def test_where_one_store_cannot_be_opened_none_stays_open(tmp_path: Path) -> None:
    with pytest.raises(InvalidError):
        await open_store(str(tmp_path / "store"), path_infos="nonsense://")
    async with await open_store(str(tmp_path / "store")):
        pass


async def test_a_verified_store_takes_only_true_path_infos() -> None:
    async with verified(await open_store("memory://")) as store:
        false = PathInfo(StorePath(bytes(20), "x"), FileNode(Digest(bytes(32)), 1), NarFacts(1, bytes(32)))
        with pytest.raises(IncompleteError):
            await store.path_infos.put(false)


async def _stream(directory: Directory) -> AsyncIterator[Directory]:
    yield directory


@pytest.mark.parametrize("as_worker", [False, True])
async def test_a_member_of_a_crew_reads_without_threads(tmp_path: Path, as_worker: bool) -> None:
    async with await open_store(str(tmp_path / "store"), as_worker=as_worker) as store:
        [digest] = await store.blobs.put_many([b"x" * 1000])
        assert await store.blobs.get_many([digest]) == [b"x" * 1000]
        reading = [thread for thread in threading.enumerate() if thread.name.startswith("tvix-store-read")]
    assert bool(reading) is not as_worker


async def test_a_store_that_is_not_there_is_made_or_missed(tmp_path: Path) -> None:
    with pytest.raises(NoStoreError, match=f"^there is no store in {tmp_path}/store$"):
        await open_store(f"{tmp_path}/store", create=False)
    assert not (tmp_path / "store").exists()
    async with await open_store(f"{tmp_path}/store"):
        pass
    async with await open_store(f"{tmp_path}/store", create=False):
        pass
    with pytest.raises(NoStoreError, match=f"^there is no cache a of the store in {tmp_path}/store$"):
        await open_store(f"local://{tmp_path}/store?cache=a", create=False)


@pytest.mark.parametrize("create", [True, False])
async def test_a_directory_of_something_else_is_no_store(tmp_path: Path, create: bool) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(NoStoreError, match="is neither empty nor a store"):
        await open_store(str(tmp_path), create=create)


@pytest.mark.parametrize("create", [True, False])
async def test_a_file_is_no_store(tmp_path: Path, create: bool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidError, match="file cannot be a store's directory: Not a directory"):
        await open_store(f"{tmp_path}/file", create=create)
