"""Daemons without state of their own before a bucket and a database: what one has, all have, whichever of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from tests.http.front_ends import FrontEnds, front_ends
from tests.http.nix import Nix
from tests.upstream.server import cached, serving
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

_WRITERS, _ROUNDS = 3, 4


@pytest.fixture
def three(tmp_path: Path, nix: Nix) -> Iterator[FrontEnds]:
    with front_ends(tmp_path / "front-ends", store_dir=nix.store_dir) as running:
        yield running


def _path(nix: Nix, place: Path, seed: str) -> str:
    trees.write({b"file": TreeFile(noise(50_000, seed)), b"same": TreeFile(noise(100_000, "same"))}, place / seed)
    return nix.add(place / seed)


def test_what_one_takes_all_have_at_once(three: FrontEnds, nix: Nix, other_nix: Callable[..., Nix], tmp_path: Path) -> None:
    for number, taking in enumerate(three.daemons):
        path = _path(nix, tmp_path, f"tree-{number}")
        for each in three.daemons:
            assert each.head(f"/{Path(path).name[:32]}.narinfo").status == 404
        nix.copy_to(taking.url, path)
        for giving in three.daemons:
            fetching = other_nix()
            fetching("nix", "copy", "--no-check-sigs", "--from", giving.url, path)
            assert (fetching.real(path) / "file").read_bytes() == noise(50_000, f"tree-{number}")


@pytest.mark.timeout(300)
def test_under_load_one_is_killed_and_another_started_and_clients_see_nothing(
    three: FrontEnds, nix: Nix, other_nix: Callable[..., Nix], tmp_path: Path
) -> None:
    paths = [[_path(nix, tmp_path, f"tree-{writer}-{number}") for number in range(_ROUNDS)] for writer in range(_WRITERS)]
    pushed: list[str] = []
    begun, over = Event(), Event()

    with three.balanced() as balancer, ThreadPoolExecutor(_WRITERS + 1) as pool:
        url = f"http://{balancer.address}"

        def write(writer: int) -> None:
            own = nix.with_own_cache()
            for path in paths[writer]:
                own.copy_to(f"{url}?compression=zstd", path)
                pushed.append(path)
                begun.set()

        def read() -> int:
            count = 0
            begun.wait(60)
            while not over.is_set() or count < 3:
                path = pushed[count % len(pushed)]
                fetching = other_nix()
                fetching("nix", "copy", "--no-check-sigs", "--from", url, path)
                fetching("nix-store", "--verify-path", path)
                count += 1
            return count

        writers = [pool.submit(write, writer) for writer in range(_WRITERS)]
        reader = pool.submit(read)
        try:
            assert begun.wait(60)
            three.daemons[1].kill()
            three.daemons[1].start()
            for each in writers:
                each.result()
        finally:
            over.set()
        assert reader.result() >= 3
    everything = sorted(path for each in paths for path in each)
    for daemon in three.daemons:
        assert sorted(daemon.program.run("list").lines) == everything
        ended = daemon.program.run("check", "--read-data")
        assert (ended.code, ended.lines, ended.error) == (0, [], f"{len(everything)} paths, 1.72 MiB in NARs: 0 not whole\n")


async def test_all_together_fetch_a_path_once(tmp_path: Path) -> None:
    async with serving() as upstream:
        path = upstream.publish(cached())

        def run() -> None:
            with front_ends(tmp_path / "front-ends", "--substituters", upstream.url) as running, ThreadPoolExecutor(6) as pool:
                asked = [pool.submit(each.get, path.narinfo_path) for each in running.daemons for _ in range(2)]
                narinfos = {each.result().body for each in asked}
                assert len(narinfos) == 1
                url = next(line for line in narinfos.pop().decode().splitlines() if line.startswith("URL: ")).removeprefix("URL: ")
                got = [pool.submit(each.get, f"/{url}") for each in running.daemons]
                assert {each.result().status for each in got} == {200}

        await asyncio.to_thread(run)
        assert upstream.asked(f"/{path.narinfo.url}") == 1
