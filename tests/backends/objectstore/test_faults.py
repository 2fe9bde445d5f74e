"""A real server of S3 that does harm: what is acknowledged is there, and what is not there is not acknowledged."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from obstore.store import MemoryStore

from tests.backends.objectstore.counting_proxy import Answer, CountingProxy, Fault, Request, counting_proxy
from tests.backends.objectstore.versitygw import Versitygw
from tests.ports import free_port
from tvix_store.backends.objectstore import address
from tvix_store.backends.objectstore.bucket import Bucket, Version
from tvix_store.backends.objectstore.race import makes_conditional_writes
from tvix_store.config import open_store
from tvix_store.errors import UnavailableError
from tvix_store.model.path_info import PathInfo
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_tree, stream
from tvix_store.testing.contracts.nar import TREE
from tvix_store.testing.contracts.path_infos import path, signature, stored_file
from tvix_store.testing.contracts.removal import remove

_NOT_IMPLEMENTED = b"<?xml version='1.0'?><Error><Code>NotImplemented</Code><Message>A header is not implemented</Message></Error>"
_FAULTS: dict[str, Fault] = {
    "throttled": Answer(503, body=b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>"),
    "too many": Answer(429),
    "broken": Answer(500),
    "lost": "lost",
    "cut": "cut",
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        "max_retries": 4,
        "retry_timeout": timedelta(seconds=10),
        "backoff": {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=50), "base": 2},
    }
    monkeypatch.setattr(address.BucketAddress.open, "__kwdefaults__", {"retries": few})
    monkeypatch.setattr("tvix_store.backends.objectstore.FEW_RETRIES", few)


@pytest.fixture
async def proxy(s3: Versitygw) -> AsyncIterator[CountingProxy]:
    async with counting_proxy(s3.port) as proxy:
        yield proxy


@pytest.fixture
async def store(s3: Versitygw, proxy: CountingProxy) -> AsyncIterator[Store]:
    async with await open_store(s3.address(s3.new_bucket(), proxy.port, layout="snix")) as store:
        yield store


def once_each(fault: Fault, concerns: Callable[[Request], bool] = lambda request: True) -> Callable[[Request], Fault | None]:
    """Harm to the first of the requests of each kind for each key."""
    harmed: set[tuple[str, str, str]] = set()

    def harm(request: Request) -> Fault | None:
        which = (request.method, request.key, request.query)
        if which in harmed or not concerns(request):
            return None
        harmed.add(which)
        return fault

    return harm


@pytest.mark.parametrize("kind", _FAULTS)
async def test_each_request_fails_once_and_all_is_well(s3: Versitygw, proxy: CountingProxy, kind: str) -> None:
    proxy.fault = once_each(_FAULTS[kind])
    data = noise(700_000, "faulty")
    async with await open_store(s3.address(s3.new_bucket(), proxy.port, layout="snix")) as store:
        root = await put_tree(store, TREE)
        digest = await store.blobs.put(stream([data]))
        put = PathInfo(path("faulty"), root, await store.nar.calculate(root))
        assert await store.path_infos.put(put) == put
        signed = replace(put, signatures=(signature("key"),))
        assert await store.path_infos.put(signed) == signed
        assert [each async for each in store.path_infos.list()] == [signed]
        assert await collect(store.blobs.read(digest)) == data
        assert await remove(store, "faulty") == {"faulty"}


async def test_a_server_that_fails_for_good_is_told(proxy: CountingProxy, store: Store) -> None:
    proxy.fault = lambda request: _FAULTS["throttled"]
    with pytest.raises(UnavailableError, match="SlowDown"):
        await store.path_infos.get(bytes(20))


async def test_a_server_that_is_not_there_is_told() -> None:
    address = f"objectstore+s3://bucket?endpoint=http://127.0.0.1:{free_port()}&access_key_id=a&secret_access_key=b&allow_http=true"
    with pytest.raises(UnavailableError, match=r"^objectstore\+s3://bucket: nobody answers at http://127\.0\.0\.1:\d+; is the end"):
        await open_store(address)


async def test_a_conflict_without_a_winner_is_no_object(proxy: CountingProxy, store: Store) -> None:
    info = await stored_file(store, "conflict")
    proxy.fault = once_each(Answer(409), lambda request: request.is_conditional)
    assert await store.path_infos.put(info) == info
    assert await store.path_infos.get(info.store_path.output_hash) == info


async def test_a_server_without_conditional_writes_is_used_without_what_needs_them(
    s3: Versitygw, proxy: CountingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.fault = lambda request: Answer(501, body=_NOT_IMPLEMENTED) if request.is_conditional else None
    bucket = s3.new_bucket()
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            async with await open_store(s3.address(bucket, proxy.port)) as store:
                info = await stored_file(store, "unconditional")
                await store.path_infos.put(info)
                signed = replace(info, signatures=(signature("key"),))
                assert await store.path_infos.put(signed) == signed
                with pytest.raises(UnavailableError, match="no path can be removed safely"):
                    await remove(store, "unconditional")
        assert "makes no conditional writes: only one process may write to it" in caplog.text


class _Ignoring(Bucket):
    """A server that takes conditions and ignores them."""

    async def create(self, key: str, data: bytes) -> bool:
        await self.put(key, data)
        return True


class _TwoWinners(Bucket):
    async def replace(self, key: str, data: bytes, version: Version) -> bool:
        return await super().replace(key, data, version) or data[0] < 64


async def test_a_server_that_lets_two_writers_win_is_found_out() -> None:
    assert await makes_conditional_writes(Bucket(MemoryStore(), "good"))
    assert not await makes_conditional_writes(_Ignoring(MemoryStore(), "ignoring"))
    assert not await makes_conditional_writes(_TwoWinners(MemoryStore(), "racing"))


async def test_sixteen_writers_have_one_winner_on_a_server_and_in_a_directory(store: Store) -> None:
    """Both were looked at when they were opened. Here is that a look does not depend on luck."""
    bucket = store.path_infos._bucket  # type: ignore[attr-defined]
    for _ in range(5):
        assert await makes_conditional_writes(bucket)
