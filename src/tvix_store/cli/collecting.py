"""The collection that a daemon lets run: `tvix-store gc` as a process of its own, which takes no time from those who serve."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvix_store.cli.policy import given_policy, policy_options
from tvix_store.concurrency.signal_process import signal_process

if TYPE_CHECKING:
    from tvix_store.services.store import Store

_BEGIN, _AGAIN = 30.0, 60.0
"""Seconds from the opening of the store to the first look whether a run is due, and from one look to the next."""
_AFTER_FAILURE = 600.0
"""Seconds from a run that failed to the next look."""
_PATIENCE = 5.0
"""Seconds in which a run has to end."""
_MOST_SAID = 1 << 16
"""Bytes that are read of what a run says."""
_BUSY = 7
"""The exit code of a run that finds another one at work."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CollectionTerms:
    """When, and by which policy.

    interval: Seconds from the end of a run to the next one.
    address: That of the store.
    directory: Where it lies.
    options: The policy, as options of `tvix-store gc`.
    """

    interval: float
    address: str
    directory: Path
    options: Sequence[str]


@dataclass(frozen=True, slots=True)
class CollectionOptions:
    """What the options of the daemon say: how often, and the policy, in the order of `policy_options`."""

    interval: str | None
    policy: Sequence[str | None]


def collection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the daemon about its collection. They come as one argument, `collection`."""

    @wraps(function)
    def called(
        *arguments: Any,
        gc_interval: str | None,
        gc_keep_for: str | None,
        gc_max_size: str | None,
        gc_min_free: str | None,
        gc_grace: str | None,
        **others: Any,
    ) -> Any:
        given = CollectionOptions(gc_interval, (gc_keep_for, gc_max_size, gc_min_free, gc_grace))
        return function(*arguments, collection=given, **others)

    with_policy = policy_options(called, prefix="gc-")
    return click.option(
        "--gc-interval",
        metavar="TIME",
        help="Let tvix-store gc run so often, as in 1d, by the other --gc options. Default: never.",
    )(with_policy)


def collection_terms(given: CollectionOptions, directories: Sequence[Path]) -> CollectionTerms | None:
    """What the options say; None where nothing is to be collected.

    Raises:
        click.UsageError: an option is malformed, or lacks another one, or there is not one local store.
    """
    from tvix_store.cli.policy import read_span_option

    options = given_policy(given.policy)
    if given.interval is None:
        if options:
            raise click.UsageError(f"--gc-{options[0].removeprefix('--')} needs --gc-interval")
        return None
    seconds = read_span_option("--gc-interval", given.interval)
    if len(directories) != 1:
        raise click.UsageError("--gc-interval needs a daemon whose content and path infos are in one local store")
    return CollectionTerms(seconds, str(directories[0].absolute()), directories[0], options)


def collected(store: Store, terms: CollectionTerms) -> Store:
    """The store, which lets its collection run until it is closed."""
    serving = asyncio.create_task(_serve(terms))

    async def close() -> None:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await store.close()

    return replace(store, close=close)


async def _serve(terms: CollectionTerms) -> None:
    """Look again and again whether a run is due. One worker of all daemons of the store lets it run."""
    from tvix_store.config.local import only_one
    from tvix_store.errors import StoreError

    wait = _BEGIN
    while True:
        await asyncio.sleep(wait)
        wait = _AGAIN
        with suppress(StoreError), only_one(terms.directory) as is_alone:
            if is_alone and _is_due(terms) and not await _run(terms):
                wait = _AFTER_FAILURE


def _is_due(terms: CollectionTerms) -> bool:
    from tvix_store.config.local import collected_at

    return not 0 <= time.time() - collected_at(terms.directory) < terms.interval


async def _run(terms: CollectionTerms) -> bool:
    """Let a run be made; whether it did not fail."""
    from tvix_store.telemetry import meters

    program = [sys.executable, "-m", "tvix_store.cli", "--quiet", "--store", terms.address]
    command = [*program, "gc", "--json", "--background", *terms.options]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        said, errors = await process.communicate()
    except asyncio.CancelledError:
        await _ended(process)
        raise
    if process.returncode == _BUSY:
        _log.info("nothing is collected now: %s", _last_line(errors))
        return True
    if process.returncode != 0:
        meters.COLLECTIONS_FAILED.of().add()
        _log.error("the collection of %s failed: %s", terms.address, _last_line(errors))
        return False
    meters.COLLECTIONS.of().add()
    outcome = json.loads(said[:_MOST_SAID])
    meters.PATHS_REMOVED.of().add(outcome["paths"])
    meters.COLLECTED_BYTES.of().add(outcome["deleted"]["size"])
    meters.FREED_BYTES.of().add(outcome["freed"])
    meters.CONDEMNED_BYTES.of().set(outcome["condemned"]["size"] + outcome["waiting"]["size"])
    meters.COLLECTED_AT.of().set(time.time())
    _log.info(
        "collected: %d paths removed, %d bytes deleted, %d given back, %d set apart",
        outcome["paths"],
        outcome["deleted"]["size"],
        outcome["freed"],
        outcome["condemned"]["size"] + outcome["waiting"]["size"],
    )
    return True


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a run. One that does not listen is killed: the next one goes on."""
    signal_process(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(_PATIENCE):
            await process.wait()
    except TimeoutError:
        signal_process(process, signal.SIGKILL)
        await process.wait()


def _last_line(errors: bytes) -> str:
    lines = errors[-_MOST_SAID:].decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it was killed"
