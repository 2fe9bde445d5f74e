"""`tvix-store check`: what is not whole is named, and brought once more."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.program import Program
from tvix_store.backends.local import open_store
from tvix_store.model.digest import Digest
from tvix_store.testing.content import noise
from tvix_store.testing.contracts.path_infos import stored_file


@pytest.fixture
def path(tvix_store: Program, tmp_path: Path) -> str:
    """A store path with a small file, a large one, and a directory; a copy of the store is in `other`."""
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "small").write_bytes(noise(2000, "small"))
    (tree / "inner/large").write_bytes(noise(3_000_000, "large"))
    path = tvix_store("import", "tree")
    tvix_store("copy", "--to", "./other", "--quiet", path)
    return path


def harm(store: Path, content: bytes) -> None:
    """Flip a bit in stored content that is not compressed."""
    for pack in (store / "packs").iterdir():
        data = pack.read_bytes()
        if (at := data.find(content)) >= 0:
            with pack.open("r+b") as file:
                file.seek(at)
                file.write(bytes([content[0] ^ 1]))
            return
    raise AssertionError("the content is in no pack")


def left(tvix_store: Program, *options: str) -> dict[str, list[str]]:
    """The faults of each path, from the JSON of a check that finds some."""
    ended = tvix_store.run("check", "--json", *options)
    assert ended.code == 6
    return {each["path"]: each["faults"] for each in json.loads(ended.output)["faulty"]}


def test_a_whole_store_is_whole(tvix_store: Program, path: str) -> None:
    for options in ((), ("--read-data",), (path,)):
        ended = tvix_store.run("check", *options)
        assert (ended.code, ended.output) == (0, b"")
        assert ended.error == "1 path, 2.86 MiB in NARs: 0 not whole\n"
    told = json.loads(tvix_store("check", "--read-data", "--json"))
    assert told == {"paths": 1, "narSize": told["narSize"], "dataRead": True, "store": None, "faulty": []}
    assert tvix_store.run("check", "--quiet").error == ""


def test_damage_is_seen_by_reading_and_repaired_from_another_store(tvix_store: Program, path: str) -> None:
    harm(tvix_store.store, noise(2000, "small")[:100])
    assert tvix_store.run("check").code == 0
    digest = Digest.of(noise(2000, "small"))
    faults = left(tvix_store, "--read-data")
    assert list(faults) == [path]
    assert str(digest) in faults[path][0]
    # Who has read it has let it be forgotten.
    assert left(tvix_store) == {path: [f"'small': blob {digest} is not in the store"]}
    ended = tvix_store.run("check", "--repair", "--from", "./other")
    assert ended.code == 0, ended.error
    assert ended.output.decode().splitlines() == [f"{path}: 'small': blob {digest} is not in the store", f"{path}: repaired"]
    tvix_store("path-info", "verify", "--all")
    assert tvix_store.run("check", "--read-data").code == 0


def test_all_damaged_files_are_named(tvix_store: Program, path: str) -> None:
    harm(tvix_store.store, noise(2000, "small")[:100])
    harm(tvix_store.store, noise(3_000_000, "large")[:100])
    faults = left(tvix_store, "--read-data")[path]
    assert [fault.partition(":")[0] for fault in sorted(faults)] == ["'inner/large'", "'small'"]
    ended = tvix_store.run("check", "--read-data", "--repair", "--from", "./other")
    assert ended.code == 0, ended.error
    assert ended.error.splitlines()[-1].endswith("1 not whole, 0 after the repair")


def test_a_store_that_lost_its_packs_is_filled_again(tvix_store: Program, path: str) -> None:
    for pack in (tvix_store.store / "packs").iterdir():
        pack.unlink()
    ended = tvix_store.run("check")
    assert ended.code == 6
    told = ended.output.decode()
    assert "packs are missing" in told
    assert f"{path}: directory" in told
    ended = tvix_store.run("check", "--repair", "--from", "./other")
    assert ended.code == 0, ended.error
    assert f"{path}: repaired" in ended.output.decode()
    assert tvix_store("check", "--read-data", "--quiet") == ""


async def test_a_path_whose_reference_is_missing_is_named_and_gets_it(tvix_store: Program, tmp_path: Path) -> None:
    both = [tmp_path / "other", tvix_store.store]
    for directory in both:
        async with await open_store(directory) as store:
            reference, needs = await stored_file(store, "reference"), await stored_file(store, "needs")
            if directory is both[0]:
                await store.path_infos.put(reference)
            await store.path_infos.put(replace(needs, references=(reference.store_path,)))
    name = needs.store_path.absolute()
    assert left(tvix_store) == {name: [f"it refers to {reference.store_path}, which is not in the store"]}
    ended = tvix_store.run("check", "--repair", "--from", "./other")
    assert ended.code == 0, ended.error
    assert set(tvix_store("list").splitlines()) == {name, reference.store_path.absolute()}


def test_a_binary_cache_repairs_as_well(tvix_store: Program, path: str) -> None:
    tvix_store("copy", "--to", f"file://{tvix_store.directory}/cache", "--quiet", path)
    harm(tvix_store.store, noise(3_000_000, "large")[:100])
    address = f"file://{tvix_store.directory}/cache?require-signatures=false"
    ended = tvix_store.run("check", "--read-data", "--repair", "--from", address)
    assert ended.code == 0, ended.error
    assert tvix_store("check", "--read-data", "--quiet") == ""


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--repair",), "--repair and --from ADDRESS go together"),
        (("--from", "./other"), "--repair and --from ADDRESS go together"),
        (("--trusted-public-keys", "a:b"), "--trusted-public-keys goes with --repair"),
        (("nonsense",), "not a store path"),
        (("--store", "./nowhere"), "/nowhere; tvix-store import makes one there"),
        (("--repair", "--from", "./nowhere"), "/nowhere; tvix-store import makes one there"),
    ],
)
def test_what_makes_no_sense_is_refused(tvix_store: Program, path: str, options: tuple[str, ...], complaint: str) -> None:
    ended = tvix_store.run("check", *options)
    assert ended.code in (2, 3, 12)
    assert complaint in ended.error


def test_what_no_store_has_stays_and_is_named(tvix_store: Program, path: str, tmp_path: Path) -> None:
    os.rename(tmp_path / "other", tmp_path / "away")
    tvix_store("copy", "--to", "./empty", "--quiet", path)
    (tmp_path / "more").write_bytes(noise(5000, "more"))
    lost = tvix_store("import", "more")
    harm(tvix_store.store, noise(5000, "more")[:100])
    harm(tvix_store.store, noise(2000, "small")[:100])
    ended = tvix_store.run("check", "--read-data", "--repair", "--from", "./empty")
    assert ended.code == 6
    assert ended.output.decode().splitlines()[-2:] == sorted(
        [f"{path}: repaired", f"{lost}: still not whole"], key=lambda line: line
    )
    assert ended.error.splitlines()[-1] == "tvix-store: error: 1 store path is not whole"
    assert f"store path {lost} is not in the store " in ended.error
