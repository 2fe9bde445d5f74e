"""A daemon in front of another store takes pushes: what it must remember of them lies in one file on its machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.http.daemon import Daemon, nar_name
from tests.http.nix import Nix
from tests.http.test_nix import closure, same
from tvix_store.model.digest import Digest
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.testing import trees
from tvix_store.testing.trees import TreeFile

StartDaemon = Callable[..., Daemon]


@pytest.fixture
def front(daemon: Daemon, start_daemon: StartDaemon) -> Daemon:
    """A daemon of two workers in front of `daemon`."""
    return start_daemon("--store", f"grpc+http://127.0.0.1:{daemon.port}", name="front")


def file_nar(number: int) -> bytes:
    return trees.nar(TreeFile(b"pushed %d" % number))


def narinfo(daemon: Daemon, number: int) -> tuple[str, bytes]:
    """Where the narinfo of the path with `file_nar(number)` is put, and what it says."""
    path = StorePath(b"%20d" % number, f"file-{number}")
    nar = file_nar(number)
    node = FileNode(Digest.of(b"pushed %d" % number), len(b"pushed %d" % number))
    told = NarInfo.of(PathInfo(path, node, NarFacts(len(nar), hashlib.sha256(nar).digest())), nar_name(nar)[1:], "none").format(
        daemon.store_dir
    )
    return f"/{str(path)[:32]}.narinfo", told


def test_nix_pushes_through_it_and_substitutes(daemon: Daemon, front: Daemon, nix: Nix, other_nix: Callable[..., Nix]) -> None:
    path = closure(nix)
    nix.copy_to(front.url, path)
    assert path in daemon.paths()
    for url in (front.url, daemon.url):
        other = other_nix()
        other("nix", "copy", "--no-check-sigs", "--from", url, path)
        assert same(nix, other, path)


def test_a_narinfo_may_come_to_another_worker_than_its_nar(front: Daemon) -> None:
    for number in range(20):  # each request has a connection of its own
        assert front.put(nar_name(file_nar(number)), file_nar(number)).status == 201
    for number in range(20):
        assert front.head(nar_name(file_nar(number))).status == 200
        url, told = narinfo(front, number)
        assert front.put(url, told).status == 201
        assert front.get(url).status == 200
    assert front.is_well()


def test_a_narinfo_may_come_after_a_restart(front: Daemon) -> None:
    assert front.put(nar_name(file_nar(1)), file_nar(1)).status == 201
    front.kill()
    front.start()
    url, told = narinfo(front, 1)
    assert front.put(url, told).status == 201


def test_a_narinfo_without_its_nar_is_refused(front: Daemon) -> None:
    url, told = narinfo(front, 1)
    assert front.put(url, told).status == 409


def test_what_the_store_behind_has_lost_is_not_here(daemon: Daemon, front: Daemon) -> None:
    assert front.put(nar_name(file_nar(1)), file_nar(1)).status == 201
    daemon.kill()
    daemon.program.store.rename(daemon.program.directory / "lost")
    daemon.start()
    assert front.head(nar_name(file_nar(1))).status == 404
    url, told = narinfo(front, 1)
    assert front.put(url, told).status == 409
    assert front.put(nar_name(file_nar(1)), file_nar(1)).status == 201
    assert front.put(url, told).status == 201


def test_without_a_place_for_links_it_still_reads(daemon: Daemon, tmp_path: Path) -> None:
    front = Daemon(tmp_path / "front", "--store", f"grpc+http://127.0.0.1:{daemon.port}", store_dir=daemon.store_dir)
    (tmp_path / "file").write_bytes(b"")
    front.program.environment["XDG_CACHE_HOME"] = str(tmp_path / "file")
    front.start()
    try:
        assert daemon.put(nar_name(file_nar(1)), file_nar(1)).status == 201
        url, told = narinfo(daemon, 1)
        assert daemon.put(url, told).status == 201
        assert front.get(url).status == 200
        refused = front.put(nar_name(file_nar(2)), file_nar(2))
        assert (refused.status, "push to one that has" in refused.line) == (403, True)
        assert "NARs cannot be pushed over HTTP" in front.log
        assert "XDG_CACHE_HOME" in front.log
    finally:
        front.stop()


def test_a_daemon_with_path_infos_elsewhere_takes_pushes(daemon: Daemon, start_daemon: StartDaemon) -> None:
    front = start_daemon("--path-info-service-addr", f"grpc+http://127.0.0.1:{daemon.port}", name="front")
    assert front.put(nar_name(file_nar(1)), file_nar(1)).status == 201
    url, told = narinfo(front, 1)
    # The server that keeps path infos verifies them against content that it must have as well.
    assert daemon.put(nar_name(file_nar(1)), file_nar(1)).status == 201
    assert front.put(url, told).status == 201
    assert b"Compression: none" in front.get(url).body
    assert front.is_well()
