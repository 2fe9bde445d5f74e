"""The client finds out what a server offers, by reflection or by trying."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tvix_store.backends.grpc import open_store
from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.discovery import Abilities, discover
from tvix_store.config import open_store as open_from
from tvix_store.errors import DeniedError, NotFoundError, UnavailableError, UnsupportedError
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.protocol.dialects import DIALECTS, SEED, SNIX, TVIX, Dialect
from tvix_store.rpc.method import Call, Method, Streaming, Unary
from tvix_store.rpc.reflection import reflection_methods
from tvix_store.rpc.status import RpcError, Status
from tvix_store.server.settings import TlsFiles
from tvix_store.testing.content import noise, stream

TLS = Path(__file__).parent / "tls"
"""A certificate for localhost that signs itself, valid until 2126: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256
-nodes -keyout localhost.key -out localhost.pem -days 36500 -subj "/CN=tvix-store tests" -addext
"subjectAltName=DNS:localhost,IP:127.0.0.1"."""
by_reflection_or_trying = pytest.mark.parametrize("reflection", [True, False], ids=["reflection", "trying"])


async def offer_of(methods: dict[str, Method], pinned: Dialect | None = None) -> Abilities:
    """What the client finds out about a server with `methods`."""
    async with serve(methods) as url:
        connection = Connection(ServerAddress.parse(url))
        try:
            return await discover(connection, pinned)
        finally:
            await connection.close()


def with_status(methods: dict[str, Method], status: Status) -> dict[str, Method]:
    """The same methods, all of which end with `status`."""

    async def fail(_messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        raise RpcError(status, "not for you")
        yield

    return dict.fromkeys(methods, Streaming(fail))


@by_reflection_or_trying
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_the_only_dialect_of_a_server_is_found(dialect: Dialect, reflection: bool) -> None:
    methods = await store_methods(dialects=[dialect], bulk=False, reflection=reflection)
    assert await offer_of(methods) == Abilities(dialect, bulk=False, only_snix=dialect is SNIX)


@by_reflection_or_trying
async def test_of_all_dialects_tvix_is_preferred_then_snix(reflection: bool) -> None:
    assert await offer_of(await store_methods(reflection=reflection)) == Abilities(TVIX, bulk=True, only_snix=False)
    two = await store_methods(dialects=[SEED, SNIX], reflection=reflection)
    assert await offer_of(two) == Abilities(SNIX, bulk=True, only_snix=False)


@by_reflection_or_trying
async def test_a_pinned_dialect_is_spoken(reflection: bool) -> None:
    methods = await store_methods(reflection=reflection)
    for dialect in DIALECTS:
        assert await offer_of(methods, dialect) == Abilities(dialect, bulk=True, only_snix=False)


@by_reflection_or_trying
async def test_a_pinned_dialect_that_the_server_does_not_speak_is_refused_by_name(reflection: bool) -> None:
    methods = await store_methods(dialects=[TVIX, SNIX], reflection=reflection)
    with pytest.raises(UnsupportedError, match=r"does not speak the dialect seed \(it speaks tvix, snix\)"):
        await offer_of(methods, SEED)


@by_reflection_or_trying
async def test_a_server_that_has_only_path_infos_is_one_of_theirs(reflection: bool) -> None:
    methods = await store_methods(dialects=[TVIX], bulk=False, reflection=reflection)
    path_infos = {path: method for path, method in methods.items() if "castore" not in path}
    assert (await offer_of(path_infos)).dialect is TVIX


@by_reflection_or_trying
async def test_nars_are_calculated_here_where_the_server_has_no_path_infos(reflection: bool) -> None:
    methods = await store_methods(dialects=[SNIX], bulk=False, reflection=False)
    castore = {path: method for path, method in methods.items() if "castore" in path}
    if reflection:
        castore |= reflection_methods(SNIX.services[:2])
    async with serve(castore) as url, await open_from(url, path_infos="memory://") as store:
        [digest] = await store.blobs.put_many([b"there"])
        root = Directory({b"file": FileNode(digest, 5)})
        await store.directories.put(stream([root]))
        facts = await store.nar.calculate(root.node())
        assert facts == await calculate_nar(store.blobs, store.directories.tree(root.node()))
        await store.path_infos.put(PathInfo(StorePath(bytes(20), "x"), root.node(), facts))


@by_reflection_or_trying
async def test_a_server_that_lacks_a_service_is_no_whole_store(reflection: bool) -> None:
    methods = await store_methods(dialects=[SNIX], bulk=False, reflection=False)
    castore = {path: method for path, method in methods.items() if "castore" in path}
    path_infos = {path: method for path, method in methods.items() if "castore" not in path}
    if reflection:
        castore |= reflection_methods(SNIX.services[:2])
        path_infos |= reflection_methods(SNIX.services[2:])
    async with serve(castore) as url:
        with pytest.raises(
            UnsupportedError, match=rf"^{re.escape(url)} has no path infos: give the address of a store that has them$"
        ):
            await open_from(url)
    async with serve(path_infos) as url:
        with pytest.raises(UnsupportedError, match=rf"^{re.escape(url)} has no blobs and no directories: give"):
            await open_store(url)
        async with await open_from("memory://", path_infos=url) as store:
            assert await store.path_infos.get(bytes(20)) is None


async def test_a_server_at_a_socket_is_called_localhost(tmp_path: Path) -> None:
    """And not by the escaped path, which snix refuses."""
    authorities: set[bytes] = set()

    async def health(_message: bytes, call: Call) -> bytes:
        authorities.update(value for name, value in call.headers if name in {b"host", b":authority"})
        return b""

    methods = await store_methods() | {"/grpc.health.v1.Health/Check": Unary(health)}
    async with serve(methods, listen=f"{tmp_path}/sock") as url, await open_store(url) as store:
        await store.check()
    assert authorities == {b"localhost"}


@by_reflection_or_trying
@pytest.mark.parametrize("whole_blobs", [True, False])
async def test_services_of_chunks_are_found_and_mean_the_snix_of_2026(reflection: bool, whole_blobs: bool) -> None:
    methods = await store_methods(dialects=[SNIX], bulk=False, chunks=True, whole_blobs=whole_blobs, reflection=reflection)
    assert await offer_of(methods) == Abilities(SNIX, bulk=False, only_snix=False, whole_blobs=whole_blobs, chunks=True)


async def test_a_server_of_something_else_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="none of the services"):
        await offer_of({})


async def test_reflection_of_the_older_version_is_enough() -> None:
    methods = await store_methods(dialects=[SEED])
    del methods["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
    assert (await offer_of(methods)).dialect is SEED


async def test_reflection_that_is_forbidden_or_garbled_is_as_none() -> None:
    for status in (Status.PERMISSION_DENIED, Status.INTERNAL):
        methods = await store_methods(dialects=[SNIX])
        reflection = {path: method for path, method in methods.items() if "reflection" in path}
        assert (await offer_of(methods | with_status(reflection, status))).dialect is SNIX

    async def garble(_message: bytes, _call: Call) -> bytes:
        return b"\x32\xff"

    assert (await offer_of(methods | dict.fromkeys(reflection, Unary(garble)))).dialect is SNIX


async def test_a_server_that_lets_nobody_in_says_so() -> None:
    methods = with_status(await store_methods(reflection=False), Status.UNAUTHENTICATED)
    with pytest.raises(DeniedError, match="not for you"):
        await offer_of(methods)


async def test_sizes_are_counted_as_the_server_knows_them() -> None:
    async with serve(await store_methods(dialects=[SNIX])) as url, await open_store(url) as store:
        assert store.size_rule is SizeRule.SNIX
    async with serve(await store_methods()) as url, await open_store(f"{url}?dialect=snix") as store:
        assert store.size_rule is SizeRule.DOCUMENTED


async def test_a_server_that_is_away_is_named() -> None:
    for protocol in ("grpc", "connect"):
        with pytest.raises(UnavailableError, match=rf"^{protocol}\+http://127\.0\.0\.1:1: nobody answers there"):
            await open_store(f"{protocol}+http://127.0.0.1:1")


async def test_wait_connect_waits_for_the_server(tmp_path: Path) -> None:
    opening = asyncio.create_task(open_store(f"grpc+unix://{tmp_path}/sock?wait-connect=1"))
    await asyncio.sleep(0.3)
    assert not opening.done()
    async with serve(await store_methods(), listen=f"{tmp_path}/sock"), await opening as store:
        await store.check()


async def test_wait_connect_waits_over_plain_http_too() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    opening = asyncio.create_task(open_store(f"connect+http://{address}?wait-connect=1"))
    await asyncio.sleep(0.3)
    assert not opening.done()
    async with serve(await store_methods(), listen=address), await opening as store:
        await store.check()


async def test_wait_connect_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.backends.grpc.connection.PATIENCE", 0.1)
    for url in (f"grpc+unix://{tmp_path}/sock", "connect+http://127.0.0.1:1"):
        with pytest.raises(UnavailableError):
            await open_store(f"{url}?wait-connect=1")


@pytest.mark.parametrize("protocol", ["grpc", "connect"])
async def test_a_server_with_tls_is_believed_if_its_authority_is_trusted(protocol: str) -> None:
    tls = TlsFiles(TLS / "localhost.pem", TLS / "localhost.key")
    async with serve(await store_methods(), tls=tls, protocol=protocol) as url:
        async with await open_store(f"{url}?ca={TLS}/localhost.pem") as store:
            data = noise(3_000_000, "tls")
            [digest] = await store.blobs.put_many([data[:1000]])
            assert await store.blobs.get_many([digest]) == [data[:1000]]
        with pytest.raises(UnavailableError):
            await open_store(url)
        with pytest.raises(UnavailableError):
            await open_store(url.replace("https", "http"))
        with pytest.raises(NotFoundError, match=r"missing\.pem"):
            await open_store(f"{url}?ca={TLS}/missing.pem")
