"""Lists the largest files of a store, each once, with a path at which it stands.

python examples/biggest_files.py [STORE [COUNT]]

Only directories are read, and no file.
"""

from __future__ import annotations

import asyncio
import sys
from heapq import nlargest
from pathlib import Path
from tempfile import TemporaryDirectory

from tvix_store import Digest, FileNode, Store, import_tree, open_store, walk


async def biggest_files(store: Store, count: int) -> list[tuple[int, str]]:
    """The sizes (bytes) and paths of the `count` largest files, the largest first."""
    found: dict[Digest, tuple[int, str]] = {}
    async for path_info in store.path_infos.list():
        async for path, node in walk(store, path_info.store_path):
            if isinstance(node, FileNode):
                # Equal content has one digest, wherever it stands.
                found.setdefault(node.digest, (node.size, f"{path_info.store_path}/{path}".rstrip("/")))
    return nlargest(count, found.values())


async def main(address: str, count: int, sample: Path | None = None) -> None:
    async with open_store(address) as store:
        if sample is not None:
            await import_tree(store, sample)
        for size, path in await biggest_files(store, count):
            print(f"{size:>15,} {path}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [address]:
            asyncio.run(main(address, 10))
        case [address, count]:
            asyncio.run(main(address, int(count)))
        case _:  # for a try
            with TemporaryDirectory() as scratch:
                sample = Path(scratch, "sample")
                sample.mkdir()
                for name, text in {"small": "x", "large": "x" * 1000, "large-again": "x" * 1000}.items():
                    Path(sample, name).write_text(text)
                asyncio.run(main("memory://", 10, sample))
