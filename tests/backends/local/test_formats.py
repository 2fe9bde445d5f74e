"""Stores that earlier versions have made, one of each format: they are read as they are, and upgraded by a writing open.

`tests/vectors/stores/format-N.tar.xz` was made by the last version of format N, with
`tvix-store --store 'local:///…/store?chunk_average=4096' import tree`.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.backends.local.simulated_disk import NoSyncs
from tests.backends.local.store_files import let_another_boot_follow
from tests.programs import ROOT
from tvix_store.backends.local import open_store
from tvix_store.backends.local.backup import BackupAccount, backup
from tvix_store.backends.local.settings import FORMAT
from tvix_store.errors import UnavailableError
from tvix_store.model.path_info import PathInfo
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise

VECTORS = ROOT / "tests/vectors/stores"
STORE_PATH = "knvv36fkhzpnbdl81rkgxbqdlwsmskl3-tree"
HELLO = b"#!/bin/sh\necho hello\n"
every_earlier_format = pytest.mark.parametrize("version", range(1, FORMAT))


@pytest.fixture
def old(version: int, tmp_path: Path) -> Path:
    """A store of a format."""
    with tarfile.open(VECTORS / f"format-{version}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    assert format_of(tmp_path / "store") == version
    return tmp_path / "store"


def format_of(store: Path) -> int:
    version: int = json.loads((store / "settings.json").read_text())["format"]
    return version


async def the_path(store: Store) -> PathInfo:
    """The only path of a store; all of it is read, and its NAR has the hash that its path info says."""
    await store.check()
    [info] = [each async for each in store.path_infos.list()]
    assert str(info.store_path) == STORE_PATH
    assert await store.nar.calculate(info.node) == info.nar
    found = {}
    async for directory in store.directories.get_recursive(info.node.digest):  # type: ignore[union-attr]
        for name, node in directory.entries.items():
            if hasattr(node, "executable"):
                found[name] = await collect(store.blobs.read(node.digest))  # type: ignore[union-attr]
    assert found[b"tool"] == HELLO
    assert found[b"small"] == b"small\n"
    assert len(found[b"large"]) == 6000 * 14
    return info


@every_earlier_format
async def test_it_is_read_and_not_upgraded(old: Path, version: int) -> None:
    async with await open_store(old, read_only=True) as store:
        await the_path(store)
    assert format_of(old) == version


@every_earlier_format
@pytest.mark.parametrize("is_index_lost", [False, True])
async def test_a_writing_open_upgrades_it_once_and_says_so(
    old: Path, version: int, is_index_lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if is_index_lost:
        shutil.rmtree(old / "index")
    for number in range(2):
        async with await open_store(old) as store:
            await the_path(store)
            await store.blobs.put_many([noise(1000, str(number))])
        assert format_of(old) == FORMAT
        assert caplog.text.count(f"upgrading {old} to store format {FORMAT}") == 1
    let_another_boot_follow(old)
    async with await open_store(old) as store:
        await the_path(store)


@every_earlier_format
async def test_a_backup_upgrades_it_and_is_one_of_the_new_format(old: Path, tmp_path: Path) -> None:
    for _ in backup(old, tmp_path / "copy", BackupAccount(), NoSyncs):
        pass
    assert format_of(old) == format_of(tmp_path / "copy") == FORMAT
    async with await open_store(tmp_path / "copy") as store:
        await the_path(store)


@every_earlier_format
async def test_a_backup_of_an_older_format_is_brought_up_to_date(old: Path, tmp_path: Path, version: int) -> None:
    copy = Path(shutil.copytree(old, tmp_path / "copy"))
    async with await open_store(old) as store:
        await store.blobs.put_many([noise(1000, "new")])
    account = BackupAccount()
    for _ in backup(old, copy, account, NoSyncs):
        pass
    assert account.there > account.copied > 0
    assert format_of(copy) == FORMAT
    async with await open_store(copy) as store:
        await the_path(store)


@every_earlier_format
async def test_a_backup_of_what_is_only_read_goes_by_its_checkpoint(old: Path, tmp_path: Path, version: int) -> None:
    steps = backup(old, tmp_path / "copy", BackupAccount(), NoSyncs, read_only=True)
    if version < 4:
        with pytest.raises(UnavailableError, match="no checkpoint"):
            next(steps)
        return
    for _ in steps:
        pass
    assert format_of(old) == format_of(tmp_path / "copy") == version
    async with await open_store(tmp_path / "copy") as store:
        await the_path(store)
    assert format_of(tmp_path / "copy") == FORMAT
