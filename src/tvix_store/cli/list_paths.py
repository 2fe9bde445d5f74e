"""`tvix-store list`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from tvix_store.cli.invocation import Invocation, command, json_option

if TYPE_CHECKING:
    from tvix_store.model.path_info import PathInfo
    from tvix_store.services.store import Store

_SORTS = ("hash", "name", "time", "size")


@command
@click.argument("globs", metavar="[GLOB...]", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="Show the sizes of their NARs, and the sum.")
@click.option(
    "--sort", type=click.Choice(_SORTS), default="hash", help="Time: the one that was stored last comes last. Default: hash."
)
@click.option("-r", "--reverse", is_flag=True, help="Begin with the last one.")
@json_option
async def list_paths(invocation: Invocation, globs: tuple[str, ...], long: bool, sort: str, reverse: bool, as_json: bool) -> None:
    """List the store paths, or those whose hash and name (<hash>-<name>) one of the GLOBs fits: * is any text, ? any character.

    In the order of the bytes of their hashes, paths are printed as they come. For any other order, they are in memory before: 100
    MB for 100,000.

    \b
        tvix-store list -l --sort size --reverse | head
        tvix-store list '*-hello*'
        tvix-store list --json | jq '.[].references'
    """
    from tvix_store.cli.json_forms import path_info_to_json
    from tvix_store.cli.output import print_json_array
    from tvix_store.cli.sizes import human

    count = size = 0
    async with await invocation.open_store() as store:
        found = await _sorted(store, _fitting(store, globs), sort, reverse=reverse)
        if as_json:
            await print_json_array(path_info_to_json(each, store.store_dir) async for each in found)
            return
        async for each in found:
            path = each.store_path.absolute(store.store_dir)
            print(f"{human(each.nar.size):>10}  {path}" if long else path)
            count, size = count + 1, size + each.nar.size
    if not count:
        invocation.note_no_paths(store, f" that fit {' '.join(globs)}" if globs else "")
    elif long and not invocation.quiet:
        print(f"{count} path{'s' if count != 1 else ''}, {human(size)} in NARs", file=sys.stderr)


async def _fitting(store: Store, globs: tuple[str, ...]) -> AsyncIterator[PathInfo]:
    """The path infos of the store that a glob fits; without any, all."""
    from fnmatch import translate
    from re import compile as compile_pattern

    texts = (glob.removeprefix(f"{store.store_dir}/") for glob in globs)
    pattern = compile_pattern("|".join(map(translate, texts)))
    async for each in store.path_infos.list():
        if not globs or pattern.match(str(each.store_path)):
            yield each


async def _sorted(store: Store, path_infos: AsyncIterator[PathInfo], sort: str, *, reverse: bool) -> AsyncIterator[PathInfo]:
    if sort == "hash" and not reverse:
        return path_infos
    listed = [each async for each in path_infos]
    match sort:
        case "name":
            listed.sort(key=lambda each: each.store_path.name)
        case "size":
            listed.sort(key=lambda each: each.nar.size)
        case "time":
            from tvix_store.errors import UnsupportedError

            if store.arrivals is None:
                raise UnsupportedError(
                    f"{store.name} does not tell when paths came; ask where it is kept, with --store local:///path"
                )
            order = await store.arrivals.order()
            listed.sort(key=lambda each: order.get(each.store_path.output_hash, 0))

    async def given() -> AsyncIterator[PathInfo]:
        for each in reversed(listed) if reverse else listed:
            yield each

    return given()
