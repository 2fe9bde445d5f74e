"""The policy of a collection as users write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tvix_store.operations.collection.collect import Policy

F = TypeVar("F", bound=Callable[..., Any])


def policy_options(function: F) -> F:
    """The options of a policy, for a command."""
    for option in reversed(
        (
            click.option("--keep-for", metavar="TIME", help="Remove paths that nobody has used for so long, as in 90d."),
            click.option(
                "--max-size", metavar="SIZE", help="Remove paths until the store takes so many bytes of disk, as in 500G."
            ),
            click.option("--min-free", metavar="SIZE", help="Remove paths until so many bytes are free on its file system."),
            click.option("--grace", metavar="TIME", help="How long content stays that no path needs, as in 12h. Default: 24h."),
        )
    ):
        function = option(function)
    return function


def policy_of(keep_for: str | None, max_size: str | None, min_free: str | None, grace: str | None) -> Policy:
    """The policy that the values of the options make.

    Raises:
        click.BadParameter: one is malformed.
    """
    from math import ceil

    from tvix_store.model.byte_size import read_bytes
    from tvix_store.model.time_span import read_span
    from tvix_store.operations.collection.collect import GRACE, Policy
    from tvix_store.services.removal import HOUR

    keep_seconds = _read("--keep-for", keep_for, read_span)
    seconds = 0 if grace == "0" else _read("--grace", grace, read_span)
    return Policy(
        keep_for=None if keep_seconds is None else ceil(keep_seconds / HOUR),
        max_size=_read("--max-size", max_size, read_bytes),
        min_free=_read("--min-free", min_free, read_bytes),
        grace=GRACE if seconds is None else seconds,
    )


def _read(name: str, value: str | None, read: Callable[[str], int]) -> int | None:
    from tvix_store.errors import InvalidError

    if value is None:
        return None
    try:
        return read(value)
    except InvalidError as error:
        raise click.BadParameter(str(error), param_hint=name) from None
