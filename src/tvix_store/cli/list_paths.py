"""`tvix-store list`."""

from __future__ import annotations

import click

from tvix_store.cli.invocation import Invocation, command, json_option


@command
@click.option("-l", "--long", is_flag=True, help="Show the sizes of their NARs.")
@json_option
async def list_paths(invocation: Invocation, long: bool, as_json: bool) -> None:
    """List all store paths, in the order of the bytes of their hashes.

    \b
        tvix-store list -l
        tvix-store list --json | jq '.[].references'
    """
    from tvix_store.cli.json_forms import path_info_to_json
    from tvix_store.cli.output import print_json_array
    from tvix_store.cli.sizes import human

    async with await invocation.open_store() as store:
        if as_json:
            await print_json_array(path_info_to_json(each, store.store_dir) async for each in store.path_infos.list())
            return
        async for each in store.path_infos.list():
            path = each.store_path.absolute(store.store_dir)
            print(f"{human(each.nar.size):>10}  {path}" if long else path)
