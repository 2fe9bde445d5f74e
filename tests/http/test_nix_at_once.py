"""Many Nixes at once, and a daemon that dies in the middle: nothing partial is ever visible."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tvix_store.compression import decompressor
from tvix_store.model.narinfo import NarInfo
from tvix_store.testing import trees

AT_ONCE = 8
KILLS = 6
COMPRESSIONS = ("zstd", "gzip", "none", "lz4", "zstd", "gzip", "none", "br")
CLOSURES = f"""
  let
    numbers = builtins.genList (n: n);
    text = name: n: builtins.toFile "${{name}}-${{toString n}}" "${{name}} ${{toString n}}";
    shared = map (text "shared") (numbers 12);
    one = n: sh "closure-${{toString n}}" ''
      mkdir $out
      echo ${{toString shared}} > $out/shared
      echo ${{toString (map (text "own-${{toString n}}") (numbers 6))}} > $out/own
      head -c 2000000 /dev/urandom > $out/random
      head -c 3000000 /dev/zero > $out/zeros
      echo $out > $out/self
      for each in $(seq 100); do echo $each > $out/$each; done
    '';
  in map one (numbers {AT_ONCE})
"""


def check_all_that_is_visible(daemon: Daemon, nix: Nix) -> int:
    """Whatever has a narinfo has a NAR of that hash and size, and references that are there; the number of paths."""
    paths = daemon.paths()
    for path in paths:
        narinfo = NarInfo.parse(daemon.narinfo(path), daemon.store_dir)
        assert set(narinfo.references) <= {type(narinfo.store_path).parse(each, daemon.store_dir) for each in paths}
        answer = daemon.get("/" + narinfo.url)
        assert answer.status == 200
        stream = decompressor(narinfo.compression)
        nar = b"".join(stream.feed(answer.body))
        stream.finish()
        assert (len(nar), hashlib.sha256(nar).digest()) == (narinfo.nar.size, narinfo.nar.sha256)
    for info in nix.path_info(*paths) if paths else ():
        assert NarInfo.parse(daemon.narinfo(info["path"]), daemon.store_dir).nar.size == info["narSize"]
    return len(paths)


@pytest.mark.timeout(300)
def test_eight_pushers_and_eight_pullers_at_once(daemon: Daemon, nix: Nix, other_nix: Callable[..., Nix]) -> None:
    paths = nix.build(CLOSURES)
    assert len(paths) == AT_ONCE
    pullers = [other_nix("require-sigs = false\nnarinfo-cache-negative-ttl = 0") for _ in paths]
    given_up = time.monotonic() + 200

    def pull(puller: Nix, path: str) -> None:
        # From before it is there until it is there: an attempt may fail, but never with something that is wrong.
        while (done := puller.run("nix", "copy", "--from", daemon.url, path)).returncode:
            assert "there is no substituter that can build it" in done.stderr, done.stderr
            assert time.monotonic() < given_up, done.stderr
            time.sleep(0.3)  # a hundred processes of Nix would be most of the work

    with ThreadPoolExecutor(2 * AT_ONCE) as pool:
        pulls = [pool.submit(pull, puller, path) for puller, path in zip(pullers, paths, strict=True)]
        pushes = [
            pool.submit(nix.with_own_cache().copy_to, f"{daemon.url}?compression={name}", path)
            for path, name in zip(paths, COMPRESSIONS, strict=True)
        ]
        for each in (*pushes, *pulls):
            each.result()
    for puller, path in zip(pullers, paths, strict=True):
        whole = nix("nix-store", "-qR", path).splitlines()
        assert puller("nix-store", "-qR", path).splitlines() == whole
        assert all(trees.read(puller.real(each)) == trees.read(nix.real(each)) for each in whole)
    assert check_all_that_is_visible(daemon, nix) == len(set(daemon.paths())) == 12 + 7 * AT_ONCE
    assert daemon.is_well()


@pytest.mark.timeout(300)
def test_a_daemon_that_is_killed_while_it_is_pushed_to_shows_nothing_partial(
    daemon: Daemon, nix: Nix, other_nix: Callable[..., Nix]
) -> None:
    paths = nix.build(CLOSURES)
    generator = random.Random(1)
    seen: list[int] = []
    for round_ in range(KILLS):
        pushes = [nix.with_own_cache().start("nix", "copy", "--to", f"{daemon.url}?compression=gzip", path) for path in paths]
        time.sleep(0.1 + 0.1 * round_ + 0.1 * generator.random())
        daemon.kill()
        for push in pushes:  # it would wait for ever: see docs/design/http.md
            push.kill()
            push.communicate()
        daemon.start()
        before = set(daemon.paths())
        seen.append(check_all_that_is_visible(daemon, nix))
        assert len(before) >= max(seen), f"paths were lost in round {round_}"
    print("paths that were visible after each kill:", seen)
    nix.copy_to(f"{daemon.url}?compression=gzip", *paths)
    assert check_all_that_is_visible(daemon, nix) == 12 + 7 * AT_ONCE
    other = other_nix()
    other("nix-store", "-r", *paths, "--option", "substituters", daemon.url)
    other("nix-store", "--verify", "--check-contents")
    assert daemon.is_well()


@pytest.mark.timeout(300)
def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(daemon: Daemon, nix: Nix) -> None:
    stop = threading.Event()
    answered: list[int] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                answered.append(daemon.get("/nix-cache-info").status)
            except OSError:  # it was the one that died
                time.sleep(0.01)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(2):
        os.kill(daemon.workers[0], signal.SIGKILL)
        time.sleep(1.5)
    stop.set()
    asking.join()
    assert set(answered) == {200}
    assert len(daemon.workers) == 2
    path = nix.build('sh "after" "echo after > $out"')[0]
    nix.copy_to(daemon.url, path)
    assert daemon.paths() == [path]
