"""`tvix-store push`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from tvix_store.cli.cache_addresses import is_cache
from tvix_store.cli.credentials import SecretText
from tvix_store.cli.invocation import Invocation, command_without_store, json_option, nix_store_option

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tvix_store.cli.progress import Bar
    from tvix_store.operations.paths.pushed import Pushed


@command_without_store
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option(
    "--stdin", "from_stdin", is_flag=True, help="Push also the paths on the standard input, separated by blanks or line ends."
)
@click.option(
    "--to", metavar="URL", type=SecretText(), help="Push to this cache: http(s)://host[:port][/cache], or the address of a store."
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 256), metavar="N", help="Paths that are sent at a time. Default: 128, as NARs 16."
)
@click.option(
    "--skip-upstream", is_flag=True, help="Leave out paths that clients get from upstreams: of the cache, and well-known ones."
)
@click.option("--upstream", "upstreams", metavar="URL", multiple=True, help="Leave out also what this cache has; repeatable.")
@click.option(
    "--upstream-key-name",
    "key_names",
    metavar="NAME",
    multiple=True,
    help="Leave out paths that a key of this name has signed; repeatable. Default with --skip-upstream: cache.nixos.org-1.",
)
@nix_store_option
@json_option
async def push(
    invocation: Invocation,
    paths: tuple[str, ...],
    from_stdin: bool,
    to: str | None,
    jobs: int | None,
    skip_upstream: bool,
    upstreams: tuple[str, ...],
    key_names: tuple[str, ...],
    nix_store: str | None,
    as_json: bool,
) -> None:
    """Send the store paths PATH of Nix, with all they refer to, to a cache. Print the new ones.

    PATH may also be a symlink to a store path, such as ./result.

    A daemon of ours gets the parts that it lacks: files, and chunks of large files. It computes the NAR of each path, and refuses a
    path that is not as Nix has recorded it. Other binary caches get NARs, compressed with zstd, and narinfos.

    If a path cannot be pushed, the paths that refer to it are left out too, and all others are pushed. A push that was interrupted
    goes on when it is repeated.

    \b
        tvix-store push --to http://cache:8000 ./result
        nix-store --query --requisites ./result | tvix-store push --stdin --to https://cache.example.org/team-a
        tvix-store push --to https://cache.example.org --skip-upstream ./result
        TVIX_STORE_PUSH_TO=https://any:$TOKEN@cache.example.org tvix-store push ./result
    """
    if not to:
        raise click.UsageError("say where to: --to URL, or TVIX_STORE_PUSH_TO")
    if not paths and not from_stdin:
        raise click.UsageError("name some PATHs, or say --stdin")
    from contextlib import aclosing

    from tvix_store.cli.progress import behind_bar
    from tvix_store.cli.push_outcomes import PushOutcomes
    from tvix_store.cli.push_paths import Skip, push_paths
    from tvix_store.model.store_path import STORE_DIR
    from tvix_store.model.well_known_caches import KEY_NAMES
    from tvix_store.operations.granular.account import Account

    began = time.monotonic()
    if from_stdin:
        from tvix_store.cli.input import read_input

        paths += tuple((await read_input(sys.stdin)).split())
    names = (*key_names, *(KEY_NAMES if skip_upstream and not key_names else ()))
    skip = Skip(names, upstreams, ask=skip_upstream) if skip_upstream or upstreams or key_names else None
    account = Account()

    def pushing(bar: Bar) -> AsyncGenerator[Pushed, None]:
        account.expected, account.moved = bar.expect, lambda size: bar.add(0, size)
        return push_paths(
            paths,
            to,
            nix_store=nix_store,
            store_dir=invocation.value("store_dir") or STORE_DIR,
            jobs=jobs,
            skip=skip,
            account=account,
        )

    outcomes = PushOutcomes(account, began, as_json=as_json, quiet=invocation.quiet)
    with outcomes.told():
        missing = _missing_stores(invocation, to)
        async with aclosing(behind_bar(invocation, "push", pushing)) as pushed:
            async for each in pushed:
                outcomes.add(each)
    if missing and not _missing_stores(invocation, to):
        invocation.note(f"made a new {', '.join(missing)}")
    outcomes.end()


def _missing_stores(invocation: Invocation, to: str) -> tuple[str, ...]:
    """The embedded store that `to` names, where it is not there. What would tell it is not even imported for other caches."""
    return () if is_cache(to, "http", "https") else invocation.at(to).missing_stores()
