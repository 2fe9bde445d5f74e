"""`tvix-store pin remove`."""

from __future__ import annotations

import click

from tvix_store.cli.completing import pin_names
from tvix_store.cli.invocation import Invocation, command


@command
@click.argument("name", metavar="NAME", shell_complete=pin_names)
async def remove(invocation: Invocation, name: str) -> None:
    """Remove the pin NAME with all its revisions. Its paths stay until nobody has used them for long.

    \b
        tvix-store pin remove v1.0
    """
    from tvix_store.errors import NotFoundError
    from tvix_store.operations.collection.pins import Pins
    from tvix_store.operations.collection.unused import powers_of

    async with await invocation.open_store() as store:
        records, _ = powers_of(store)
        try:
            await Pins(records).remove(name)
        except NotFoundError:
            raise NotFoundError("pin", name, place=store.name) from None
