"""`tvix-store cat`."""

from __future__ import annotations

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command


@command
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=store_paths)
async def cat(invocation: Invocation, paths: tuple[str, ...]) -> None:
    """Print the files at PATH, one after the other.

    Symlinks are followed as long as they stay inside the store path.

    \b
        tvix-store cat /nix/store/...-hello/share/doc/README
        tvix-store cat b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262
    """
    from tvix_store.cli.output import print_bytes
    from tvix_store.operations.trees.read_file import read_file

    async with await invocation.open_store() as store:
        for path in paths:
            await print_bytes(read_file(store, path))
