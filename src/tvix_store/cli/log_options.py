"""The options of the daemon's log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--log-level",
        type=click.Choice(("debug", "info", "warning", "error")),
        default="info",
        help="The least that is written to the log. Default: info.",
    ),
    click.option("--log-format", type=click.Choice(("text", "json")), default="text", help="Form of the log. Default: text."),
    click.option("--access-log", is_flag=True, help="Write a line for each request to the log."),
)


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
