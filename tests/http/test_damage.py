"""Content that was damaged on the disk: it is not given out, not offered any more, and pushing it again heals it."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.http.daemon import Daemon, nar_name
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.packs import Place, pack_path
from tvix_store.model import nixbase32
from tvix_store.model.signature import SecretKey
from tvix_store.nar import tokens
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

CONTENT = noise(400_000, "damage over http")
NAR = tokens.MAGIC + tokens.file_start(len(CONTENT), False) + CONTENT + tokens.file_end(len(CONTENT))
HASH = "d" * 32


def narinfo(store_dir: str) -> bytes:
    return (
        f"StorePath: {store_dir}/{HASH}-damaged\nURL: {nar_name(NAR)[1:]}\nCompression: none\n"
        f"NarHash: sha256:{nixbase32.encode(hashlib.sha256(NAR).digest())}\nNarSize: {len(NAR)}\nReferences: \n"
    ).encode()


def damage(store: Path) -> None:
    """Lose a page of the content."""
    [pack] = (pack for pack in (store / "packs").iterdir() if CONTENT[-4096:] in pack.read_bytes())
    at = pack.read_bytes().index(CONTENT[-4096:])
    with pack.open("r+b") as file:
        file.seek(at)
        file.write(bytes(4096))


def breaks_off(daemon: Daemon, path: str) -> None:
    """A GET gets no whole body, and soon there is nothing more to get."""
    try:
        answer = daemon.get(path)
    except (http.client.IncompleteRead, ConnectionError):
        assert "breaks off" in daemon.log
    else:
        assert (answer.status, answer.body[:17]) == (500, b"stored content is")
    deadline = time.monotonic() + 10
    while daemon.head(path).status != 404:
        assert time.monotonic() < deadline, "what is damaged is still offered"
        time.sleep(0.05)
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize("suffix", ["", ".zst"])
def test_damaged_content_is_healed_by_pushing_it_again(daemon: Daemon, suffix: str) -> None:
    assert daemon.put(nar_name(NAR), NAR).status == 201
    assert daemon.put(f"/{HASH}.narinfo", narinfo(daemon.store_dir)).status == 201
    whole = daemon.get(nar_name(NAR, suffix))
    assert whole.status == 200
    [packs] = daemon.program.directory.rglob("packs")
    damage(packs.parent)
    breaks_off(daemon, nar_name(NAR, suffix))
    daemon.stop()
    daemon.start()  # nothing is kept in memory
    assert daemon.get(f"/{HASH}.narinfo").status == 404
    assert daemon.put(nar_name(NAR), NAR).status == 201
    assert daemon.get(f"/{HASH}.narinfo").status == 200
    assert daemon.get(nar_name(NAR, suffix)).body[-100:] == whole.body[-100:]


FILES = {b"%03d" % n: TreeFile(noise(70_000, f"damage of many {n}")) for n in range(60)}
LARGE = {b"large": TreeFile(noise(6_000_000, "damage of a large one"))}


@pytest.mark.parametrize("suffix", ["", ".zst"])
@pytest.mark.parametrize("tree", [FILES, LARGE, FILES | LARGE], ids=["small files", "a large one", "both"])
@pytest.mark.parametrize("restarts", [False, True])
def test_damage_all_over_is_healed_by_pushing_once(
    daemon: Daemon, tree: dict[bytes, TreeFile], suffix: str, restarts: bool
) -> None:
    nar = trees.nar(tree)
    assert daemon.put(nar_name(nar), nar).status == 201
    whole = daemon.get(nar_name(nar, suffix)).body
    [packs] = daemon.program.directory.rglob("packs")
    for pack in packs.glob("*.pack"):
        with pack.open("r+b") as file:  # the index was not told, nor is the pack's beginning hurt
            for at in range(100_000, pack.stat().st_size, 400_000):
                file.seek(at)
                file.write(bytes(64))
    if restarts:
        daemon.stop()
        daemon.start()
    breaks_off(daemon, nar_name(nar, suffix))
    assert daemon.put(nar_name(nar), nar).status == 201
    answer = daemon.get(nar_name(nar, suffix))
    assert answer.status == 200, answer
    again = answer.body
    assert (again if not suffix else zstandard.ZstdDecompressor().stream_reader(again, read_across_frames=True).read()) == nar
    assert len(again) == len(whole)


def test_a_server_before_another_signs_only_what_it_has_seen_itself(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    key = SecretKey.generate("front-1")
    (tmp_path / "key").write_text(str(key))
    behind = start_daemon(name="behind")
    assert behind.put(nar_name(NAR), NAR).status == 201
    assert behind.put(f"/{HASH}.narinfo", narinfo(behind.store_dir)).status == 201
    address = f"grpc+http://127.0.0.1:{behind.port}"
    front = start_daemon("--store", address, "--signing-key-file", tmp_path / "key", name="front")
    assert b"Sig: front-1:" in front.narinfo(HASH)
    front.stop()
    [packs] = behind.program.directory.rglob("packs")
    damage(packs.parent)
    front.start()
    assert front.get(f"/{HASH}.narinfo").status == 404


@pytest.mark.parametrize("suffix", ["", ".zst"])
@pytest.mark.parametrize("harm", [0, 1])
def test_a_damaged_plan_is_made_anew_for_whoever_asks_first(daemon: Daemon, suffix: str, harm: int) -> None:
    nar = trees.nar(FILES)
    assert daemon.put(nar_name(nar), nar).status == 201
    whole = daemon.get(nar_name(nar, suffix))
    for _ in range(2):
        kept = wait_for_plans(daemon)
        daemon.stop()
        damage_plans(daemon, kept, harm)
        daemon.start()
        for _ in range(3):
            answer = daemon.get(nar_name(nar, suffix))
            assert (answer.status, answer.body) == (200, whole.body)
    assert "a plan is made anew" in daemon.log
    wait_for_plans(daemon)  # and kept again


def plans(daemon: Daemon) -> list[Place]:
    """Where the plans of NARs lie that can be read."""
    [packs] = daemon.program.directory.rglob("packs")
    engine = Engine.acquire(packs.parent, {})
    try:
        with engine.index.reading() as txn:
            digests = list(engine.index.record_values(txn, b"plan:"))
        return [place for digest in digests if (place := engine.index.chunk(digest)) is not None]
    finally:
        engine.release()


def wait_for_plans(daemon: Daemon) -> list[Place]:
    """Plans are kept behind the answer."""
    deadline = time.monotonic() + 20
    while not (places := plans(daemon)):
        assert time.monotonic() < deadline, "no plan is kept"
        time.sleep(0.05)
    return places


def damage_plans(daemon: Daemon, places: list[Place], at: int) -> None:
    [packs] = daemon.program.directory.rglob("packs")
    for place in places:
        with pack_path(packs, place.pack).open("r+b") as file:
            file.seek(place.offset + at * place.stored // 2)
            file.write(bytes(16))
