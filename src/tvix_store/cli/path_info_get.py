"""`tvix-store path-info get`."""

from __future__ import annotations

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command


@command
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=store_paths)
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON, as always.")
async def get(invocation: Invocation, paths: tuple[str, ...]) -> None:
    """Print the path infos of the store paths PATH as JSON: an object, or an array where several are asked for.

    \b
        tvix-store path-info get /nix/store/...-hello
        tvix-store path-info get <hash> | tvix-store --store ./other path-info put
    """
    from tvix_store.cli.json_forms import path_info_to_json
    from tvix_store.cli.output import print_json
    from tvix_store.operations.trees.resolve import store_path_info

    async with await invocation.open_store() as store:
        found = [path_info_to_json(await store_path_info(store, path), store.store_dir) for path in paths]
    print_json(found if len(found) > 1 else found[0])
