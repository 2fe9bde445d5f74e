"""Imports a directory into a store, and reads it back.

python examples/import_and_read.py [DIRECTORY [STORE]]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tvix_store import FileNode, import_tree, open_store, read_text, walk


async def main(directory: Path, address: str) -> None:
    async with open_store(address) as store:
        # The path is the one that `nix-store --add` gives to the same tree.
        imported = await import_tree(store, directory)
        print(imported.store_path.absolute(store.store_dir))

        async for entry in walk(store, imported.store_path):
            if isinstance(entry.node, FileNode) and entry.path.endswith(".txt"):
                # A path in the store is a text: the store path, and the path inside.
                text = await read_text(store, f"{imported.store_path}/{entry.path}")
                print(f"{entry.path}: {text.strip()}")


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        sample = Path(scratch, "greetings")
        (sample / "german").mkdir(parents=True)
        (sample / "german/hello.txt").write_text("Guten Tag\n")
        directory = Path(sys.argv[1]) if len(sys.argv) > 1 else sample
        asyncio.run(main(directory, sys.argv[2] if len(sys.argv) > 2 else "memory://"))
