"""`tvix-store watch-store`, with stores of the real Nix."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.program import Program
from tests.cli.test_import import WITHOUT_ROOTS_POWERS
from tests.private_nix import PrivateNix, Registered, built
from tvix_store.cli.program import run_program
from tvix_store.errors import InvalidError, UnavailableError
from tvix_store.operations.paths.new_paths import Filter, NewPaths
from tvix_store.operations.paths.nix_database import NixDatabase, ValidPath
from tvix_store.operations.paths.nix_store import NixStore
from tvix_store.operations.paths.push_queue import PushQueue, Target
from tvix_store.testing.trees import TreeFile

pytestmark = pytest.mark.nix
LIBRARY, APPLICATION, LATER = built(1, "library-1.0"), built(2, "application"), built(3, "later")


@pytest.fixture
def nix(tmp_path: Path) -> PrivateNix:
    """A store with an application that refers to a library."""
    nix = PrivateNix(tmp_path / "nix")
    nix.register([Registered(LIBRARY, TreeFile(b"library")), Registered(APPLICATION, TreeFile(LIBRARY.encode()), [LIBRARY])])
    return nix


@pytest.fixture
def database(nix: PrivateNix) -> NixDatabase:
    return NixDatabase(NixStore.at(str(nix.root)).database)


@pytest.fixture
def queue(tmp_path: Path) -> PushQueue:
    return PushQueue(tmp_path / "queue")


@pytest.fixture
def watching(database: NixDatabase, queue: PushQueue) -> Callable[..., NewPaths]:
    """Starts a watch, as a process does."""

    def start(*, everything: bool = False) -> NewPaths:
        paths = NewPaths(database, queue, [Target("file:///cache")], Filter(), lambda _: None)
        paths.begin(everything=everything)
        return paths

    return start


def add(nix: PrivateNix, path: str) -> None:
    nix.register([Registered(path, TreeFile(path.encode()))])


def queued(queue: PushQueue) -> list[str]:
    return [path for name in queue.names() if (entry := queue.get(name)) for path in entry.paths]


def test_paths_become_valid_one_after_the_other(nix: PrivateNix, database: NixDatabase) -> None:
    assert [each.path for each in database.after(0)] == [LIBRARY, APPLICATION]
    newest = database.newest()
    nix.nix_store("--delete", APPLICATION)
    add(nix, LATER)
    [later] = database.after(newest)
    assert later == ValidPath(database.newest(), LATER, frozenset())
    assert [each.path for each in database.after(0, most=1)] == [LIBRARY]


def test_where_the_database_of_a_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NIX_STATE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    for url, state in (
        (None, "/nix/var/nix"),
        ("daemon", "/nix/var/nix"),
        ("/mnt", "/mnt/nix/var/nix"),
        ("./mnt", f"{tmp_path}/mnt/nix/var/nix"),
        ("local?root=/mnt", "/mnt/nix/var/nix"),
        ("local?real=/elsewhere&state=/state", "/state"),
    ):
        assert NixStore(url, Path("/nix/store")).database == Path(state, "db/db.sqlite")
    monkeypatch.setenv("NIX_STATE_DIR", "/var")
    assert NixStore(None, Path("/nix/store")).database == Path("/var/db/db.sqlite")


def test_a_user_who_may_not_write_can_watch(nix: PrivateNix, database: NixDatabase) -> None:
    """Nix may have removed its write-ahead log with the last connection. To open it again, one would have to make files."""
    directory = database.file.parent
    before = sorted(each.name for each in directory.iterdir())
    for each in (directory, *directory.iterdir()):
        each.chmod(each.stat().st_mode & 0o555)
    code = f"from tvix_store.operations.paths.nix_database import *; print(len(NixDatabase(Path({str(database.file)!r})).after(0)))"
    done = subprocess.run([*WITHOUT_ROOTS_POWERS, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "2\n", done.stderr
    assert sorted(each.name for each in directory.iterdir()) == before


def test_a_database_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="Nix has no database at"):
        NixDatabase(tmp_path / "db.sqlite").newest()
    (tmp_path / "db.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UnavailableError, match="cannot read Nix's database"):
        NixDatabase(tmp_path / "db.sqlite").newest()


def test_only_what_comes_is_queued(nix: PrivateNix, queue: PushQueue, watching: Callable[..., NewPaths]) -> None:
    paths = watching()
    assert paths.look() == 0
    add(nix, LATER)
    assert (paths.look(), paths.look()) == (1, 0)
    assert queued(queue) == [LATER]


def test_what_came_while_nobody_watched_is_queued_once(
    nix: PrivateNix, queue: PushQueue, watching: Callable[..., NewPaths]
) -> None:
    watching()
    add(nix, LATER)
    nix.nix_store("--delete", APPLICATION)
    watching().look()
    watching().look()
    assert queued(queue) == [LATER]


def test_a_process_that_is_killed_before_it_remembers_queues_again(
    nix: PrivateNix, queue: PushQueue, watching: Callable[..., NewPaths], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = watching()
    add(nix, LATER)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PushQueue, "write_note", killed)
        with pytest.raises(KeyboardInterrupt):
            paths.look()
    watching().look()
    assert queued(queue) == [LATER, LATER]


def test_all_paths_are_queued_if_one_asks_for_them(queue: PushQueue, watching: Callable[..., NewPaths]) -> None:
    watching().look()
    watching(everything=True).look()
    assert queued(queue) == [LIBRARY, APPLICATION]


def test_the_paths_of_a_new_database_are_all_new(
    nix: PrivateNix, queue: PushQueue, database: NixDatabase, watching: Callable[..., NewPaths]
) -> None:
    paths = watching()
    dumped = nix.nix_store("--dump-db")
    for each in database.file.parent.glob("db.sqlite*"):
        each.unlink()
    (database.file.parent / "schema").unlink()
    paths_of_library = "".join(f"{line}\n" for line in dumped.splitlines()[:5])
    nix.nix_store("--load-db", data=paths_of_library)
    paths.look()
    assert queued(queue) == [LIBRARY]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Filter(), ["hello-2.12", "hello-2.12-doc", "cached", "source.tar.gz"]),
        (Filter(include=("hello-*",)), ["hello-2.12", "hello-2.12-doc"]),
        (Filter(include=("hello-*", "*.drv"), exclude=("*-doc",)), ["hello-2.12", "hello-2.12.drv"]),
        (Filter(exclude=("*.tar.*", "hello*")), ["cached"]),
        (Filter(skip_keys=frozenset({"cache-1"})), ["hello-2.12", "hello-2.12-doc", "source.tar.gz"]),
    ],
)
def test_filters(wanted: Filter, names: list[str]) -> None:
    paths = [
        ValidPath(1, built(1, name), frozenset({"cache-1"} if name == "cached" else ()))
        for name in ("hello-2.12", "hello-2.12-doc", "hello-2.12.drv", "cached", "source.tar.gz")
    ]
    assert [each.path[44:] for each in paths if wanted.wants(each)] == names


def test_a_watch_pushes_what_comes_and_goes_on_after_a_kill(
    tvix_store: Program, nix: PrivateNix, queue: PushQueue, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])  # the program adds to it, in this process
    address = f"local://{tvix_store.store}"
    watch = ["watch-store", "--to", address, "--queue", str(queue.directory), "--nix-store", str(nix.root)]

    def has(*paths: str) -> bool:
        run_program(["list", "--store", address])
        return capsys.readouterr().out.splitlines() == list(paths)

    assert run_program([*watch, "--once"]) == 0
    add(nix, LATER)  # while nobody watches
    with tvix_store.start(*watch) as first:
        until(lambda: has(LATER))
        first.kill()
    more = built(4, "more")
    nix.register([Registered(more, TreeFile(b"more"), [APPLICATION])])
    with tvix_store.start(*watch) as second:
        until(lambda: has(LIBRARY, APPLICATION, LATER, more))
        second.terminate()
        assert second.wait(20) == 0


def until(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.1)
    raise TimeoutError


def test_what_a_person_does_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["watch-store"]) == 2
    assert "say where to: --to URL" in capsys.readouterr().err
    watch = ["watch-store", "--to", "file:///cache", "--queue", str(tmp_path / "queue"), "--nix-store"]
    assert run_program([*watch, str(tmp_path)]) == 3
    assert capsys.readouterr().err == (
        f"tvix-store: error: no Nix store is in {tmp_path}/nix/store; --nix-store says where one is\n"
    )
    (tmp_path / "nix/store").mkdir(parents=True)
    assert run_program([*watch, str(tmp_path)]) == 3
    assert f"Nix has no database at {tmp_path}/nix/var/nix/db/db.sqlite" in capsys.readouterr().err
    assert not (tmp_path / "queue").exists()
