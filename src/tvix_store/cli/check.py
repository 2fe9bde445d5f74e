"""`tvix-store check`."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import click

from tvix_store.cli.cache_addresses import is_cache
from tvix_store.cli.completing import store_paths
from tvix_store.cli.input import complete_directories
from tvix_store.cli.invocation import Invocation, command, json_option
from tvix_store.cli.progress import Bar, behind_bar
from tvix_store.errors import StoreError

if TYPE_CHECKING:
    from tvix_store.operations.paths.store_check import CheckedPath
    from tvix_store.services.store import Store


@command
@click.argument("paths", metavar="[PATH...]", nargs=-1, shell_complete=store_paths)
@click.option(
    "--read-data", is_flag=True, help="Read all content: each chunk is held against its digest, each NAR against its hash."
)
@click.option("--repair", is_flag=True, help="Bring what is missing or damaged once more from the store in --from.")
@click.option(
    "--from",
    "source",
    metavar="ADDRESS",
    shell_complete=complete_directories,
    help="Repair from this store, or binary cache (nix+https://..., file:///...).",
)
@click.option(
    "--trusted-public-keys",
    "keys",
    multiple=True,
    metavar="KEYS",
    help="Keys (name:base64, separated by spaces) that sign the paths of a binary cache in --from; repeatable.",
)
@json_option
async def check(
    invocation: Invocation,
    paths: tuple[str, ...],
    read_data: bool,
    repair: bool,
    source: str | None,
    keys: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check that all store paths, or the store paths PATH, are whole: all references, directories, files and chunks are there.

    Prints a line for each fault, and goes on. Ends with code 6 where a path is not whole. Without --read-data, contents are not
    read, and damage inside them is not seen.

    With --repair, a path that is not whole is brought once more from another store, with the paths that it refers to and that are
    missing. What is sound is not sent. A path that the other store lacks, or has with other content, stays as it is, and is named.

    \b
        tvix-store check
        tvix-store check --read-data --json
        tvix-store check --read-data --repair --from nix+https://cache.nixos.org
    """
    if repair != (source is not None):
        raise click.UsageError("--repair and --from ADDRESS go together")
    if keys and not repair:
        raise click.UsageError("--trusted-public-keys goes with --repair")
    from tvix_store.cli.counted_blobs import CountedBlobs
    from tvix_store.cli.output import print_json
    from tvix_store.cli.sizes import counted, human
    from tvix_store.errors import CorruptError
    from tvix_store.operations.paths.store_check import StoreCheck

    if source and not is_cache(source):
        invocation.at(source).check_store_is_there()
    count = size = 0
    faulty: list[CheckedPath] = []

    async def checked(store: Store, bar: Bar) -> AsyncGenerator[CheckedPath, None]:
        nonlocal count, size
        from tvix_store.operations.trees.resolve import path_infos_of

        if bar.visible:
            bar.expect(sum([path_info.nar.size async for path_info in path_infos_of(store, paths)]))
        looking = StoreCheck(store, CountedBlobs(store.blobs, bar) if read_data else None)
        async for path_info in path_infos_of(store, paths):
            count += 1
            size += path_info.nar.size
            found = await looking.check(path_info)
            if not read_data:
                bar.add(0, path_info.nar.size)
            if found.faults:
                yield found

    async with await invocation.open_store() as store:
        ill = await _illness(store)
        if ill is not None and not as_json:
            print(f"{store.name}: {ill}", flush=True)
        async with aclosing(behind_bar(invocation, "check", partial(checked, store))) as found:
            async for each in found:
                faulty.append(each)
                if not as_json:
                    _print(each, store.store_dir)
        lost = faulty
        if source is not None and faulty:
            from tvix_store.cli.repair import repaired

            await store.sync()  # what is damaged is forgotten by then
            await repaired(invocation, store, source, keys, [each.path_info for each in faulty])
            again = StoreCheck(store, store.blobs if read_data else None)
            lost = [each for each in [await again.check(each.path_info) for each in faulty] if each.faults]
            if not as_json:
                _tell(store, faulty, lost)
        ill = ill and await _illness(store)
        if as_json:
            still = {each.path_info.store_path: each.faults for each in lost}
            print_json(
                {
                    "paths": count,
                    "narSize": size,
                    "dataRead": read_data,
                    "store": None if ill is None else str(ill),
                    "faulty": [_to_json(each, still.get(each.path_info.store_path, ()), store.store_dir) for each in faulty],
                }
            )
    if not count and not as_json:
        invocation.note_no_paths(store)
    elif not invocation.quiet and not as_json:
        now = f", {len(lost)} after the repair" if repair else ""
        print(f"{counted(count, 'path')}, {human(size)} in NARs: {len(faulty)} not whole{now}", file=sys.stderr)
    if lost:
        raise CorruptError("1 store path is not whole" if len(lost) == 1 else f"{len(lost)} store paths are not whole")
    if ill is not None:
        raise ill


async def _illness(store: Store) -> StoreError | None:
    """Why the store as a whole is not well, if it is not: packs that are lost, for example."""
    try:
        await store.check()
    except StoreError as error:
        return error
    return None


def _print(checked: CheckedPath, store_dir: str) -> None:
    for fault in checked.faults:
        print(f"{checked.path_info.store_path.absolute(store_dir)}: {fault}", flush=True)


def _tell(store: Store, faulty: Sequence[CheckedPath], lost: Sequence[CheckedPath]) -> None:
    still = {each.path_info.store_path for each in lost}
    for each in faulty:
        path = each.path_info.store_path
        print(f"{path.absolute(store.store_dir)}: {'still not whole' if path in still else 'repaired'}", flush=True)


def _to_json(checked: CheckedPath, still: Sequence[str], store_dir: str) -> dict[str, object]:
    return {
        "path": checked.path_info.store_path.absolute(store_dir),
        "faults": list(checked.faults),
        "left": list(still),
    }
