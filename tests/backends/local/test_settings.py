"""`settings.json`: what a store was made with, whatever the file holds; and the store directory, which is a part of every path."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tvix_store.backends.local import open_store
from tvix_store.config import open_store as open_address
from tvix_store.errors import CorruptError, InvalidError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store

PATH_INFO = PathInfo(StorePath(b"o" * 20, "path"), FileNode(Digest.of(b"x"), 1), NarFacts(1, b"n" * 32))


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    async with await open_store(tmp_path / "store"):
        return tmp_path / "store"


def of_an_earlier_version(directory: Path) -> None:
    """Make a store one that does not know its store directory."""
    values = settings(directory)
    del values["store_dir"]
    (directory / "settings.json").write_text(json.dumps(values))


def settings(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "settings.json").read_text())  # type: ignore[no-any-return]


@contextmanager
def refused(line: str) -> Iterator[None]:
    with pytest.raises(CorruptError, match=line) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert "settings.json" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"format":' + b"[" * 20_000,
        b'{"format": 2, "x": ' + b'{"a":' * 10_000,
        b"",
        b"\0" * 500,
        b"\xff\xfe",
        b"[]",
        b"2",
        b'"2"',
        b"null",
        b"{}",
        b'{"format": 2} {}',
        b'{"format": [2]}',
        b'{"format": {}}',
        b'{"format": 2.0}',
        b'{"format": true}',
        b'{"format": "2"}',
        b'{"format": NaN}',
        b'{"format": ' + b"9" * 5000 + b"}",
        b'{"format": 2, "pack_size": ' + b" " * 70_000 + b"1048576}",
        b'{"format": 2, "unheard of": 1}',
        b'{"format": 2, "' + b"long" * 2000 + b'": 1}',
        b'{"format": 2, "pack_size": "1048576"}',
        b'{"format": 2, "pack_size": 1e9}',
        b'{"format": 2, "pack_size": -1}',
        b'{"format": 2, "pack_size": null}',
        b'{"format": 2, "chunk_average": 65536.5}',
        b'{"format": 2, "chunk_average": [65536]}',
        b'{"format": 2, "compression_level": true}',
        b'{"format": 2, "compression_level": Infinity}',
        b'{"format": 2, "size_rule": 5}',
        b'{"format": 2, "size_rule": ["snix"]}',
        b'{"format": 2, "size_rule": "SNIX"}',
        b'{"format": 2, "store_dir": 5}',
        b'{"format": 2, "store_dir": "relative"}',
        b'{"format": 2, "store_dir": "/line\\nbreak"}',
    ],
    ids=lambda text: repr(text[:40]),
)
async def test_what_is_no_settings_is_told_in_a_line(directory: Path, text: bytes) -> None:
    (directory / "settings.json").write_bytes(text)
    with refused("settings|damaged"):
        await open_store(directory)
    assert (directory / "settings.json").read_bytes() == text


async def test_a_huge_file_is_not_read(directory: Path) -> None:
    with (directory / "settings.json").open("r+b") as file:
        file.truncate(1 << 40)
    with refused("at most 65536 bytes"):
        await open_store(directory)


@pytest.mark.timeout(60)
async def test_what_is_no_file_is_not_waited_for(directory: Path) -> None:
    (directory / "settings.json").unlink()
    os.mkfifo(directory / "settings.json")
    with refused("not the settings"):
        await open_store(directory)
    (directory / "settings.json").unlink()
    (directory / "settings.json").mkdir()
    with pytest.raises((CorruptError, UnavailableError), match="settings"):
        await open_store(directory)


async def paths(store: Store) -> list[StorePath]:
    return [info.store_path async for info in store.path_infos.list()]


@pytest.mark.parametrize("store_dir", ["/gnu/store", "/nix/store", "/home/me/.nix/store"])
async def test_a_store_is_of_one_store_directory(tmp_path: Path, store_dir: str) -> None:
    address = f"local://{tmp_path}/store"
    async with await open_address(address, store_dir=store_dir) as store:
        await store.path_infos.put(PATH_INFO)
    async with await open_address(address) as store:  # who does not say one gets the one that it is
        assert store.store_dir == store_dir
    async with await open_address(address, store_dir=store_dir) as store:
        assert await paths(store) == [PATH_INFO.store_path]
    for other in {"/gnu/store", "/nix/store"} - {store_dir}:
        with pytest.raises(InvalidError, match=f"holds paths of {store_dir}, not of {other}"):
            await open_address(address, store_dir=other)


async def test_a_store_is_of_the_default_where_none_was_said(tmp_path: Path) -> None:
    address = f"local://{tmp_path}/store"
    async with await open_address(address):
        pass
    with pytest.raises(InvalidError, match="holds paths of /nix/store, not of /gnu/store"):
        await open_address(address, store_dir="/gnu/store")


async def test_content_may_be_shared_by_stores_of_several_store_directories(tmp_path: Path) -> None:
    content = f"local://{tmp_path}/content"
    for store_dir in ("/nix/store", "/gnu/store"):
        own = f"local://{tmp_path}/own{store_dir}"
        async with await open_address(content, path_infos=own, store_dir=store_dir) as store:
            assert store.store_dir == store_dir
            await store.blobs.put_many([b"shared"])
        assert settings(tmp_path / f"own{store_dir}")["store_dir"] == store_dir


async def test_an_earlier_store_takes_the_first_store_directory_that_is_said(directory: Path) -> None:
    of_an_earlier_version(directory)
    async with await open_store(directory) as store:
        assert store.store_dir == "/nix/store"
        assert await paths(store) == []
    assert "store_dir" not in settings(directory)  # whoever only reads decides nothing
    async with await open_store(directory, store_dir="/gnu/store"):
        assert settings(directory)["store_dir"] == "/gnu/store"
    with pytest.raises(InvalidError, match="holds paths of /gnu/store"):
        await open_store(directory, store_dir="/nix/store")


async def test_an_earlier_store_takes_the_default_with_the_first_path(directory: Path) -> None:
    of_an_earlier_version(directory)
    async with await open_store(directory) as store:
        await store.path_infos.put(PATH_INFO)
        assert settings(directory)["store_dir"] == "/nix/store"
        await store.path_infos.put(PATH_INFO)
    with pytest.raises(InvalidError, match="holds paths of /nix/store, not of /gnu/store"):
        await open_store(directory, store_dir="/gnu/store")


async def test_a_process_that_took_the_default_is_refused_once_another_said_more(directory: Path) -> None:
    of_an_earlier_version(directory)
    async with await open_store(directory) as store, await open_store(directory, store_dir="/gnu/store") as other:
        with pytest.raises(InvalidError, match="holds paths of /gnu/store, not of /nix/store"):
            await store.path_infos.put(PATH_INFO)
        await other.path_infos.put(PATH_INFO)
