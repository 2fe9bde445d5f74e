"""The queue of pushes that commands share, and the process in the background. Nix waits for one of them, so this imports little."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tvix_store.cli.credentials import SecretText
from tvix_store.cli.input import FilePath
from tvix_store.cli.invocation import nix_store_option
from tvix_store.operations.paths.push_queue import LOG, PushQueue, Target

LINGER = 30.0
"""Seconds for which a process in the background waits for more. A start costs half a second of computing."""
_LARGEST_LOG = 1 << 20
_OPTIONS = (
    click.option(
        "--to", multiple=True, metavar="URL", type=SecretText(), help="Cache to push to, as for tvix-store push; repeatable."
    ),
    click.option(
        "--queue",
        metavar="DIRECTORY",
        type=FilePath(),
        help="Where paths wait. Default: /var/spool/tvix-store for root, else ~/.local/state/tvix-store/queue.",
    ),
    nix_store_option,
    click.option("--skip-upstream", is_flag=True, help="Leave out paths that clients get from upstreams, as tvix-store push does."),
    click.option(
        "--give-up-after", metavar="TIME", help="Set aside what could not be pushed for so long, as in 7d. Default: never."
    ),
)


def queue_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a queue."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen_queue(directory: Path | None) -> PushQueue:
    """The queue in a directory; None for the user's own."""
    return PushQueue((directory or _own_directory()).absolute())


def chosen_targets(to: Sequence[str], nix_store: str | None, store_dir: str, *, skip_upstream: bool) -> list[Target]:
    """The targets of what comes from a store of Nix. A path is made absolute: another process, elsewhere, will read it.

    Raises:
        click.UsageError: there is none.
        InvalidError: one is malformed.
    """
    if not to:
        raise click.UsageError("say where to: --to URL")
    from tvix_store.model.address import Address

    for each in to:
        Address.parse(each)  # what waits for a misspelt cache would wait for ever
    addresses = [os.path.abspath(each) if each.startswith(("/", "./", "../")) else each for each in to]
    return [Target(address, nix_store, store_dir, skip_upstream) for address in addresses]


def _own_directory() -> Path:
    if os.geteuid() == 0:
        return Path("/var/spool/tvix-store")
    state = Path(os.environ.get("XDG_STATE_HOME", ""))  # the XDG specification says to ignore relative paths
    return (state if state.is_absolute() else Path.home() / ".local/state") / "tvix-store/queue"


def start_in_background(queue: PushQueue, *options: str) -> None:
    """Start a process that pushes what waits in `queue`, unless there is one. Nothing waits for it, and it outlives this process.

    It gets the lock of the queue from this process, so there is never a second one. One that is about to end looks at the queue
    once more after it has given the lock away. So either it sees a new entry, or whoever put the entry finds the lock free.
    """
    with queue.alone() as lock:
        if lock is not None:
            _spawn(queue, lock, options)


def _spawn(queue: PushQueue, lock: int, options: Sequence[str]) -> None:
    log = queue.directory / LOG
    if log.exists() and log.stat().st_size > _LARGEST_LOG:
        log.rename(log.with_name(f"{LOG}.old"))
    # -P, since a module may not come from the directory of a build. No standard file may stay, since Nix waits for their end.
    program = [sys.executable, "-P", "-m", "tvix_store.cli", "hook", "--lock", str(lock), "--queue", str(queue.directory)]
    environment = {name: value for name, value in os.environ.items() if name not in ("OUT_PATHS", "DRV_PATH")}
    os.set_inheritable(lock, True)
    os.posix_spawn(
        sys.executable,
        [*program, *options],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
