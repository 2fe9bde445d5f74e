"""Copies a store path, with all that it refers to, from one store to another.

python examples/mirror_a_path.py [SOURCE TARGET PATH]

SOURCE and TARGET are addresses, such as local:///var/lib/store or grpc+http://localhost:8000. Without them, two small stores are
made for a try.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tvix_store import Account, copy_paths, import_tree, named_path_infos, open_store, verified


async def mirror(source_address: str, target_address: str, path: str) -> None:
    async with open_store(source_address) as source, open_store(target_address) as target:
        account = Account()  # counts what is moved
        closure = await named_path_infos(source, [path], closure=True)
        # `verified` lets the target check each path info against the content.
        async for copied in copy_paths(source, verified(target), closure, account=account):
            print(f"{copied.store_path}: {copied.error or copied.status.value}")
        print(f"{account.sent} bytes were sent, for NARs of {account.logical} bytes")


async def try_it(scratch: str, sample: Path) -> None:
    async with open_store(f"{scratch}/source") as store:
        path = str((await import_tree(store, sample)).store_path)
    await mirror(f"{scratch}/source", f"{scratch}/target", path)
    await mirror(f"{scratch}/source", f"{scratch}/target", path)  # nothing is left to send


if __name__ == "__main__":
    match sys.argv[1:]:
        case [source_address, target_address, path]:
            asyncio.run(mirror(source_address, target_address, path))
        case []:
            with TemporaryDirectory() as scratch:
                sample = Path(scratch, "hello.txt")
                sample.write_text("Hello, World!\n" * 1000)
                asyncio.run(try_it(scratch, sample))
        case _:
            sys.exit(__doc__)
