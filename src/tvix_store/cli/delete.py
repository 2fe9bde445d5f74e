"""`tvix-store delete`."""

from __future__ import annotations

import sys

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command, json_option


@command
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=store_paths)
@click.option("--recursive", is_flag=True, help="Delete also all paths that refer to them, directly or not.")
@click.option("--ignore-references", is_flag=True, help="Delete them though others refer to them, and are not whole then.")
@json_option
async def delete(invocation: Invocation, paths: tuple[str, ...], recursive: bool, ignore_references: bool, as_json: bool) -> None:
    """Delete the store paths PATH, and print what is gone. A path stays to which others refer, or that is pinned.

    Their content stays in the store, until `tvix-store gc` gives the space back. Clients that have read the narinfo of a path may
    go on asking for its NAR.

    \b
        tvix-store delete /nix/store/...-hello
        tvix-store --store 'local:///srv/store?cache=team-a' delete --recursive <hash>
    """
    if recursive and ignore_references:
        raise click.UsageError("--recursive and --ignore-references do not go together")
    from tvix_store.cli.output import print_json
    from tvix_store.operations.collection.delete import Referrers, delete_paths
    from tvix_store.operations.collection.kept import kept_store_path

    referrers = Referrers.DELETE if recursive else Referrers.IGNORE if ignore_references else Referrers.REFUSE
    async with await invocation.open_store() as store:
        named = [await kept_store_path(store, path) for path in paths]
        gone = [each.absolute(store.store_dir) for each in await delete_paths(store, named, referrers)]
    if as_json:
        print_json({"deleted": gone})
        return
    for path in gone:
        print(path)
    if not invocation.quiet:
        word = "path is" if len(gone) == 1 else "paths are"
        back = "; `tvix-store gc` gives the space back" if store.collection is not None else ""
        print(f"{len(gone)} {word} deleted{back}", file=sys.stderr)
