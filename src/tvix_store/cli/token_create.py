"""`tvix-store token create`."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tvix_store.cli.completing import cache_names
from tvix_store.cli.invocation import Invocation, command, json_option
from tvix_store.cli.output import print_json
from tvix_store.cli.token_files import chosen_token_file, token_file_option


class Expiry(click.ParamType[float]):
    """A time from now on, such as `90d`, or a date, as seconds since 1970."""

    name = "time"
    example = "2099-12-31"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        from tvix_store.errors import InvalidError
        from tvix_store.model.time_span import EXPECTED, read_span

        with suppress(InvalidError):
            return time.time() + read_span(value)
        try:
            when = datetime.fromisoformat(value)
            stamp = when.replace(tzinfo=when.tzinfo or UTC).timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither {EXPECTED} nor a date (2027-01-31)", param, ctx)
        if stamp <= time.time():
            self.fail(f"{value} is over", param, ctx)
        return stamp


@command
@click.option("--scope", required=True, type=click.Choice(("pull", "push", "admin")), help="What it grants: push includes pull.")
@click.option("--cache", metavar="NAME", shell_complete=cache_names, help="The only named cache that it is for. Default: all.")
@click.option("--expires", type=Expiry(), metavar="TIME", help="90d, 12h, 2w, 1y, or a date (UTC). Default: never.")
@click.option("--note", default="", metavar="TEXT", help="What it is for, for token list.")
@token_file_option
@json_option
async def create(
    invocation: Invocation,
    scope: str,
    cache: str | None,
    expires: float | None,
    note: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Make a token, and print it. It is shown this once: the store keeps only its hash.

    Nix sends it from its netrc-file, as the password of any user. Other clients send it as a bearer token, or have it in the
    address: grpc+https://any:TOKEN@cache.example.org.

    \b
        tvix-store token create --scope push --expires 90d --note "CI of team A"
        echo "machine cache.example.org login any password $(tvix-store token create --scope pull)" >> /etc/nix/netrc
    """
    from tvix_store.access.token_file import TokenFile
    from tvix_store.access.tokens import issue
    from tvix_store.model.grant import Scope

    secret, record = issue(Scope.parse(scope), cache=cache, note=note, expires=expires)
    missing = token_file is None and invocation.missing_stores()
    file = chosen_token_file(invocation, token_file)
    if missing:
        await (await invocation.open_or_make_store()).close()  # it makes its directory, as it should be
    table = TokenFile(file).change(lambda tokens: tokens.with_token(record))
    if as_json:
        print_json({"token": secret, **record.to_json()})
    else:
        print(secret)
    if record.scope >= Scope.PUSH and sum(token.scope >= Scope.PUSH for token in table.records) == 1 and not invocation.quiet:
        print("tvix-store: from now on, nobody writes to this store through a daemon without a token", file=sys.stderr)
