"""Many path infos of one content: what they point at costs nothing, so the lookups are all that is measured."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

from tvix_store import PathInfo, StorePath, import_tree, open_store

_PUTS_AT_A_TIME = 256


async def put_path_infos(directory: Path, count: int) -> tuple[list[bytes], int]:
    """Fill the store in `directory` with path infos of one file; their output hashes in random order, and the size of each."""
    file = directory / "file"
    file.write_text("content of many store paths")
    async with await open_store(f"local://{directory}/store") as store:
        root = await import_tree(store, file, path_info=False)
        hashes = [hashlib.sha256(b"%d" % number).digest()[:20] for number in range(count)]
        path_infos = [PathInfo(StorePath(each, "file"), root.node, root.nar) for each in hashes]
        for start in range(0, count, _PUTS_AT_A_TIME):
            await asyncio.gather(*map(store.path_infos.put, path_infos[start : start + _PUTS_AT_A_TIME]))
    random.shuffle(hashes)
    return hashes, len(path_infos[0].encoded)
