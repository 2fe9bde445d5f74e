"""Files that are all of a store path: a server that is told so beforehand does not read them again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tvix_store.backends.grpc import open_store
from tvix_store.backends.memory import open_store as open_memory_store
from tvix_store.config import read_only, verified
from tvix_store.errors import DeniedError
from tvix_store.layers.memory_nars import MemoryNars
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.operations.ingest.import_tree import import_tree
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.protocol.blobs import decode_lone_file, encode_lone_file
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, pieces

LARGE = 9_000_000


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Store, Store, MemoryNars]]:
    """A client of a server, the server's store, and what that knows of NARs."""
    store, cache = await open_memory_store(), MemoryNars()
    store = store.with_services(nar=RememberingNarService(store.blobs, store.directories, cache))
    store = replace(store, known_nars=cache)
    async with serve(await store_methods(store=verified(store))) as url, await open_store(url) as client:
        yield client, store, cache


@pytest.mark.parametrize("executable", [False, True])
@pytest.mark.parametrize("size", [0, 1, 7, 100_000, LARGE])
async def test_the_nar_of_a_lone_file_is_known_when_it_has_come(size: int, executable: bool) -> None:
    async with served() as (client, store, cache):
        assert client.lone_files is not None
        digest = await client.lone_files.put(pieces(noise(size), 700_000), size, executable=executable)
        assert digest == Digest.of(noise(size))
        node = FileNode(digest, size, executable)
        if size == LARGE:
            assert await cache.get(node) == await calculate_nar(store.blobs, store.directories.tree(node))
        else:  # sent whole in one message, and read again in no time
            assert await client.nar.calculate(node) == await calculate_nar(store.blobs, store.directories.tree(node))


async def test_of_a_file_of_another_size_nothing_is_known() -> None:
    async with served() as (client, _, cache):
        assert client.lone_files is not None
        for size in (LARGE - 1, LARGE + 1):
            digest = await client.lone_files.put(pieces(noise(LARGE), 1 << 20), size, executable=False)
            assert await cache.get(FileNode(digest, size)) is None
            assert await cache.get(FileNode(digest, LARGE)) is None


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("mode", [0o644, 0o755])
async def test_an_imported_file_is_not_read_again(tmp_path: Path, mode: int, flat: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(noise(LARGE))
    file.chmod(mode)
    async with served() as (client, store, cache):
        imported = await import_tree(client, file, flat=flat)
        assert await cache.get(imported.node) == imported.nar
        assert imported == await import_tree(await open_memory_store(), file, flat=flat)
        assert await store.path_infos.get(imported.store_path.output_hash) == imported.path_info


async def test_a_large_file_in_a_directory_is_a_blob_like_others(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(noise(LARGE))
    async with served() as (client, _, cache):
        await import_tree(client, tmp_path / "tree")
        assert await cache.get(FileNode(Digest.of(noise(LARGE)), LARGE)) is None


async def test_a_store_that_is_only_read_takes_none() -> None:
    store = read_only(await open_memory_store())
    async with serve(await store_methods(store=store)) as url, await open_store(url) as client:
        assert client.lone_files is not None
        with pytest.raises(DeniedError):
            await client.lone_files.put(pieces(noise(LARGE), 1 << 20), LARGE, executable=False)


@pytest.mark.parametrize("size", [0, 1, 10**18])
@pytest.mark.parametrize("executable", [False, True])
def test_what_metadata_tells(size: int, executable: bool) -> None:
    headers = [(name.encode(), value.encode()) for name, value in encode_lone_file(size, executable=executable)]
    assert decode_lone_file([(b"grpc-timeout", b"1S"), *headers]) == (size, executable)


@pytest.mark.parametrize(
    "value", [b"", b"x", b"-1", b"1 ", b" 1", b"1 executabl", b"\xb2", b"\xff", b"\xd9\xa1", b"9" * 20, b"1_0"]
)
def test_metadata_that_is_malformed_tells_nothing(value: bytes) -> None:
    assert decode_lone_file([(b"tvix-store-lone-file", value)]) is None
