"""The packed layout on a real server of S3, behind a proxy that counts and delays requests."""

from __future__ import annotations

import time
from pathlib import Path

from tests.backends.objectstore.counting_proxy import counting_proxy
from tests.backends.objectstore.packed.packed_stores import files_of, nar_of, put_path
from tests.backends.objectstore.versitygw import Versitygw
from tvix_store.config import open_store
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.operations.trees.lookup import lookup
from tvix_store.testing.content import collect, missing, noise
from tvix_store.testing.trees import TreeFile, nar

DELAY = 0.05
TREE = {b"bin": {b"file": TreeFile(noise(64 << 10, "file"))}, b"many": files_of(200)}


async def test_requests_and_round_trips_on_a_server(s3: Versitygw, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    async with counting_proxy(s3.port) as proxy:

        def address(view: str) -> str:
            return s3.address(bucket, proxy.port, layout="packed", view=str(tmp_path / view))

        async with await open_store(address("writer")) as store:
            proxy.requests.clear()
            info = await put_path(store, TREE)
            assert proxy.count() == {"LIST": 1, "PUT": 3}
        async with await open_store(address("nar")) as store:
            proxy.requests.clear()
            assert await store.path_infos.get(info.store_path.output_hash) == info
            assert await store.nar.calculate(info.node) == info.nar
            assert proxy.count() == {"GET": 1}
            proxy.requests.clear()
            assert await nar_of(store, info) == nar(TREE)
            assert proxy.count() == {"GET": 2}
        async with await open_store(address("existence")) as store:
            proxy.requests.clear()
            assert await store.blobs.missing([missing(), Digest.of(noise(64 << 10, "file"))]) == {missing()}
            assert proxy.count() == {"LIST": 1, "GET": 1}
        async with await open_store(address("file")) as store:
            proxy.requests.clear()
            proxy.delay = DELAY
            began = time.monotonic()
            found = await store.path_infos.get(info.store_path.output_hash)
            assert found is not None
            node = await lookup(store.directories.tree(found.node), b"bin/file")
            assert isinstance(node, FileNode)
            assert await collect(store.blobs.read(node.digest)) == noise(64 << 10, "file")
            assert proxy.count() == {"GET": 3}
            assert time.monotonic() - began < 1.0  # three round trips, and a busy machine
