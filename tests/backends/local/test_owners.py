"""Several users work on one store: each file gets the owner, group and mode of the store's directory, whoever creates it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import programs
from tests.cli.program import TVIX_STORE
from tvix_store.backends.local import open_store
from tvix_store.backends.local.disk import make_directory, open_or_create
from tvix_store.backends.local.durability import Durability
from tvix_store.model.digest import Digest
from tvix_store.testing.content import noise

SERVICE, GROUP = 65534, 65533
"""A user, and a group that the user is not in by default."""

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach: pytest's are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def run(place: Path, *arguments: str, user: int = 0, group: int | None = None, umask: int = 0o022) -> str:
    """Run the program as a user, on a store whose packs are small."""
    identity = (f"--reuid={user}", f"--regid={user if group is None else group}", "--clear-groups")
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "XDG_CACHE_HOME": "/dev/null/none"}
    address = f"local://{place}/s?pack_size=1048576"
    done = subprocess.run(
        [programs.require("setpriv"), *identity, TVIX_STORE, "--store", address, *arguments],
        env=environment,
        umask=umask,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def import_as(place: Path, name: str, user: int, *, group: int | None = None, umask: int = 0o022) -> None:
    """Import more than a pack holds, so that the next one begins a new pack."""
    file = place / name
    file.write_bytes(noise(1_500_000, name))
    run(place, "import", str(file), user=user, group=group, umask=umask)


def made(store: Path) -> dict[str, tuple[int, int, int]]:
    """Owner, group and mode of everything in a store."""
    paths = [(path, path.lstat()) for path in store.rglob("*")]
    return {str(path.relative_to(store)): (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) for path, status in paths}


@only_root
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_command_of_root_leaves_the_store_to_its_user(place: Path, umask: int) -> None:
    """The input of the report: import as a user, as root, and as that user again."""
    (place / "s").mkdir()
    os.chown(place / "s", SERVICE, SERVICE)
    import_as(place, "first", SERVICE)
    import_as(place, "second", 0, umask=umask)
    import_as(place, "third", SERVICE)
    assert len(run(place, "list", user=SERVICE).splitlines()) == 3
    files = made(place / "s")
    assert {(owner, group) for owner, group, _ in files.values()} == {(SERVICE, SERVICE)}
    assert {mode for _, _, mode in files.values()} == {0o644, 0o755}


@only_root
def test_an_index_that_root_makes_anew_or_compacts_is_its_users(place: Path) -> None:
    (place / "s").mkdir()
    os.chown(place / "s", SERVICE, SERVICE)
    for number in range(2):
        import_as(place, f"{number}", SERVICE)
    shutil.rmtree(place / "s/index")
    many = place / "many"
    many.mkdir()
    for number in range(4000):
        (many / f"{number}").write_text(f"a file {number}")
    run(place, "import", str(many), umask=0o077)  # makes the index anew, and leaves enough free pages to compact it
    import_as(place, "after", SERVICE)
    assert {(owner, group) for owner, group, _ in made(place / "s").values()} == {(SERVICE, SERVICE)}


@only_root
def test_users_share_a_store_by_its_group(place: Path) -> None:
    (place / "s").mkdir()
    os.chown(place / "s", 0, GROUP)
    os.chmod(place / "s", 0o2770)
    import_as(place, "first", 0, umask=0o077)
    import_as(place, "second", SERVICE, group=GROUP, umask=0o077)
    import_as(place, "third", SERVICE - 10, group=GROUP, umask=0o077)
    import_as(place, "fourth", 0, umask=0o077)
    files = made(place / "s")
    assert {group for _, group, _ in files.values()} == {GROUP}
    assert {mode for _, _, mode in files.values()} == {0o660, 0o2770}


@only_root
def test_a_pack_that_cannot_be_written_is_passed_over(place: Path) -> None:
    """As an earlier version has left it: the pack of another user is read, and not gone on with."""
    (place / "s").mkdir()
    os.chown(place / "s", SERVICE, SERVICE)
    small = place / "small"
    small.write_bytes(noise(2_000, "small"))
    run(place, "import", str(small), user=SERVICE)
    packs = {pack: pack.stat().st_size for pack in (place / "s/packs").iterdir()}
    for pack in packs:
        os.chown(pack, 0, 0)
    import_as(place, "more", SERVICE)
    assert {pack: pack.stat().st_size for pack in packs} == packs
    assert set((place / "s/packs").iterdir()) > set(packs)


async def test_files_have_the_mode_of_the_stores_directory(tmp_path: Path) -> None:
    """Also where one user works alone: nobody else reads a store that is closed to others."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o700)
    before = os.umask(0)
    try:
        async with await open_store(tmp_path / "s") as store:
            await store.blobs.put_many([b"private"])
            assert {mode for _, _, mode in made(tmp_path / "s").values()} == {0o600, 0o700}
    finally:
        os.umask(before)
    async with await open_store(tmp_path / "s") as store:
        assert await store.blobs.get_many([Digest.of(b"private")]) == [b"private"]


def test_what_was_made_before_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "file").chmod(0o640)
    os.close(open_or_create(tmp_path / "file"))
    assert made(tmp_path)["file"][2] == 0o640
    Durability(tmp_path).replace_file(tmp_path / "file", b"replaced")
    assert made(tmp_path)["file"][2] == 0o644
    for _ in range(2):
        make_directory(tmp_path / "directory")
        (tmp_path / "directory/in it").touch()
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


def test_a_link_planted_where_a_file_belongs_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("another user's")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        open_or_create(tmp_path / "lock")
