"""A daemon behind a real nginx that takes bodies of 1 MiB, and caches what says that it may be cached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tests.cli.program import Program
from tests.http.daemon import Daemon
from tests.nginx import Nginx, nginx_before
from tvix_store.backends.grpc import open_store
from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.directories import GrpcDirectories
from tvix_store.errors import ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.protocol.blobs import decode_chunk, encode_digest
from tvix_store.protocol.dialects import SEED
from tvix_store.services.store import Store
from tvix_store.testing.content import missing, noise, stream
from tvix_store.testing.contracts import StoreContract

MIB = 1 << 20
GET = SEED.blob("Get")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("behind"))
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def nginx(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx_before(f"127.0.0.1:{daemon.port}", tmp_path_factory.mktemp("nginx") / "run") as nginx:
        yield nginx


@pytest.fixture(scope="module")
def url(nginx: Nginx) -> str:
    return f"connect+http://{nginx.address}/store"


class TestServerBehindNginx(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with serve(await store_methods(chunks=True)) as url:
            with nginx_before(url.rpartition("/")[2], tmp_path / "nginx") as nginx:
                async with await open_store(f"connect+http://{nginx.address}/store") as store:
                    yield store


def statuses(nginx: Nginx, start: int) -> set[str]:
    """The HTTP statuses of the requests behind the first `start`."""
    return {line.split()[2] for line in nginx.log[start:]}


def test_a_tree_with_a_large_file_is_imported_and_read_back(url: str, nginx: Nginx, tmp_path: Path) -> None:
    before = len(nginx.log)
    tree = tmp_path / "tree"
    (tree / "some").mkdir(parents=True)
    content = noise(20 * MIB, "through nginx")
    (tree / "large").write_bytes(content)
    for number in range(100):
        (tree / "some" / str(number)).write_bytes(noise(30_000, f"through nginx {number}"))
    program = Program(tmp_path)
    program.environment["TVIX_STORE"] = url
    path = program("import", tree)
    assert program("list") == path
    program("export", path, tmp_path / "back")
    assert (tmp_path / "back" / "large").read_bytes() == content
    assert len(list((tmp_path / "back" / "some").iterdir())) == 100
    assert "413" not in statuses(nginx, before)
    alone = program("import", tree / "large")
    assert program.run("cat", alone).output == content


def test_a_tree_is_copied_there_and_back_and_again(url: str, nginx: Nginx, tmp_path: Path) -> None:
    """Chunk by chunk, and a changed file as a delta where that is small enough."""
    before = len(nginx.log)
    tree, content = tmp_path / "copied", noise(5 * MIB, "copied through nginx")
    tree.mkdir()
    here, back = Program(tmp_path / "here"), Program(tmp_path / "back")
    for program in (here, back):
        program.directory.mkdir()
    for changed in (b"", b"a change", noise(3 * MIB, "a large change")):
        (tree / "large").write_bytes(content[: 2 * MIB] + changed + content[2 * MIB :])
        path = here("import", tree)
        for copied in (here.run("copy", "--to", url, path), back.run("copy", "--from", url, path)):
            assert copied.code == 0, copied.error
        back("export", path, tmp_path / f"back{len(changed)}")
        assert (tmp_path / f"back{len(changed)}" / "large").read_bytes() == (tree / "large").read_bytes()
    assert statuses(nginx, before) == {"200"}


def test_a_cache_on_the_way_answers_for_large_chunks(url: str, nginx: Nginx, tmp_path: Path) -> None:
    """The second who copies a path gets its large chunks from nginx."""
    (tmp_path / "large").write_bytes(noise(3 * MIB, "from the cache of nginx"))
    program = Program(tmp_path)
    path = program("import", "--name", "cached", tmp_path / "large")
    program("copy", "-q", "--to", url, path)
    for which, outcome in (("first", "MISS"), ("second", "HIT")):
        before = len(nginx.log)
        program("copy", "-q", "--from", url, "--to", tmp_path / which, path)
        assert {line.split()[3] for line in nginx.log[before:] if line.startswith("GET") and "/GetChunk " in line} == {outcome}
        assert program("--store", tmp_path / which, "list") == path


async def test_nothing_that_may_change_is_cached_and_what_may_not_is_fetched_once(url: str, nginx: Nginx, daemon: Daemon) -> None:
    connection = Connection(ServerAddress.parse(url))
    content = noise(100_000, "to be cached")
    digest = Digest.of(content)
    asked = encode_digest(digest)

    async def get() -> bytes:
        return decode_chunk(await connection.call(GET, asked, ("blob", digest), immutable=True))

    def said() -> list[str]:
        return [line.split()[3] for line in nginx.log if f"/rpc/v1{GET}" in line]

    try:
        for _ in range(2):
            with pytest.raises(NotFoundError):
                await get()
        async with await open_store(f"grpc+http://127.0.0.1:{daemon.port}") as store:
            await store.blobs.put(stream([content]))
        for _ in range(3):
            assert await get() == content
    finally:
        await connection.close()
    assert said() == ["MISS", "MISS", "MISS", "HIT", "HIT"]


async def test_a_body_that_the_proxy_refuses_is_told_in_one_line_that_says_what_to_do(url: str) -> None:
    blobs = [noise(250_000, f"too much {number}") for number in range(8)]
    async with await open_store(f"{url}?max_body={8 * MIB}") as store:
        with pytest.raises(ExhaustedError) as caught:
            await store.blobs.put_many(blobs)
    line = str(caught.value)
    assert line.startswith(f"{url}: a request body is too large for the server, or for a proxy before it (HTTP status 413)")
    assert "max_body" in line
    assert "client_max_body_size" in line
    assert "\n" not in line
    async with await open_store(url) as store:
        assert await store.blobs.put_many(blobs) == [Digest.of(blob) for blob in blobs]


def large_graph() -> list[Directory]:
    """Directories of more than 2 MiB, leaves first."""
    files = [FileNode(missing(str(number)), number) for number in range(3000)]
    leaves = [Directory({b"%d-%d" % (part, number): node for number, node in enumerate(files)}) for part in range(20)]
    graph = [*leaves, Directory({b"%d" % part: DirectoryNode(each.digest, each.size()) for part, each in enumerate(leaves)})]
    assert sum(len(each.encoded) for each in graph) > 2 * MIB
    return graph


async def test_directories_that_do_not_fit_a_body_go_in_several(url: str) -> None:
    graph = large_graph()
    async with await open_store(url) as store:
        with pytest.raises(InvalidError, match="not reachable"):
            await store.directories.put(stream([*graph, Directory({})]))
        assert await store.directories.put(stream(graph)) == graph[-1].digest
        assert {each.digest async for each in store.directories.get_recursive(graph[-1].digest)} == {each.digest for each in graph}


async def test_a_stream_that_does_not_fit_is_refused_as_clearly(url: str) -> None:
    """As with a server that takes directories in one call only."""
    async with await open_store(url) as store:
        directories = store.directories
        assert isinstance(directories, GrpcDirectories)
        with pytest.raises(ExhaustedError, match=r"\(HTTP status 413\)"):
            await directories._put_whole(stream(large_graph()))


def test_a_daemon_that_is_away_is_named(tmp_path: Path) -> None:
    program = Program(tmp_path)
    with nginx_before("127.0.0.1:1", tmp_path / "nginx") as before_nothing:
        program.environment["TVIX_STORE"] = url = f"connect+http://{before_nothing.address}/store"
        ended = program.run("list")
    assert ended.code != 0
    assert ended.error.count("\n") == 1
    assert f"{url}: the server answered with the HTTP status 502" in ended.error
