"""`tvix-store watch-store`."""

from __future__ import annotations

from pathlib import Path

import click

from tvix_store.cli.invocation import Invocation, command_without_store
from tvix_store.cli.push_queue import chosen_queue, queue_options


@command_without_store
@queue_options
@click.option("--all", "everything", is_flag=True, help="Begin with the paths that Nix has already.")
@click.option("--include", multiple=True, metavar="GLOB", help="Push only paths whose name, behind the hash, matches one of these.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Push no path whose name matches one of these.")
@click.option("--once", is_flag=True, help="Queue what is new, push what waits, and end.")
async def watch_store(
    invocation: Invocation,
    to: tuple[str, ...],
    queue: Path | None,
    nix_store: str | None,
    skip_upstream: bool,
    give_up_after: str | None,
    everything: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    once: bool,
) -> None:
    """Push each path that becomes valid in Nix's store on this machine: built, added, or substituted.

    It goes on until a signal ends it. It remembers what it has seen, so nothing is missed over a restart. Paths wait in the queue
    of tvix-store hook, and are pushed with all they refer to. Derivations (*.drv) are left out unless --include names them.

    \b
        tvix-store watch-store --to https://cache.example.org
        tvix-store watch-store --to https://cache.example.org --all --exclude '*-source' --exclude '*.tar.*'
    """
    from tvix_store.cli.watching import watch
    from tvix_store.model.store_path import STORE_DIR
    from tvix_store.model.well_known_caches import KEY_NAMES
    from tvix_store.operations.paths.new_paths import Filter

    await watch(
        chosen_queue(queue),
        to,
        nix_store,
        invocation.value("store_dir") or STORE_DIR,
        give_up_after,
        Filter(include, exclude, frozenset(KEY_NAMES if skip_upstream else ())),
        skip_upstream=skip_upstream,
        everything=everything,
        once=once,
    )
