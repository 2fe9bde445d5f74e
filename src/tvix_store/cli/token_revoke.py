"""`tvix-store token revoke`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from tvix_store.cli.completing import token_ids
from tvix_store.cli.invocation import Invocation, command
from tvix_store.cli.token_files import existing_token_file, token_file_option


@command
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=token_ids)
@token_file_option
async def revoke(invocation: Invocation, ids: tuple[str, ...], token_file: Path | None) -> None:
    """Take what tokens grant away, by their ids. A whole token is understood, too. All of them are revoked, or none.

    \b
        tvix-store token revoke 4wy8b1c0zzk3
    """
    from tvix_store.access.token_file import TokenFile
    from tvix_store.access.tokens import TokenTable, identity_in
    from tvix_store.errors import NotFoundError

    file = existing_token_file(invocation, token_file)

    def change(table: TokenTable) -> TokenTable:
        now = time.time()
        for each in ids:
            identity = identity_in(each)
            try:
                table = table.revoked(identity, now)
            except NotFoundError:
                raise NotFoundError("token", identity, message=f"token {identity} is not in {file}") from None
        return table

    TokenFile(file).change(change)
