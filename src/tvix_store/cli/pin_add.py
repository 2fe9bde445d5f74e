"""`tvix-store pin add`."""

from __future__ import annotations

import click

from tvix_store.cli.completing import pin_names, store_paths
from tvix_store.cli.invocation import Invocation, command


@command
@click.argument("name", metavar="NAME", shell_complete=pin_names)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=store_paths)
@click.option("--keep-days", type=click.IntRange(1), metavar="N", help="Keep the revisions of the last N days.")
@click.option("--keep-revisions", type=click.IntRange(1), metavar="N", help="Keep the newest N revisions.")
async def add(invocation: Invocation, name: str, paths: tuple[str, ...], keep_days: int | None, keep_revisions: int | None) -> None:
    """Pin the store paths PATH under NAME. They, and all that they need, stay in the store.

    Each `pin add` of a NAME makes a new revision of it. The options hold for all revisions of NAME, until the next `pin add` of it.
    Without options, all revisions stay. The newest revision always stays. Days are days in which the store is collected.

    \b
        tvix-store pin add v1.0 /nix/store/...-hello-1.0
        tvix-store pin add main --keep-revisions 5 <hash>
    """
    from tvix_store.operations.collection.kept import kept_store_path
    from tvix_store.operations.collection.pins import Keep, Pins, pin
    from tvix_store.operations.collection.unused import powers_of

    keep = Keep(keep_days, keep_revisions)
    async with await invocation.open_store() as store:
        records, _ = powers_of(store)
        await pin(store, Pins(records), name, [await kept_store_path(store, path) for path in paths], keep)
