"""Pushing what waits in a queue, for `tvix-store hook` and `watch-store`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from math import inf
from typing import Any

from tvix_store.cli.event_loop import run
from tvix_store.cli.exit_codes import after_signal
from tvix_store.cli.policy import read_span_option
from tvix_store.cli.push_paths import Skip, push_paths
from tvix_store.cli.push_queue import LINGER
from tvix_store.client_environment import nix_conf
from tvix_store.errors import InvalidError, UnavailableError
from tvix_store.operations.granular.account import Account
from tvix_store.operations.paths.nix_store import NixStore, named_path
from tvix_store.operations.paths.push_queue import Entry, PushQueue, Target, number_of_paths
from tvix_store.operations.paths.pushed import Pushed
from tvix_store.operations.paths.queue_pusher import QueuePusher

_LOOK = 0.5
"""Seconds between two looks whether another process has given the queue away."""
_PLACES_OF_NIX = "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin"
"""Nix's daemon may run without itself on the PATH, and so does its hook then."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def push_queued(queue: PushQueue, give_up_after: str | None, *, for_ever: bool) -> None:
    """Push what waits in `queue`, and what comes if it goes on for ever.

    Raises:
        UnavailableError: paths were set aside.
    """
    run(until_signal(serve(queue, give_up_after)) if for_ever else drain(queue, give_up_after))


def push_in_background(queue: PushQueue, lock: int, give_up_after: str | None) -> None:
    """Push what waits in `queue`, and what comes for a while, with a lock that another process has handed over."""
    os.chdir("/")  # so that no file system is held
    os.set_inheritable(lock, False)
    run(_in_background(queue, lock, give_up_after))


async def serve(queue: PushQueue, give_up_after: str | None) -> None:
    """Push what waits and what comes. Where another process does that, wait until it ends."""
    pusher = _pusher(queue, give_up_after, say)
    while True:
        with queue.alone() as mine:
            if mine is not None:
                await pusher.run()
        await asyncio.sleep(_LOOK)


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run what goes on for ever. A first signal ends it, and that is no error. A second one ends the program at once."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if task.cancelling():
            os._exit(after_signal(number))
        task.cancel()

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop, number)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def drain(queue: PushQueue, give_up_after: str | None) -> None:
    """Push until nothing waits, or another process has done so.

    Raises:
        UnavailableError: paths were set aside, or another process has not pushed them after so long.
    """
    pusher = _pusher(queue, give_up_after, say)
    failed = _count(queue.failed())
    until = time.monotonic() + (_seconds(give_up_after) or inf)
    while queue.names():
        with queue.alone() as mine:
            if mine is not None:
                await pusher.run(0)
                break
        if time.monotonic() > until:
            raise UnavailableError("another process has not pushed all that waits; tvix-store hook --status tells why")
        await asyncio.sleep(_LOOK)
    if (count := _count(queue.failed()) - failed) > 0:
        raise UnavailableError(f"not pushed: {number_of_paths(count)}; tvix-store hook --status tells why")


async def _in_background(queue: PushQueue, lock: int | None, give_up_after: str | None) -> None:
    pusher = _pusher(queue, give_up_after, _log)
    while True:
        with queue.alone(lock) as mine:
            if mine is None:
                return
            await pusher.run(LINGER)
        lock = None
        # Whoever has put an entry while the lock was held relies on this look.
        if not queue.names():
            return


def _pusher(queue: PushQueue, give_up_after: str | None, say: Callable[[str], None]) -> QueuePusher:
    _complete_environment()
    return QueuePusher(queue, _push, _is_gone, say, give_up_after=_seconds(give_up_after))


def _seconds(give_up_after: str | None) -> int | None:
    return read_span_option("--give-up-after", give_up_after) if give_up_after else None


def _count(entries: Iterable[Entry]) -> int:
    return sum(len(entry.paths) for entry in entries)


def _complete_environment() -> None:
    """Let a process that Nix's daemon has started find the program `nix`, and the passwords that Nix itself uses for caches."""
    path = os.environ.get("PATH") or os.defpath
    if not path.endswith(_PLACES_OF_NIX):
        os.environ["PATH"] = f"{path}:{_PLACES_OF_NIX}"
    if "NETRC" not in os.environ and not os.path.exists(os.path.expanduser("~/.netrc")):
        # Nix hands its settings over to its hook.
        given = nix_conf.values(os.environ.get("NIX_CONFIG", ""), "netrc-file")
        if given and os.access(given[0], os.R_OK):
            os.environ["NETRC"] = given[0]


def _push(target: Target, paths: Sequence[str], moved: Callable[[], None]) -> AsyncGenerator[Pushed, None]:
    return push_paths(
        paths,
        target.address,
        nix_store=target.nix_store,
        store_dir=target.store_dir,
        skip=Skip() if target.skip_upstream else None,
        account=Account(moved=lambda _: moved()),
    )


def _is_gone(target: Target, path: str) -> bool:
    try:
        return not os.path.lexists(NixStore.at(target.nix_store, target.store_dir).file(named_path(path, target.store_dir)))
    except InvalidError:  # the whole store is not there now, or this is no path of it
        return False


def say(text: str) -> None:
    """Print a line on stderr."""
    print(f"tvix-store: {text}", file=sys.stderr, flush=True)


def _log(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, file=sys.stderr, flush=True)
