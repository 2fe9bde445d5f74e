"""`tvix-store key public`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

import click

from tvix_store.cli.input import InputFile
from tvix_store.cli.invocation import Invocation, command_without_store


@command_without_store
@click.argument("file", type=InputFile(errors="replace"), default="-")
async def public(invocation: Invocation, file: IO[str]) -> None:
    """Print the public key of the secret key in FILE (by default the standard input), as nix key convert-secret-to-public does.

    \b
        tvix-store key public ./secret-key
        tvix-store key generate test-1 | tvix-store key public
    """
    from tvix_store.cli.input import name_of, read_input
    from tvix_store.cli.key_files import exposure
    from tvix_store.config.secret_key import secret_key_in

    if (exposed := exposure(Path(file.name))) is not None:
        click.echo(f"tvix-store: warning: {exposed}", err=True)
    print(secret_key_in(await read_input(file), name_of(file)).public, end="\n" if sys.stdout.isatty() else "")
