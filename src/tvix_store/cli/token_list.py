"""`tvix-store token list`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from tvix_store.cli.invocation import Invocation, command, json_option
from tvix_store.cli.output import print_json
from tvix_store.cli.token_files import existing_token_file, token_file_option


@command
@click.option("--all", "everything", is_flag=True, help="Also those that were revoked, or have expired.")
@token_file_option
@json_option
async def list_tokens(invocation: Invocation, everything: bool, token_file: Path | None, as_json: bool) -> None:
    """List the tokens, the oldest first: id, scope, cache, end and note. Their secrets are not kept.

    \b
        tvix-store token list
        tvix-store token revoke $(tvix-store token list --json | jq -r '.[] | select(.note == "laptop") | .id')
    """
    from tvix_store.access.token_file import TokenFile
    from tvix_store.access.tokens import shown_time

    now = time.time()
    file = existing_token_file(invocation, token_file)
    records = TokenFile(file).read().records
    shown = [record for record in records if everything or record.refusal(now) is None]
    if as_json:
        print_json([record.to_json() for record in shown])
        return
    if not shown:
        invocation.note(f"there is no token in {file}" + (" that is in force; --all shows all" if records else ""))
    for record in shown:
        state = "never expires" if record.expires is None else f"expires {shown_time(record.expires)}"
        if (refusal := record.refusal(now)) is not None:
            state = refusal.removeprefix(f"token {record.id} ").removeprefix("was ")
        place = f"cache {record.cache}" if record.cache else "all caches"
        print(f"{record.id}\t{record.scope.name.lower()}\t{place}\t{state}\t{record.note}".rstrip("\t"))
