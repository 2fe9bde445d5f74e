"""`tvix-store path-info rewrite`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command, json_option
from tvix_store.cli.progress import Bar, behind_bar

if TYPE_CHECKING:
    from tvix_store.services.store import Store


@command
@click.argument("paths", metavar="[PATH...]", nargs=-1, shell_complete=store_paths)
@click.option("--all", "every", is_flag=True, help="Rewrite all store paths.")
@click.option(
    "--directory-size-rule",
    "rule_name",
    type=click.Choice(("documented", "snix")),
    required=True,
    help="How sizes of directories are counted from now on.",
)
@click.option("--dry-run", is_flag=True, help="Store nothing; show what would be rewritten.")
@json_option
async def rewrite(
    invocation: Invocation, paths: tuple[str, ...], every: bool, rule_name: str, dry_run: bool, as_json: bool
) -> None:
    """Give the directories of the store paths PATH sizes by another rule, and print the outcome for each path.

    Sizes are part of digests: a path gets another root. Its NAR, its name and its signatures stay as they are. A path whose
    sizes are by the rule is left alone. Servers of snix from 2024 to 2025 know the snix rule only; all others take both.

    \b
        tvix-store path-info rewrite --directory-size-rule documented --all
        tvix-store path-info rewrite --directory-size-rule snix --dry-run --json <hash>
    """
    if bool(paths) == every:
        raise click.UsageError("name some PATHs, or say --all")
    from tvix_store.cli.json_forms import node_to_json
    from tvix_store.cli.output import print_json_array
    from tvix_store.model.directory import SizeRule
    from tvix_store.operations.paths.rewrite_sizes import rewrite_sizes
    from tvix_store.operations.trees.resolve import path_infos_of

    rule = SizeRule[rule_name.upper()]

    async def rewritten(store: Store, bar: Bar) -> AsyncGenerator[dict[str, object], None]:
        async for before in path_infos_of(store, paths):
            after = await rewrite_sizes(store, before, rule, dry_run=dry_run)
            bar.add(1, 0)
            yield {
                "path": before.store_path.absolute(store.store_dir),
                "rewritten": after.node != before.node,
                "before": node_to_json(before.node),
                "after": node_to_json(after.node),
            }

    async with (
        await invocation.open_store() as store,
        aclosing(behind_bar(invocation, "rewrite", partial(rewritten, store), counted="path")) as each_path,
    ):
        if as_json:
            await print_json_array(each_path)
            return
        outcome = "would be rewritten" if dry_run else "rewritten"
        is_empty = True
        async for each in each_path:
            is_empty = False
            print(f"{each['path']}: {outcome if each['rewritten'] else 'unchanged'}", flush=True)
        if is_empty:
            invocation.note_no_paths(store)
