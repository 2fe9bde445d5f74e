"""PartsFetcher: brings the content of a store path from a cache, but for the parts that the store has.

A cache of ours lets others read the parts of its content. Its signed narinfo tells which NAR the path must have. Its path info
tells the root node, and is believed as little as the rest. All parts are held against their digests. The NAR of the whole is
computed here, and must be the NAR of the narinfo.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf

from tvix_store.errors import CorruptError, InvalidError, NotFoundError, StoreError, UnavailableError
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.granular.account import Account
from tvix_store.operations.granular.copy_tree import TreeCopier
from tvix_store.operations.nars.node_urls import node_of_url
from tvix_store.operations.paths.check import proves_content_address
from tvix_store.services.store import Store
from tvix_store.services.upstream import Upstream

_LEFT_ALONE = 60.0
"""Seconds for which NARs alone are fetched from a cache that has not answered a call: each call would wait as long."""
_log = logging.getLogger(__name__)


class PartsFetcher:
    """Fetches from one cache into one store; paths that are fetched at the same time share calls."""

    def __init__(self, upstream: Upstream, store: Store, *, deltas: bool | None = None, account: Account | None = None) -> None:
        self._upstream = upstream
        self._store = store
        self._deltas = deltas
        self._account = account or Account()
        self._copier: tuple[Store, TreeCopier] | None = None
        self._left_alone_until = -inf

    async def fetch(self, narinfo: NarInfo) -> PathInfo | None:
        """The path info of a path whose content the store has now, true of it. `narinfo` was checked.

        None where the cache offers no parts, or something goes wrong: then the NAR must be fetched.
        """
        try:
            node = await self._fetched(narinfo)
            if node is None:
                return None
            path_info = narinfo.path_info(node)
            await proves_content_address(self._store, path_info)
            return path_info
        except StoreError as error:
            if isinstance(error, UnavailableError):
                self._left_alone_until = asyncio.get_running_loop().time() + _LEFT_ALONE
            _log.warning("%s comes as a NAR, and not in parts: %s", narinfo.store_path, error)
            return None

    async def _fetched(self, narinfo: NarInfo) -> Node | None:
        """The root node of a tree that the store has now, whose NAR is that of `narinfo`; None where the cache offers no parts."""
        node = node_of_url(narinfo.url)
        if node is not None and await self._is_there(narinfo, node):
            return node
        if asyncio.get_running_loop().time() < self._left_alone_until:
            return None
        content = await self._upstream.content()
        if content is None:
            return None
        if node is None:
            node = await _node_of(content, narinfo)
        if node is None:
            return None
        copier = await self._copier_from(content)
        for thorough in (False, True):
            await copier.copy(node, narinfo.nar.size, narinfo.store_path, thorough=thorough)
            if await self._is_there(narinfo, node):
                return node
        raise CorruptError(f"the content of {narinfo.store_path} there has another NAR than its narinfo says")

    async def close(self) -> None:
        """End what is under way."""
        if self._copier is not None:
            await self._copier[1].close()

    async def _is_there(self, narinfo: NarInfo, node: Node) -> bool:
        """Whether the store has a tree of this node, and its NAR is the right one."""
        try:
            return await self._store.nar.calculate(node) == narinfo.nar
        except (NotFoundError, CorruptError, InvalidError):
            return False

    async def _copier_from(self, content: Store) -> TreeCopier:
        if self._copier is None or self._copier[0] is not content:
            await self.close()
            self._copier = content, TreeCopier.between(content, self._store, self._account, deltas=self._deltas)
        return self._copier[1]


async def _node_of(content: Store, narinfo: NarInfo) -> Node | None:
    found = await content.path_infos.get(narinfo.store_path.output_hash)
    return found.node if found is not None and found.nar == narinfo.nar else None
