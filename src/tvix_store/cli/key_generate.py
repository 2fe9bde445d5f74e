"""`tvix-store key generate`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from tvix_store.cli.input import FilePath
from tvix_store.cli.invocation import Invocation, command_without_store


@command_without_store
@click.argument("name")
@click.option("--out", type=FilePath(), help="Write it to a new file, which only its owner may read.")
async def generate(invocation: Invocation, name: str, out: Path | None) -> None:
    """Make a secret key called NAME, and print it as nix key generate-secret does.

    Names of keys usually say who signs, and count: cache.example.org-1.

    \b
        tvix-store key generate cache.example.org-1 --out ./secret-key
        tvix-store key public ./secret-key
    """
    from tvix_store.model.signature import SecretKey

    key = SecretKey.generate(name)
    if out is None:
        print(key, end="\n" if sys.stdout.isatty() else "")  # Nix ends it with nothing, and so do files of keys
    else:
        _write(out, str(key))


def _write(path: Path, secret: str) -> None:
    """Make a file that nobody else may read from the begin; a key that is in use is never overwritten."""
    from tvix_store.errors import ConflictError

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConflictError(f"{path} exists; it is not overwritten") from None
    with open(descriptor, "w") as file:
        file.write(secret)
