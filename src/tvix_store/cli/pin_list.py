"""`tvix-store pin list`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tvix_store.cli.completing import pin_names
from tvix_store.cli.invocation import Invocation, command, json_option

if TYPE_CHECKING:
    from tvix_store.operations.collection.pins import Revision
    from tvix_store.services.store import Store


@command
@click.argument("name", metavar="[NAME]", required=False, shell_complete=pin_names)
@json_option
async def list_pins(invocation: Invocation, name: str | None, as_json: bool) -> None:
    """List the revisions of all pins, or of the pin NAME, the newest first: name, number, time, what stays, and paths.

    \b
        tvix-store pin list
        tvix-store pin list v1.0 --json | jq -r '.[0].paths[]'
    """
    from tvix_store.cli.output import print_json
    from tvix_store.errors import NotFoundError, UnsupportedError
    from tvix_store.operations.collection.pins import Pins, check_pin_name

    if name is not None:
        check_pin_name(name)
    async with await invocation.open_store() as store:
        if store.records is None:
            raise UnsupportedError(f"{store.name} shows us no pins: use the address of the store itself, on its machine")
        shown = [await _to_json(store, each) async for each in Pins(store.records).revisions(name)]
    if name is not None and not shown:
        raise NotFoundError("pin", name, place=store.name)
    if as_json:
        print_json(shown)
        return
    if not shown:
        invocation.note(f"the store {store.name} has no pins")
    for each in shown:
        print(f"{each['name']}\t{each['revision']}\t{each['made']}\t{_words(each)}")
        for path in each["paths"]:
            print(f"\t{path}")


async def _to_json(store: Store, revision: Revision) -> dict[str, Any]:
    """A revision. Of a path that is not there any more, the hash alone is known."""
    from tvix_store.access.tokens import shown_time
    from tvix_store.model import nixbase32
    from tvix_store.operations.collection.kept import kept_path

    found = {each: await kept_path(store, each) for each in revision.paths}
    return {
        "name": revision.name,
        "revision": revision.number,
        "made": shown_time(revision.made),
        "keepDays": revision.keep.days,
        "keepRevisions": revision.keep.revisions,
        "paths": [
            info.store_path.absolute(store.store_dir) if info is not None else nixbase32.encode(each)
            for each, info in found.items()
        ],
    }


def _words(revision: dict[str, Any]) -> str:
    days, count = revision["keepDays"], revision["keepRevisions"]
    parts = [f"{days} days"] if days else []
    parts += [f"{count} revisions"] if count else []
    return f"keeps {' or '.join(parts)}" if parts else "keeps all revisions"
