"""A command: `tvix-store names` prints the names of all store paths."""

from __future__ import annotations

from tvix_store.cli.invocation import Invocation, command


@command
async def names(invocation: Invocation) -> None:
    """Print the names of all store paths, each once, in order.

    \b
        tvix-store names
    """
    async with await invocation.open_store() as store:
        for name in sorted({info.store_path.name async for info in store.path_infos.list()}):
            print(name)
