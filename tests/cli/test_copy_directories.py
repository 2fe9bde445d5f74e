"""`tvix-store copy` to and from binary caches in directories, with the real Nix on the other side."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.nginx import running_nginx
from tests import programs
from tests.cli.program import Program
from tests.cli.test_import import WITHOUT_ROOTS_POWERS
from tests.http.nix import Nix, listed
from tests.http.test_nix import ODD, closure, same
from tests.small_disk import mounted
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.testing import trees
from tvix_store.testing.content import noise

UNSIGNED = "?require-signatures=false"


@pytest.fixture
def nix(tmp_path: Path) -> Nix:
    """Nix with an empty store, where one builds."""
    return Nix(tmp_path / "nix", tmp_path / "nix/store")


@pytest.fixture
def at_nix(tvix_store: Program, nix: Nix) -> Program:
    """The program, for paths of the store directory of that Nix."""
    tvix_store.environment["NIX_STORE_DIR"] = str(nix.store_dir)
    return tvix_store


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where the program writes."""
    return tmp_path / "cache"


def another(nix: Nix, configuration: str = "require-sigs = false") -> Nix:
    """An empty store for paths of the same names."""
    number = sum(1 for _ in nix.directory.parent.glob("nix-*"))
    return Nix(nix.directory.parent / f"nix-{number}", nix.store_dir, configuration)


def odd_path(nix: Nix) -> str:
    """A content-addressed path with everything in it."""
    trees.write(ODD, nix.directory / "odd")
    return nix.add(nix.directory / "odd")


def told(nix: Nix, cache: Path, *paths: str) -> list[dict[str, Any]]:
    """What Nix reads in a cache of some paths, but for the facts of their files."""
    kept = ("path", "narHash", "narSize", "references", "ca", "deriver", "signatures")
    infos = listed(nix.with_own_cache()("nix", "path-info", "--json", "--store", f"file://{cache}", *paths))
    return sorted(({name: info.get(name) for name in kept} for info in infos), key=lambda each: str(each["path"]))


def imported(tvix_store: Program, count: int, size: int) -> list[str]:
    """Store paths with one file each that cannot be compressed."""
    (tvix_store.directory / "trees").mkdir()
    for number in range(count):
        (tvix_store.directory / f"trees/{number}").write_bytes(noise(size, str(number)))
    return tvix_store("import", *(f"trees/{number}" for number in range(count))).splitlines()


def assert_whole(cache: Path, store_dir: str = "/nix/store") -> int:
    """Each narinfo is whole, and its NAR is what it says. The number of narinfos."""
    narinfos = list(cache.glob("*.narinfo"))
    for each in narinfos:
        narinfo = NarInfo.parse(each.read_bytes(), store_dir)
        file = (cache / narinfo.url).read_bytes()
        assert narinfo.file_size == len(file)
        assert narinfo.file_hash == NixHash("sha256", hashlib.sha256(file).digest())
    for file_path in (cache / "nar").iterdir():
        assert file_path.name.startswith(
            NixHash("sha256", hashlib.sha256(file_path.read_bytes()).digest()).nixbase32.partition(":")[2]
        )
    return len(narinfos)


def test_a_cache_over_http_is_written_as_one_in_a_directory(tvix_store: Program, tmp_path: Path) -> None:
    programs.require("nginx")
    paths = imported(tvix_store, 3, 100_000)
    with running_nginx(tmp_path / "nginx") as url:
        assert sorted(tvix_store("--quiet", "copy", "--to", f"nix+{url}", "--all").splitlines()) == sorted(paths)
        assert tvix_store("--quiet", "copy", "--to", f"nix+{url}", "--all") == ""
    assert assert_whole(tmp_path / "nginx/files") == 3


@pytest.mark.parametrize("compression", ["xz", "zstd", "none"])
def test_what_nix_wrote_is_read_and_what_we_write_nix_reads_the_same(
    at_nix: Program, nix: Nix, cache: Path, compression: str
) -> None:
    """Nix → its cache → a store → our cache → another Nix."""
    theirs = nix.directory / "theirs"
    key = nix.directory / "key"
    key.write_text(nix("nix", "key", "generate-secret", "--key-name", "theirs-1"))
    public = nix.run("sh", "-c", f"nix key convert-secret-to-public < {key}").stdout
    paths = [closure(nix), odd_path(nix)]
    nix("nix", "copy", "--to", f"file://{theirs}?compression={compression}&secret-key={key}", *paths)
    whole = nix("nix-store", "-qR", *paths).splitlines()
    copied = at_nix("--quiet", "copy", "--from", f"file://{theirs}?trusted-public-keys={public}", "--closure", *paths)
    assert sorted(copied.splitlines()) == sorted(whole)
    at_nix("path-info", "verify", "--all")
    ours = at_nix("--quiet", "copy", "--to", f"file://{cache}?compression={'none' if compression == 'none' else 'zstd'}", "--all")
    assert sorted(ours.splitlines()) == sorted(whole)
    assert_whole(cache, str(nix.store_dir))
    assert told(nix, cache, *whole) == told(nix, theirs, *whole)
    assert all(any(each.startswith("theirs-1:") for each in info["signatures"]) for info in told(nix, cache, *whole))
    substituting = another(nix, f"trusted-public-keys = {public}")
    substituting("nix-store", "-r", *paths, "--option", "substituters", f"file://{cache}")
    copying = another(nix)
    copying("nix", "copy", "--from", f"file://{cache}", *paths)
    for other in (substituting, copying):
        assert same(nix, other, *whole)
        other("nix-store", "--verify", "--check-contents")


def test_all_of_a_cache_comes_into_another_store_as_it_was(at_nix: Program, nix: Nix, cache: Path) -> None:
    nix("nix", "copy", "--to", f"file://{nix.directory}/theirs", closure(nix), odd_path(nix))
    at_nix("--quiet", "copy", "--from", f"file://{nix.directory}/theirs{UNSIGNED}", "--all")
    at_nix("--quiet", "copy", "--to", f"file://{cache}", "--all")
    at_nix("--quiet", "copy", "--from", f"nix+file://{cache}{UNSIGNED}", "--to", "./again", "--all")
    paths = at_nix("list").splitlines()
    assert len(paths) == 3
    assert at_nix("--store", "./again", "path-info", "get", *paths) == at_nix("path-info", "get", *paths)


def test_nix_and_we_add_to_the_same_cache(at_nix: Program, nix: Nix, cache: Path) -> None:
    first, second = closure(nix), odd_path(nix)
    nix("nix", "copy", "--to", f"file://{cache}?compression=xz", first)
    at_nix("--quiet", "copy", "--from", f"file://{cache}{UNSIGNED}", "--all")
    nix("nix", "copy", "--to", f"file://{nix.directory}/theirs", second)
    at_nix("--quiet", "copy", "--from", f"file://{nix.directory}/theirs{UNSIGNED}", "--all")
    at_nix("key", "generate", "ours-1", "--out", "key")
    signing = f"file://{cache}?secret-key={at_nix.directory}/key"
    assert at_nix("--quiet", "copy", "--to", signing, "--all").splitlines() == [second]
    public = at_nix("key", "public", "key")
    other = another(nix, f"trusted-public-keys = {public}")
    other("nix-store", "-r", first, second, "--option", "substituters", f"file://{cache}")
    assert same(nix, other, first, second)
    [third] = nix.build('sh "third" "echo third > $out"')
    nix("nix", "copy", "--to", f"file://{cache}", third)
    assert assert_whole(cache, str(nix.store_dir)) == 4


@pytest.mark.nix
def test_a_daemon_fetches_from_a_directory(at_nix: Program, nix: Nix, tmp_path: Path) -> None:
    path = closure(nix)
    nix("nix", "copy", "--to", f"file://{tmp_path}/theirs", path)
    socket = tmp_path / "socket"
    options = ("--workers", "1", "--listen-address", socket, "--substituters", f"file://{tmp_path}/theirs{UNSIGNED}")
    with at_nix.start("daemon", *options) as daemon:
        assert daemon.stderr is not None
        assert daemon.stderr.readline().startswith(b"READY")
        assert path in at_nix("--store", f"grpc+unix://{socket}", "path-info", "get", path)
        daemon.terminate()
        assert daemon.wait(30) == 0


def test_whatever_kills_a_copy_leaves_nothing_half_and_the_next_one_goes_on(tvix_store: Program, cache: Path) -> None:
    count = 60
    paths = imported(tvix_store, count, 1_000_000)
    for enough in (1, count // 3):
        copying = tvix_store.start("copy", "--to", f"file://{cache}", "--all")
        began = time.monotonic()
        while len(list(cache.glob("*.narinfo"))) < enough and copying.poll() is None and time.monotonic() < began + 60:
            time.sleep(0.001)
        copying.send_signal(signal.SIGKILL)
        copying.communicate()
        assert enough <= assert_whole(cache)
    before = len(list(cache.glob("*.narinfo")))
    done = json.loads(tvix_store("copy", "--to", f"file://{cache}", "--all", "--json"))
    statuses = [each["status"] for each in done["paths"]]
    assert statuses.count("known") == before
    assert statuses.count("copied") == count - before
    assert assert_whole(cache) == count
    assert sorted(each.name for each in cache.iterdir()) == sorted(
        ["nar", "nix-cache-info", *(f"{Path(path).name[:32]}.narinfo" for path in paths)]
    )


def test_two_copies_at_once_do_each_other_no_harm(tvix_store: Program, cache: Path) -> None:
    count = 40
    imported(tvix_store, count, 300_000)
    for name in ("one", "two"):
        tvix_store("key", "generate", name, "--out", name)
    running = [
        tvix_store.start("--quiet", "copy", "--to", f"file://{cache}?secret-key={tvix_store.directory}/{name}", "--all")
        for name in ("one", "two")
    ]
    for each in running:
        _, error = each.communicate(timeout=100)
        assert (each.returncode, error) == (0, b"")
    assert assert_whole(cache) == count
    for narinfo in cache.glob("*.narinfo"):
        signatures = NarInfo.parse(narinfo.read_bytes()).signatures
        assert sorted(signature.name for signature in signatures) == ["one", "two"]
    assert not (cache / ".tvix-store").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", mib=4) as disk:
        yield disk


def test_a_full_disk_is_a_line_and_the_copy_goes_on_when_there_is_room(tvix_store: Program, small_disk: Path) -> None:
    imported(tvix_store, 6, 1_000_000)
    cache = small_disk / "cache"
    ended = tvix_store.run("--quiet", "copy", "--to", f"file://{cache}", "--all", "-j", "1")
    assert ended.code == 9
    assert ended.error == f"tvix-store: error: cannot write to {cache}: No space left on device; free some space and try again\n"
    assert 0 < assert_whole(cache) < 6
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    tvix_store("--quiet", "copy", "--to", f"file://{cache}", "--all")
    assert assert_whole(cache) == 6


def test_a_directory_that_one_may_not_write_is_a_line(tvix_store: Program, tmp_path: Path) -> None:
    imported(tvix_store, 1, 1000)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0o555)
    ended = tvix_store.run("copy", "--to", f"file://{tmp_path}/closed/cache", "--all", under=WITHOUT_ROOTS_POWERS)
    assert (ended.code, ended.lines) == (8, [])
    assert ended.error == f"tvix-store: error: cannot write to {tmp_path}/closed/cache: Permission denied\n"


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("--to", "file://{0}/file", "--all"), 3, "cannot write to {0}/file/nar: Not a directory"),
        (("--to", "file://{0}/cache?compression=xz", "--all"), 3, "NARs are written as zstd or none, not as 'xz'"),
        (("--to", "file://{0}/cache?secret-key={0}/absent", "--all"), 4, "cannot read the key in {0}/absent"),
        (("--to", "file:cache", "--all"), 3, "not the address of a binary cache in a directory"),
        (("--from", "file://{0}/absent?trusted=1", "--all"), 7, "the binary cache in {0}/absent cannot be read: No such file"),
        (("--from", "file://{0}?trusted=1", "--all"), 3, "{0} is not a binary cache: it has no nix-cache-info"),
        (("--from", "file://{0}/absent", "--all"), 3, "there is no key to check its signatures with"),
        (("--from", "file://{0}/absent", "--to", "file://{0}/cache", "--all"), 3, "from one binary cache to another"),
        (("--from", "nix+http://localhost:1?trusted=1", "--all"), 3, "does not tell what it has: name the paths to copy"),
    ],
)
def test_what_cannot_be_copied_is_said_in_a_line(
    tvix_store: Program, tmp_path: Path, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    (tmp_path / "file").touch()
    tvix_store.environment["TVIX_STORE"] = "memory://"
    ended = tvix_store.run("copy", *(each.format(tmp_path) for each in arguments))
    assert (ended.code, ended.output, ended.error.count("\n")) == (code, b"", 1)
    assert reason.format(tmp_path) in ended.error
    assert not (tmp_path / "cache").exists()


def test_bad_paths_of_a_cache_are_told_and_the_others_are_copied(tvix_store: Program, cache: Path) -> None:
    good, bad = imported(tvix_store, 2, 1000)
    tvix_store("--quiet", "copy", "--to", f"file://{cache}", "--all")
    file = cache / f"{Path(bad).name[:32]}.narinfo"
    file.write_text(file.read_text() + "URL: twice\n")
    ended = tvix_store.run("--quiet", "copy", "--from", f"file://{cache}{UNSIGNED}", "--to", "./other", "--all")
    assert (ended.code, ended.lines) == (3, [good])
    assert ended.error == f"tvix-store: error: {file.name}: narinfo: URL is there twice (line 10)\n"


def test_the_narinfos_are_for_everybody_to_read(tvix_store: Program, cache: Path) -> None:
    """A web server may be another user."""
    imported(tvix_store, 1, 1000)
    tvix_store("--quiet", "copy", "--to", f"file://{cache}", "--all")
    umask = os.umask(0)
    os.umask(umask)
    for file in cache.rglob("*"):
        assert file.stat().st_mode & 0o777 == (0o777 if file.is_dir() else 0o666) & ~umask
