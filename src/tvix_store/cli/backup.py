"""`tvix-store backup`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from tvix_store.cli.invocation import Invocation, command, json_option


@command
@click.argument("target", metavar="DIR|ADDRESS", type=click.Path(path_type=str))
@json_option
async def backup(invocation: Invocation, target: str, as_json: bool) -> None:
    """Make the directory DIR a copy of the store, with its named caches and tokens. The store may be in use.

    DIR is made, or brought up to date: only what is new is copied. It is a store like any other one. To restore, open it, or copy
    it to where the store was. Whatever interrupts a backup, DIR is a whole store: the last backup, or the new one.

    All that the store has acknowledged before the begin is in the backup. Of a store that this user may only read, it is all up to
    the last checkpoint, which is some seconds old. A store that lacks packs is not copied: the last good backup may have them.

    At an ADDRESS of another kind, such as a daemon or a binary cache, this is tvix-store copy --all --to ADDRESS.

    \b
        tvix-store backup /mnt/backup/store
        tvix-store --store /mnt/backup/store list             # look at it
        tvix-store --store /mnt/backup/store check --read-data
        tvix-store check --read-data --repair --from /mnt/backup/store
        tvix-store backup grpc+https://other.example.org
    """
    from tvix_store.config.backup import backup_directory

    if not target:
        raise click.BadParameter("the path is empty", param_hint="DIR|ADDRESS")
    directory = backup_directory(target)
    if directory is None:
        await _copied(invocation, target, as_json=as_json)
    else:
        await _backed_up(invocation, directory, as_json=as_json)


async def _copied(invocation: Invocation, address: str, *, as_json: bool) -> None:
    from tvix_store.cli.copy_outcomes import Outcomes
    from tvix_store.cli.copy_stores import copy_stores

    await copy_stores(
        invocation, Outcomes(), None, address, None, None, (), None, closure=False, require_signatures=False, as_json=as_json
    )


async def _backed_up(invocation: Invocation, directory: Path, *, as_json: bool) -> None:
    from tvix_store.cli.output import print_json
    from tvix_store.cli.progress import progress_bar
    from tvix_store.cli.sizes import human
    from tvix_store.concurrency.thread_to_its_end import thread_to_its_end
    from tvix_store.config.backup import BackupAccount, backup_to
    from tvix_store.errors import CorruptError

    began = time.monotonic()
    account = BackupAccount()
    steps = backup_to(directory, invocation.composition(), account)
    invocation.check_store_is_there()
    with progress_bar(invocation, "backup") as bar:
        while (size := await thread_to_its_end(next, steps, None)) is not None:
            bar.expect(account.to_copy)
            bar.add(0, size)
    seconds = time.monotonic() - began
    if as_json:
        print_json(
            {
                "directory": str(directory),
                "copied": account.copied,
                "there": account.there,
                "damaged": account.damaged,
                "packs": account.packs,
                "caches": account.caches,
                "seconds": round(seconds, 3),
            }
        )
    elif not invocation.quiet:
        print(
            f"{human(account.copied)} copied, {human(account.there)} were there ({account.packs} packs, {account.caches} caches); "
            f"{seconds:.1f} s",
            file=sys.stderr,
        )
    if account.damaged:
        raise CorruptError(
            f"the backup is made, but {account.damaged} bytes are damaged in the packs of the store: tvix-store check --read-data"
        )
