"""The option that says how often a daemon reads all of its content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

_DEFAULT = 30.0
"""Days. File systems with checksums, and arrays of disks, are read once a month by common habit."""

scrub_days_option = click.option(
    "--scrub-days",
    type=click.FloatRange(0, 36_500),
    metavar="DAYS",
    help="Read all content of a local store once in so many days, to find damage; 0 is never. Default: 30.",
)


def checked_scrub_days(given: float | None, directories: Sequence[Path]) -> float:
    """The days for the stores in these directories.

    Raises:
        click.UsageError: there is none that could be read, and somebody means it to be.
    """
    if given and not directories:
        raise click.UsageError("--scrub-days is for a store in a directory of this machine; give it to the daemon that has one")
    return _DEFAULT if given is None else given
