"""Packs that are missing or cut short: nothing that they held is acknowledged as there, and one push of it heals the store."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import zstandard

from tests.http.daemon import Daemon, nar_name
from tvix_store.backends.local.packs import PREFIX_SIZE
from tvix_store.model import nixbase32
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import Tree, TreeFile

PATHS = 9
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


@dataclass(frozen=True)
class Pushed:
    """A path as a client has it."""

    number: int
    nar: bytes

    @property
    def name(self) -> str:
        return f"/{self.number:032d}.narinfo"

    def narinfo(self, daemon: Daemon) -> bytes:
        nar_hash = nixbase32.encode(hashlib.sha256(self.nar).digest())
        return (
            f"StorePath: {daemon.store_dir}/{self.number:032d}-lost\nURL: {nar_name(self.nar)[1:]}\nCompression: none\n"
            f"NarHash: sha256:{nar_hash}\nNarSize: {len(self.nar)}\nReferences: \n"
        ).encode()


def paths() -> list[Pushed]:
    """Small ones, some of many files, and some that are larger than a pack."""
    made: list[Tree | TreeFile] = []
    for number in range(PATHS):
        seed = f"lost packs {number}"
        match number % 3:
            case 0:
                made.append({b"d": {b"%d" % n: TreeFile(noise(3_000, f"{seed} {n}")) for n in range(30)}})
            case 1:
                made.append({b"large": TreeFile(noise(1_700_000, seed)), b"text": TreeFile(b"a text " * 90_000)})
            case _:
                made.append({b"file": TreeFile(noise(250_000, seed))})
    return [Pushed(number, trees.nar(tree)) for number, tree in enumerate(made)]


def push(daemon: Daemon, path: Pushed) -> None:
    """As `nix copy` does: it sends what it hears is not there. What is acknowledged then must be there."""
    if daemon.head(path.name).status == 404:
        if daemon.head(nar_name(path.nar)).status == 404:
            assert daemon.put(nar_name(path.nar), path.nar).status == 201
        assert daemon.put(path.name, path.narinfo(daemon)).status == 201
        assert daemon.get(path.name).status == 200


def check(daemon: Daemon, path: Pushed) -> None:
    """The narinfo is there, and the NAR that it offers."""
    narinfo = daemon.get(path.name)
    assert narinfo.status == 200, narinfo
    fields = dict(line.split(": ", 1) for line in narinfo.body.decode().splitlines() if ": " in line)
    answer = daemon.get("/" + fields["URL"])
    assert answer.status == 200, answer
    assert fields["Compression"] == "zstd"
    assert zstandard.ZstdDecompressor().stream_reader(answer.body, read_across_frames=True).read() == path.nar
    assert daemon.get(nar_name(path.nar)).body == path.nar


def becomes(daemon: Daemon, state: bytes) -> bool:
    """Whether health soon says so; it may repeat itself for a second."""
    deadline = time.monotonic() + 20
    with grpc.insecure_channel(f"127.0.0.1:{daemon.port}") as channel:
        while channel.unary_unary("/grpc.health.v1.Health/Check", bytes)(b"") != state:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
    return True


def wait_until_seen(daemon: Daemon, path: Pushed, store: Path) -> None:
    """Until the loss is taken out of the index, which all workers share, and narinfos from before are not given out any more."""
    deadline = time.monotonic() + 20
    while not any(store.glob("*.lost")):
        assert time.monotonic() < deadline, "the loss is not seen"
        daemon.head(path.name)
        time.sleep(0.1)
    time.sleep(1.5)


def remove(pack: Path, away: Path) -> None:
    pack.unlink()


def move(pack: Path, away: Path) -> None:
    pack.rename(away / pack.name)


def empty(pack: Path, away: Path) -> None:
    pack.write_bytes(b"")


def cut(pack: Path, away: Path) -> None:
    with pack.open("r+b") as file:
        file.truncate(max(PREFIX_SIZE + 100, pack.stat().st_size // 2))


@pytest.fixture
def cache(start_daemon: Callable[..., Daemon], tmp_path: Path) -> Daemon:
    return start_daemon("--store", f"local://{tmp_path}/store?pack_size=1048576")


@pytest.mark.parametrize(
    ("harm", "share", "restarts"),
    [(remove, 0.4, True), (remove, 0.4, False), (remove, 1, True), (move, 0.4, False), (empty, 0.4, True), (cut, 1, False)],
)
def test_lost_packs_are_healed_by_pushing_once(
    cache: Daemon, tmp_path: Path, harm: Callable[[Path, Path], None], restarts: bool, share: float
) -> None:
    pushed = paths()
    for path in pushed:
        push(cache, path)
        check(cache, path)
    packs = sorted((tmp_path / "store/packs").iterdir())
    assert len(packs) > 4
    (tmp_path / "away").mkdir()
    if restarts:
        cache.stop()
    for pack in random.Random(share).sample(packs, int(len(packs) * share)):
        harm(pack, tmp_path / "away")
    if restarts:
        cache.start()
    else:
        wait_until_seen(cache, pushed[0], tmp_path / "store")
    for path in pushed:  # nothing is said to be there that is not
        if cache.head(path.name).status == 200:
            check(cache, path)
        else:
            assert cache.get(path.name).status == 404
            assert cache.head(nar_name(path.nar)).status == 404
            assert cache.put(path.name, path.narinfo(cache)).status >= 400
    assert becomes(cache, NOT_SERVING)
    for path in pushed:
        push(cache, path)
    for path in pushed:
        check(cache, path)
    assert becomes(cache, SERVING), cache.log
    cache.stop()
    cache.start()
    for path in pushed:
        check(cache, path)
    assert cache.is_well()


def test_what_was_removed_this_moment_is_not_acknowledged(cache: Daemon, tmp_path: Path) -> None:
    """Nothing has read it, and nobody was told: whoever pushes is."""
    small, large = paths()[:2]
    for path in (small, large):
        assert cache.put(nar_name(path.nar), path.nar).status == 201
    for pack in (tmp_path / "store/packs").iterdir():
        pack.unlink()
    for path in (small, large):
        assert cache.head(nar_name(path.nar)).status == 404
        assert cache.put(path.name, path.narinfo(cache)).status == 409
        push(cache, path)
        check(cache, path)
