"""Named caches of a daemon: what one holds, another neither tells nor gives out."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Program
from tests.http.daemon import Daemon, nar_name
from tests.http.nix import Nix
from tvix_store.config import open_store
from tvix_store.errors import StoreError
from tvix_store.model import nixbase32
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.granular.plain import granular_of
from tvix_store.operations.ingest.import_tree import import_tree
from tvix_store.operations.nars.node_urls import node_url
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.paths.copy import copy_paths
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.removal import HOUR, used_records
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, stream

CACHES = ("--cache", "theirs private", "--cache", "ours private", "--cache", "shown")


@dataclass(frozen=True)
class Secret:
    """A store path, and all that somebody may know of it."""

    path_info: PathInfo
    node: DirectoryNode
    inner: DirectoryNode
    small: FileNode
    large: FileNode
    chunks: tuple[Chunk, ...]
    nar: bytes

    @property
    def hash(self) -> str:
        return nixbase32.encode(self.path_info.store_path.output_hash)


@dataclass(frozen=True)
class Attacker:
    """A client of the cache `ours`, with a store of its own there, and the token in header fields."""

    daemon: Daemon
    store: Store
    token: str

    def http(self, method: str, path: str, body: bytes | None = None) -> str:
        answer = self.daemon.request(method, path, body, {"Authorization": f"Bearer {self.token}"})
        return f"{answer.status} {answer.headers.get('content-length')} {answer.body!r}"


async def secret(directory: Path, seed: str) -> tuple[Store, Secret]:
    """A store with one path, and what may be known of it. Its sizes are the same for all seeds."""
    tree = directory / seed
    (tree / "inner").mkdir(parents=True)
    (tree / "inner/small").write_bytes(noise(1000, seed))
    (tree / "large").write_bytes(noise(2_000_000, seed))
    store = await open_store(f"local://{directory}/{seed}-store")
    imported = await import_tree(store, tree, name="secret")
    assert imported.path_info is not None
    node = imported.node
    assert isinstance(node, DirectoryNode)
    root = await store.directories.get(node.digest)
    assert root is not None
    inner, large = root.entries[b"inner"], root.entries[b"large"]
    assert isinstance(inner, DirectoryNode)
    assert isinstance(large, FileNode)
    below = await store.directories.get(inner.digest)
    assert below is not None
    small = below.entries[b"small"]
    assert isinstance(small, FileNode)
    stat = await store.blobs.stat(large.digest, chunks=True)
    assert stat is not None
    nar = await collect(render_nar(store.blobs, store.directories.tree(node)))
    return store, Secret(imported.path_info, node, inner, small, large, tuple(stat.chunks), nar)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "daemon", *CACHES)
    daemon.start()
    yield daemon
    daemon.stop()


def token(daemon: Daemon, cache: str, scope: str = "push") -> str:
    return daemon.program("token", "create", "--scope", scope, "--cache", cache, "-q").strip()


@pytest.fixture
async def secrets(daemon: Daemon, tmp_path: Path) -> AsyncIterator[tuple[Secret, Secret]]:
    """A secret that the cache `theirs` holds, and one of the same shape that nobody holds."""
    theirs, known = await secret(tmp_path, "known")
    nowhere, unknown = await secret(tmp_path, "unknown")
    async with theirs, nowhere, await client(daemon, token(daemon, "theirs")) as target:
        copied = [each async for each in copy_paths(theirs, target, [known.path_info])]
        assert len(copied) == 1
        assert await target.path_infos.get(known.path_info.store_path.output_hash)
        yield known, unknown


async def client(daemon: Daemon, secret_token: str, prefix: str = "") -> Store:
    scheme = "connect+http" if prefix else "grpc+http"
    return await open_store(f"{scheme}://any:{secret_token}@127.0.0.1:{daemon.port}{prefix}")


Way = Callable[[Attacker, Secret], Awaitable[Any]]


def get(path: Callable[[Secret], str], method: str = "GET") -> Way:
    async def ask(attacker: Attacker, secret: Secret) -> str:
        return attacker.http(method, path(secret))

    return ask


async def _put_path_info(attacker: Attacker, secret: Secret) -> Any:
    return await attacker.store.path_infos.put(secret.path_info)


async def _put_narinfo(attacker: Attacker, secret: Secret) -> str:
    """The narinfo of a NAR that was never sent."""
    url = nar_name(secret.nar)[1:]
    info = NarInfo.of(secret.path_info, url, "none", NixHash("sha256", secret.path_info.nar.sha256), secret.path_info.nar.size)
    return attacker.http("PUT", f"/{secret.hash}.narinfo", info.format())


async def _directory_over(attacker: Attacker, secret: Secret) -> Any:
    """A directory that refers to one that was never sent, put alone."""
    parent = Directory({b"child": secret.inner})
    await granular_of(attacker.store).put_directories([parent])
    return await attacker.store.directories.get(parent.digest)


async def _directory_over_file(attacker: Attacker, secret: Secret) -> Any:
    """A directory that refers to a file that was never sent; then its NAR."""
    parent = Directory({b"file": secret.small})
    await attacker.store.directories.put(stream([parent]))
    return await attacker.store.nar.calculate(parent.node())


async def _read_over_file(attacker: Attacker, secret: Secret) -> str:
    parent = Directory({b"file": secret.large})
    await attacker.store.directories.put(stream([parent]))
    return attacker.http("GET", "/" + node_url(parent.node(), 0).partition("?")[0])


async def _assemble(attacker: Attacker, secret: Secret) -> Any:
    return await granular_of(attacker.store).assemble(secret.large.digest, secret.chunks)


async def _delta_from(attacker: Attacker, secret: Secret) -> Any:
    """A delta from a file of the secret to one of ours."""
    assert attacker.store.deltas is not None
    ours = await attacker.store.blobs.put(stream([noise(1000, "ours")]))
    return await attacker.store.deltas.make(secret.small.digest, Chunk(ours, 1000), 1 << 20)


async def _delta_to(attacker: Attacker, secret: Secret) -> Any:
    assert attacker.store.deltas is not None
    ours = await attacker.store.blobs.put(stream([noise(1000, "ours")]))
    return await attacker.store.deltas.make(ours, Chunk(secret.small.digest, secret.small.size), 1 << 20)


async def _delta_applied(attacker: Attacker, secret: Secret) -> Any:
    assert attacker.store.deltas is not None
    return await attacker.store.deltas.apply(secret.small.digest, Chunk(Digest.of(b"x"), 1), b"\0" * 10)


async def _listed(attacker: Attacker, secret: Secret) -> bool:
    return any([each.store_path == secret.path_info.store_path async for each in attacker.store.path_infos.list()])


def _frames(secret: Secret) -> list[Frame]:
    return [Frame(chunk.digest.raw, chunk.size, chunk.size) for chunk in secret.chunks]


WAYS: dict[str, Way] = {
    # Over HTTP, below the prefix of our cache, of theirs, and of none.
    **{
        f"{method} {prefix}/{name}": get(lambda secret, make=make, prefix=prefix: prefix + make(secret), method)  # type: ignore[misc]
        for prefix in ("", "/ours", "/theirs", "/shown")
        for method in ("GET", "HEAD")
        for name, make in {
            "narinfo": lambda secret: f"/{secret.hash}.narinfo",
            "listing": lambda secret: f"/{secret.hash}.ls",
            "NAR by hash": lambda secret: nar_name(secret.nar),
            "NAR as zstd": lambda secret: nar_name(secret.nar, ".zst"),
            "NAR by node": lambda secret: "/" + node_url(secret.node, len(secret.nar)),
            "NAR of a file": lambda secret: "/" + node_url(secret.large, secret.large.size),
            "a file by path": lambda secret: f"/serve/{secret.path_info.store_path}/large",
            "a log": lambda secret: f"/log/{secret.hash}-secret.drv",
        }.items()
    },
    "a prefix in other letters": get(lambda secret: f"/their%73/{secret.hash}.narinfo"),
    "a doubled slash": get(lambda secret: f"//theirs/{secret.hash}.narinfo"),
    "a prefix behind ours": get(lambda secret: f"/ours/theirs/{secret.hash}.narinfo"),
    "dots": get(lambda secret: f"/ours/../theirs/{secret.hash}.narinfo"),
    "encoded dots": get(lambda secret: f"/ours/%2e%2e/theirs/{secret.hash}.narinfo"),
    # Over gRPC.
    "path info": lambda attacker, secret: attacker.store.path_infos.get(secret.path_info.store_path.output_hash),
    "path infos": lambda attacker, secret: attacker.store.path_infos.get_many([secret.path_info.store_path.output_hash]),
    "existing paths": lambda attacker, secret: attacker.store.path_infos.existing([secret.path_info.store_path.output_hash]),
    "list of paths": _listed,
    "NAR calculated": lambda attacker, secret: attacker.store.nar.calculate(secret.node),
    "NAR of a file calculated": lambda attacker, secret: attacker.store.nar.calculate(secret.large),
    "small blob's size": lambda attacker, secret: attacker.store.blobs.stat(secret.small.digest),
    "large blob's chunks": lambda attacker, secret: attacker.store.blobs.stat(secret.large.digest, chunks=True),
    "missing blobs": lambda attacker, secret: _is_all_missing(
        attacker.store.blobs.missing, [secret.small.digest, secret.large.digest]
    ),
    "a chunk as a blob": lambda attacker, secret: collect(attacker.store.blobs.read(secret.chunks[0].digest)),
    "a chunk's size": lambda attacker, secret: attacker.store.blobs.stat(secret.chunks[1].digest),
    "small blob": lambda attacker, secret: collect(attacker.store.blobs.read(secret.small.digest)),
    "large blob": lambda attacker, secret: collect(attacker.store.blobs.read(secret.large.digest)),
    "part of a blob": lambda attacker, secret: collect(attacker.store.blobs.read(secret.large.digest, 10, 20)),
    "small blobs": lambda attacker, secret: attacker.store.blobs.get_many([secret.small.digest]),
    "directory": lambda attacker, secret: attacker.store.directories.get(secret.node.digest),
    "inner directory": lambda attacker, secret: attacker.store.directories.get(secret.inner.digest),
    "all directories": lambda attacker, secret: _all(attacker.store.directories.get_recursive(secret.node.digest)),
    "tree": lambda attacker, secret: attacker.store.directories.tree(secret.node).get(secret.inner.digest),
    "missing directories": lambda attacker, secret: _is_all_missing(
        granular_of(attacker.store).missing_directories, [secret.node.digest, secret.inner.digest]
    ),
    "directories": lambda attacker, secret: granular_of(attacker.store).get_directories([secret.inner.digest]),
    "list of chunks": lambda attacker, secret: granular_of(attacker.store).list_chunks(
        [Chunk(secret.large.digest, secret.large.size)]
    ),
    "chunks": lambda attacker, secret: granular_of(attacker.store).get_chunks(_frames(secret)[:2]),
    "missing chunks": lambda attacker, secret: _is_all_missing(
        granular_of(attacker.store).missing_chunks, [chunk.digest for chunk in secret.chunks]
    ),
    "delta from": _delta_from,
    "delta to": _delta_to,
    "delta applied": _delta_applied,
    # Puts that refer to content never sent.
    "path info put": _put_path_info,
    "narinfo put": _put_narinfo,
    "directory over a directory": _directory_over,
    "directory over a file": _directory_over_file,
    "NAR over a file": _read_over_file,
    "assembled": _assemble,
    "path info of a file": lambda attacker, secret: attacker.store.path_infos.put(
        PathInfo(secret.path_info.store_path, secret.large, secret.path_info.nar)
    ),
}


async def _all(items: Any) -> list[Any]:
    return [each async for each in items]


async def _is_all_missing(missing: Callable[[Sequence[Digest]], Awaitable[set[Digest]]], digests: Sequence[Digest]) -> bool:
    return await missing(digests) == set(digests)


async def outcome(way: Way, attacker: Attacker, secret: Secret) -> str:
    """What an attacker learns, without what it knew: digests, hashes and contents."""
    try:
        told = repr(await way(attacker, secret))
    except StoreError as error:
        told = f"{type(error).__name__}: {error}"
    told = re.sub(r"b3:[0-9a-f]{64}|\b[0-9a-f]{64}\b", "DIGEST", told)
    return re.sub(r"[0-9a-df-np-sv-z]{52}|[0-9a-df-np-sv-z]{32}", "HASH", told)


async def test_no_way_leads_to_what_only_another_cache_holds(daemon: Daemon, secrets: tuple[Secret, Secret]) -> None:
    """Every answer about content that another cache holds is the answer about content that nobody has ever sent."""
    known, unknown = secrets
    assert len(WAYS) >= 50
    told: list[str] = []
    ours = token(daemon, "ours")
    async with await client(daemon, ours) as grpc, await client(daemon, ours, "/ours") as connect:
        for store in (grpc, connect):
            attacker = Attacker(daemon, store, ours)
            for name, way in WAYS.items():
                of_unknown, of_known = await outcome(way, attacker, unknown), await outcome(way, attacker, known)
                if of_known != of_unknown:
                    told.append(f"{name}: {of_known[:200]} instead of {of_unknown[:200]}")
    assert told == []
    assert "Traceback" not in daemon.log


async def test_the_ways_lead_to_what_the_cache_holds(daemon: Daemon, secrets: tuple[Secret, Secret]) -> None:
    """So the check above can fail."""
    known, unknown = secrets
    theirs = token(daemon, "theirs")
    same: list[str] = []
    async with await client(daemon, theirs) as store:
        attacker = Attacker(daemon, store, theirs)
        for name, way in WAYS.items():
            if await outcome(way, attacker, known) == await outcome(way, attacker, unknown):
                same.append(name)
    mute = re.compile(r"(GET|HEAD) /(ours|shown)/|.*/a log$|.*(dots|slash|letters|behind)|delta from")
    assert [name for name in same if not mute.match(name)] == []


async def test_content_is_stored_once_and_each_cache_must_be_sent_it(
    daemon: Daemon, secrets: tuple[Secret, Secret], tmp_path: Path
) -> None:
    known, _ = secrets
    before = daemon.content_bytes()
    async with await open_store(f"local://{tmp_path}/known-store") as source, await client(daemon, token(daemon, "ours")) as target:
        assert await target.blobs.missing([known.large.digest]) == {known.large.digest}
        _ = [each async for each in copy_paths(source, target, [known.path_info])]
        nar = await collect(render_nar(target.blobs, target.directories.tree(known.node)))
    assert nar == known.nar
    assert daemon.content_bytes() - before < 100_000


def test_nix_pushes_to_a_cache_and_fetches_from_it_alone(tmp_path: Path, nix: Nix, other_nix: Callable[..., Nix]) -> None:
    daemon = Daemon(tmp_path / "daemon", *CACHES, store_dir=tmp_path / "nix/store")
    daemon.start()
    try:
        (tmp_path / "file").write_bytes(noise(100_000))
        path = nix.add(tmp_path / "file")
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine 127.0.0.1 login any password {token(daemon, 'ours')}\n")
        nix("nix", "copy", "--option", "netrc-file", netrc, "--to", f"{daemon.url}/ours", path)
        other = other_nix()
        with pytest.raises(AssertionError):
            other("nix", "copy", "--no-check-sigs", "--from", f"{daemon.url}/ours", path)
        with pytest.raises(AssertionError):
            other("nix", "copy", "--no-check-sigs", "--from", f"{daemon.url}/shown", path)
        other("nix", "copy", "--no-check-sigs", "--option", "netrc-file", netrc, "--from", f"{daemon.url}/ours", path)
        assert Path(other.real(path)).read_bytes() == noise(100_000)
    finally:
        daemon.stop()


def wait_for(daemon: Daemon, line: str) -> None:
    until = time.monotonic() + 60
    while line not in daemon.log and time.monotonic() < until:
        time.sleep(0.2)


async def test_a_cache_lets_go_of_what_nobody_uses(tmp_path: Path) -> None:
    """Of a path that was last used long ago, and not of one that is asked for meanwhile."""
    daemon = Daemon(tmp_path / "daemon", "--cache", "shown retention=30d")
    paths: dict[str, str] = {}
    async with await open_store(f"local://{daemon.program.store}?cache=shown") as cache:
        for name in ("old", "asked", "new"):
            (tmp_path / name).write_bytes(noise(100_000, name))
            imported = await import_tree(cache, tmp_path / name)
            assert imported.path_info is not None
            output_hash = imported.path_info.store_path.output_hash
            paths[name] = f"/shown/{nixbase32.encode(output_hash)}.narinfo"
            assert cache.records is not None
            await cache.records.put(used_records({output_hash: 2000 - (0 if name == "new" else 31 * 24)}))
            await cache.records.put({b"hours:": struct.pack("<III", 2000, int(time.time() / HOUR), 2000 - 25)})
    daemon.start()
    try:
        assert daemon.get(paths["asked"]).status == 200
        wait_for(daemon, "not used for 720 hours are gone")
        assert {name: daemon.get(path).status for name, path in paths.items()} == {"old": 404, "asked": 200, "new": 200}
        assert daemon.log.count("cache shown: 1 paths not used for 720 hours are gone") == 1
    finally:
        daemon.stop()


def test_the_whole_store_is_for_those_alone_who_may_use_all_caches(daemon: Daemon) -> None:
    everything = daemon.program("token", "create", "--scope", "pull", "-q").strip()
    assert daemon.get("/nix-cache-info").status == 401
    assert daemon.get("/nix-cache-info", authorization=f"Bearer {everything}").status == 200
    for name in ("theirs", "ours", "nowhere"):  # private ones are as good as none, to strangers
        assert daemon.get(f"/{name}/nix-cache-info").status == 401
    for name in ("theirs", "ours", "shown"):
        assert daemon.get(f"/{name}/nix-cache-info", authorization=f"Bearer {everything}").status == 200
    assert daemon.get("/shown/nix-cache-info").status == 200
    assert daemon.put("/shown/nix-cache-info", b"").status == 401


def test_a_token_of_one_cache_reads_of_others_what_strangers_read(daemon: Daemon) -> None:
    ours = {"authorization": f"Bearer {token(daemon, 'ours')}"}
    assert daemon.get("/shown/nix-cache-info", **ours).status == 200
    assert daemon.put("/shown/nix-cache-info", b"", **ours).status == 403
    assert daemon.get("/theirs/nix-cache-info", **ours).status == 404
    assert daemon.put("/ours/nix-cache-info", b"", **ours).status == 200
    assert daemon.put("/nix-cache-info", b"", **ours).status == 200


def test_a_file_of_tokens_that_is_named_and_not_there_lets_nobody_write(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon", "--token-file", tmp_path / "mistyped.json")
    daemon.start()
    try:
        assert daemon.put("/nix-cache-info", b"").status == 401
        assert daemon.get("/nix-cache-info").status == 200
        assert "there is no file of tokens" in daemon.log
    finally:
        daemon.stop()


def test_a_token_of_a_cache_that_is_not_served_opens_nothing(tmp_path: Path) -> None:
    """Least of all the whole store, where no caches are served."""
    for options in ((), ("--cache", "other"), ("--private",)):
        daemon = Daemon(tmp_path / f"daemon-{len(options)}-{options[-1:]}", *options)
        daemon.start()
        try:
            lost = {"authorization": f"Bearer {token(daemon, 'lost')}"}
            time.sleep(0.5)  # until the daemon has read the token
            for path in ("/nix-cache-info", "/lost/nix-cache-info", "/other/nix-cache-info"):
                for answer in (daemon.get(path, **lost), daemon.put(path, b"", **lost)):
                    assert answer.status == 401, (options, path)
        finally:
            daemon.stop()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--cache", "Team"), "not a name of a cache: 'Team'"),
        (("--cache", "nar"), "a cache cannot be called nar"),
        (("--cache", "a", "--cache", "a private"), "two caches have one name"),
        (("--cache", "a colour=red"), "unknown setting 'colour'"),
        (("--cache", "a priority=x"), "priority is a number"),
        (("--cache", "a private=yes"), "true or false"),
        (("--cache", "a quota=much"), "not a number of bytes"),
        (("--cache", "a retention=soon"), "not a span of time"),
        (("--cache", "a retention=5m"), "retention: the least is an hour"),
        (("--cache", "a require-signatures"), "needs trusted-public-keys"),
        (("--cache", "a", "--default-cache", "b"), "there is no cache 'b'"),
        (("--cache", "a", "--store", "memory:"), "only a store in one directory has named caches"),
    ],
)
def test_what_is_no_cache_is_refused_by_name(tmp_path: Path, options: tuple[str, ...], complaint: str) -> None:
    (tmp_path / "daemon").mkdir()
    ended = Program(tmp_path / "daemon").run("daemon", "-l", "127.0.0.1:0", "--workers", "1", *options)
    assert ended.code in (2, 3, 10)
    assert complaint in ended.error
    assert ended.error.count("\n") == 1
