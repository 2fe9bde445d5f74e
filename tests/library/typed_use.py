"""The library as type checkers see it. Nothing here runs: `dev.py lint` holds it against mypy and pyright.

An expected error is ignored by its code. mypy tells of an ignored error that is none.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import assert_type

import tvix_store
from tvix_store import Copied, Digest, Entry, Imported, PathInfo, Resolved, Stats, Store, sync


async def asynchronous() -> None:
    async with tvix_store.open_store(Path("x")) as store:
        assert_type(store, Store)
        assert_type(await store.path_infos.get("x"), PathInfo | None)
        assert_type(tvix_store.verified(store), Store)
        assert_type(store.with_services(nar=store.nar), Store)
        assert_type(await store.blobs.put([b"x"]), Digest)
        await store.blobs.put("text")  # type: ignore[arg-type]
        await store.path_infos.get(7)  # type: ignore[arg-type]
    assert_type(await tvix_store.open_store(), Store)


def synchronous() -> None:
    with sync.open_store(Path("x"), blobs="memory:") as store:
        assert_type(store, sync.Store)
        assert_type(sync.verified(store), sync.Store)
        assert_type(sync.import_tree(store, "x", name="y"), Imported)
        assert_type(sync.walk(store, "x"), Generator[Entry, None, None])
        assert_type(sync.resolve(store, Path("x")), Resolved)
        assert_type(sync.copy_paths(store, store, store.path_infos.list()), Generator[Copied, None, None])
        assert_type(sync.render_nar(store.blobs, sync.resolve(store, "x").tree), Generator[bytes, None, None])
        assert_type(store.blobs.read(Digest.of(b"")), Generator[bytes, None, None])
        assert_type(store.path_infos.get("x"), PathInfo | None)
        assert_type(store.path_infos.list(), Generator[PathInfo, None, None])
        if store.statistics is not None:
            assert_type(store.statistics.stats(), Stats)
        sync.import_tree(store, 7)  # type: ignore[arg-type]
        sync.open_store(nonsense=1)  # type: ignore[call-arg]
        store.blobs.read(7)  # type: ignore[arg-type]
        store.blobs.put(7)  # type: ignore[arg-type]
