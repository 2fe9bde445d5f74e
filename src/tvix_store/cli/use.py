"""`tvix-store use`."""

from __future__ import annotations

from typing import IO

import click

from tvix_store.cli.credentials import SecretText
from tvix_store.cli.input import SecretInput
from tvix_store.cli.invocation import Invocation, command_without_store, json_option


@command_without_store
@click.argument("url")
@click.option("--system/--user", "system", help="Write /etc/nix/nix.conf, or ~/.config/nix/nix.conf (the default).")
@click.option(
    "--token", type=SecretText(), metavar="TOKEN", help="Token for the cache. Every user sees it in ps: --token-file hides it."
)
@click.option("--token-file", type=SecretInput(), metavar="FILE", help="File with the token; - is the standard input.")
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    metavar="KEY",
    help="Trust this key (name:base64), in place of those that the cache tells.",
)
@click.option("--remove", is_flag=True, help="Take the lines for this cache away.")
@click.option("--dry-run", is_flag=True, help="Show the lines, and write nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
async def use(
    invocation: Invocation,
    url: str,
    system: bool,
    token: str | None,
    token_file: IO[str] | None,
    public_keys: tuple[str, ...],
    remove: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Make Nix use the binary cache at URL: show the lines for nix.conf and netrc, ask, and write them.

    The cache tells its public key if it is a daemon of tvix-store. For other caches, --public-key gives it. All other lines of the
    files stay as they are.

    \b
        tvix-store use https://cache.example.org
        sudo tvix-store use --system --token-file ./token https://cache.example.org
        tvix-store use --remove https://cache.example.org
    """
    from tvix_store.cli.input import read_input
    from tvix_store.cli.use_cache import Wish, remove_cache, use_cache

    if token is not None and token_file is not None:
        raise click.UsageError("say either --token or --token-file")
    if remove and (token is not None or token_file is not None or public_keys):
        raise click.UsageError("--remove goes with neither a token nor a key")
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json asks nothing: say --yes or --dry-run")
    if token_file is not None:
        token = (await read_input(token_file)).strip()
    store_dir = invocation.value("store_dir")
    wish = Wish(url.rstrip("/"), system=system, token=token or None, public_keys=public_keys, store_dir=store_dir)
    change = remove_cache(wish) if remove else await use_cache(wish)
    await change.carry_out(ask=not yes, write=not dry_run, as_json=as_json)
