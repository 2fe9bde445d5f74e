"""LocalSmallTrees: contents, directories and records in one request to the committer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.contents import Content
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.path_infos import node_key
from tvix_store.backends.local.records import Kind
from tvix_store.backends.local.requests import PutTree
from tvix_store.model.path_info import NarFacts
from tvix_store.services.records import check_records
from tvix_store.services.small_trees import SmallTree


class LocalSmallTrees:
    """The SmallTrees of a local store."""

    def __init__(self, engine: Engine, blobs: LocalBlobs) -> None:
        self._engine = engine
        self._blobs = blobs

    async def put(self, tree: SmallTree, nar: NarFacts, records: Mapping[bytes, bytes]) -> None:
        check_records(records)
        # Compressed by the committer: to let another thread do that takes longer.
        contents, _ = self._blobs.cut_all(tree.blobs)
        contents += [Content(Kind.DIRECTORY, each.digest.raw, each.encoded) for each in tree.directories]
        await asyncio.wrap_future(self._engine.committer.submit(PutTree(contents, (node_key(tree.node), nar), records)))
