"""The policy of a collection as users write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tvix_store.operations.collection.collect import Policy

_OPTIONS = {
    "keep-for": ("TIME", "Remove paths that nobody has used for so long, as in 90d."),
    "max-size": ("SIZE", "Remove paths until the store takes so many bytes of disk, as in 500G."),
    "min-free": ("SIZE", "Remove paths until so many bytes are free on its file system."),
    "grace": ("TIME", "How long content stays that no path needs, as in 12h. Default: 24h."),
}


def policy_options(function: Callable[..., Any], prefix: str = "") -> Callable[..., Any]:
    """The options of a policy, for a command; their names begin with `prefix`."""
    for name, (metavar, text) in reversed(_OPTIONS.items()):
        function = click.option(f"--{prefix}{name}", metavar=metavar, help=text)(function)
    return function


def given_policy(values: Sequence[str | None]) -> list[str]:
    """The options of `tvix-store gc` that say the same as the values of all options, in order.

    Raises:
        click.BadParameter: one is malformed.
    """
    policy_of(*values)
    given = [(name, value) for name, value in zip(_OPTIONS, values, strict=True) if value is not None]
    return [word for name, value in given for word in (f"--{name}", value)]


def policy_of(keep_for: str | None, max_size: str | None, min_free: str | None, grace: str | None) -> Policy:
    """The policy that the values of the options make.

    Raises:
        click.BadParameter: one is malformed.
    """
    from tvix_store.operations.collection.collect import GRACE, Policy

    return Policy(
        keep_for=None if keep_for is None else _hours(keep_for),
        max_size=_size("--max-size", max_size),
        min_free=_size("--min-free", min_free),
        grace=GRACE if grace is None else 0 if grace.rstrip("smhd") == "0" else read_span_option("--grace", grace),
    )


def _hours(keep_for: str) -> int:
    from math import ceil

    from tvix_store.services.removal import HOUR

    hours = read_span_option("--keep-for", keep_for) / HOUR
    if hours < 1:
        raise click.BadParameter("uses are noted once an hour, so the least is 1h", param_hint="--keep-for")
    return ceil(hours)


def read_span_option(name: str, value: str) -> int:
    """The seconds in a span of time.

    Raises:
        click.BadParameter: it is none.
    """
    from tvix_store.errors import InvalidError
    from tvix_store.model.time_span import read_span

    try:
        return read_span(value)
    except InvalidError as error:
        raise click.BadParameter(str(error), param_hint=name) from None


def _size(name: str, value: str | None) -> int | None:
    from tvix_store.errors import InvalidError
    from tvix_store.model.byte_size import read_bytes

    try:
        return None if value is None else read_bytes(value)
    except InvalidError as error:
        raise click.BadParameter(str(error), param_hint=name) from None
