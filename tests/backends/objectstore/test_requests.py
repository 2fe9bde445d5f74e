"""How many requests things take, on a real server of S3."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.backends.objectstore.counting_proxy import CountingProxy, counting_proxy
from tests.backends.objectstore.versitygw import Versitygw
from tvix_store.config import open_store
from tvix_store.testing.content import collect, noise, pieces
from tvix_store.testing.contracts.path_infos import stored_file


@pytest.fixture
async def proxy(s3: Versitygw) -> AsyncIterator[CountingProxy]:
    async with counting_proxy(s3.port) as proxy:
        yield proxy


async def test_opening_a_store_that_is_there_takes_one_request(s3: Versitygw, proxy: CountingProxy) -> None:
    address = s3.address(s3.new_bucket(), proxy.port, layout="snix")
    async with await open_store(address):
        pass
    proxy.requests.clear()
    async with await open_store(address):
        pass
    assert proxy.count() == {"GET": 1}


async def test_a_small_blob_is_one_request_to_read_and_three_to_write(s3: Versitygw, proxy: CountingProxy) -> None:
    async with await open_store(s3.address(s3.new_bucket(), proxy.port, layout="snix")) as store:
        proxy.requests.clear()
        digests = await store.blobs.put_many([noise(100, str(n)) for n in range(20)])
        assert proxy.count() == {"HEAD": 20, "PUT": 40}
        proxy.requests.clear()
        await store.blobs.put_many([noise(100, str(n)) for n in range(20)])
        assert proxy.count() == {"HEAD": 20}
        proxy.requests.clear()
        await store.blobs.get_many(digests)
        assert proxy.count() == {"GET": 20}


async def test_requests_are_many_at_a_time_and_bounded(s3: Versitygw, proxy: CountingProxy) -> None:
    async with await open_store(s3.address(s3.new_bucket(), proxy.port, layout="snix")) as store:
        data = noise(12 << 20, "large")
        digest = await store.blobs.put(pieces(data, 1 << 20))
        small = await store.blobs.put_many([noise(100, str(n)) for n in range(100)])
        proxy.delay, proxy.most_at_once = 0.05, 0
        assert await collect(store.blobs.read(digest)) == data
        assert 16 <= proxy.most_at_once <= 32
        await store.blobs.get_many(small)
        assert proxy.most_at_once == 32


async def test_a_path_info_takes_one_request(s3: Versitygw, proxy: CountingProxy) -> None:
    async with await open_store(s3.address(s3.new_bucket(), proxy.port, layout="snix")) as store:
        info = await stored_file(store, "path")
        proxy.requests.clear()
        await store.path_infos.put(info)
        assert proxy.count() == {"PUT": 1}
        proxy.requests.clear()
        await store.path_infos.get(info.store_path.output_hash)
        assert proxy.count() == {"GET": 1}
