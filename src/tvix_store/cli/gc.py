"""`tvix-store gc`."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from tvix_store.cli.invocation import Invocation, command, json_option
from tvix_store.cli.policy import policy_of, policy_options

if TYPE_CHECKING:
    from tvix_store.operations.collection.collect import Outcome
    from tvix_store.services.collection import Amount

_NICE = 10


@command
@policy_options
@click.option("--dry-run", is_flag=True, help="Only say how many paths would go, and how many bytes that would free in the end.")
@click.option("--background", is_flag=True, hidden=True, help="Let others have the processor first.")
@json_option
async def gc(
    invocation: Invocation,
    keep_for: str | None,
    max_size: str | None,
    min_free: str | None,
    grace: str | None,
    dry_run: bool,
    background: bool,
    as_json: bool,
) -> None:
    """Delete content that no store path needs, and give its space back. Others may use the store meanwhile.

    Store paths stay, unless --keep-for, --max-size or --min-free says which go: those that nobody has used for the longest time.
    What is pinned stays, with all it refers to (tvix-store pin). Also the content goes that interrupted uploads have left.

    Content goes in two steps. A run sets apart what is not needed; a later run, a day after it (--grace), deletes it. Until then,
    whoever uploads or needs it again gets it back. So let it run daily, or use tvix-store daemon --gc-interval. With --grace 0 all
    of it goes at once. Nothing that is needed is lost then; but a client may have to send again what it was told is there.

    \b
        tvix-store gc --keep-for 90d --max-size 500G --dry-run
        tvix-store gc --keep-for 90d --max-size 500G
        tvix-store gc --grace 0
    """
    from tvix_store.cli.output import print_json
    from tvix_store.cli.progress import step_bar
    from tvix_store.operations.collection.collect import collect

    if background:
        os.nice(_NICE)
    policy = policy_of(keep_for, max_size, min_free, grace)
    async with await invocation.open_store() as store:
        with step_bar(invocation) as progress:
            outcome = await collect(store, policy, dry_run=dry_run, progress=progress)
    if as_json:
        print_json(to_json(outcome, dry_run=dry_run))
        return
    for line in _lines(outcome, dry_run=dry_run):
        print(line, file=sys.stdout)


def to_json(outcome: Outcome, *, dry_run: bool) -> dict[str, Any]:
    """What was done, as `--json` prints it: sizes in bytes, `readyAt` in seconds since 1970."""
    content = outcome.content
    return {
        "dryRun": dry_run,
        "paths": outcome.paths,
        "condemned": _amount(content.condemned),
        "deleted": _amount(content.dropped),
        "waiting": _amount(content.waiting),
        "readyAt": content.ready_at or None,
        "freed": content.freed,
        "held": content.held,
        "used": outcome.room.used,
        "free": outcome.room.free,
    }


def _amount(amount: Amount) -> dict[str, int]:
    return {"count": amount.count, "size": amount.size}


def _lines(outcome: Outcome, *, dry_run: bool) -> list[str]:
    from tvix_store.cli.sizes import counted, human

    content, room = outcome.content, outcome.room
    paths = counted(outcome.paths, "path")
    if dry_run:
        lines = [f"{paths} would go; that, and what no path needs now, would free {human(content.condemned.size)}"]
        if content.waiting.count:
            lines.append(f"{human(content.waiting.size)} were set apart by an earlier run")
        return lines
    lines = [f"{paths} removed, {human(content.dropped.size)} deleted, {human(content.freed)} given back to the disk"]
    if content.held:
        lines.append(f"{human(content.held)} are dead in files that other processes write to; a later run gives them back")
    waiting = content.condemned.size + content.waiting.size
    if content.ready_at:
        at = datetime.fromtimestamp(content.ready_at).astimezone().isoformat(" ", "minutes")
        lines.append(f"{human(waiting)} are set apart, for a run after {at} to delete")
    lines.append(f"the store takes {human(room.used)}; {human(room.free)} are free")
    return lines
