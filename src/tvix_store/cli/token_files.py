"""Where a store has its tokens."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from tvix_store.cli.input import SecretPath
from tvix_store.cli.invocation import Invocation
from tvix_store.errors import InvalidError

token_file_option = click.option(
    "--token-file",
    type=SecretPath(),
    metavar="FILE",
    envvar="TVIX_STORE_TOKEN_FILE",
    help="File of the store's tokens. Default: tokens.json in the store, or in the user's data directory.",
)


def warn_of_writers(file: Path) -> None:
    """Log a line where others than the owner of a file of tokens may change it: they could make tokens for themselves."""
    import logging
    import stat

    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return
    if mode & 0o022:
        logging.getLogger(__name__).warning(
            "%s has mode %o: others than its owner may make tokens; run chmod go-w %s", file, mode, file
        )


def default_token_file(invocation: Invocation) -> Path | None:
    """The file of the tokens of the invocation's store; None for a store in memory, which outlives no daemon.

    Raises:
        InvalidError: the address of the store is malformed.
    """
    from tvix_store.config.tokens import token_file

    file = token_file(invocation.addresses()["path_infos"])
    # Opening the store gives a better message about a directory that is wrong.
    return None if file is None or (file.parent.exists() and not file.parent.is_dir()) else file


def existing_token_file(invocation: Invocation, given: Path | None) -> Path:
    """The file in the option, which must be there; else the default of a store that is there.

    Raises:
        FileNotFoundError: the file in the option is not there.
        NoStoreError, InvalidError: there is no store, or it has no file.
    """
    if given is None:
        invocation.check_store_is_there()
    elif not given.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(given))
    return chosen_token_file(invocation, given)


def chosen_token_file(invocation: Invocation, given: Path | None) -> Path:
    """The file in the option, else the default.

    Raises:
        InvalidError: the store has none.
    """
    file = given or default_token_file(invocation)
    if file is None:
        raise InvalidError("a store in memory has no place for tokens; name a file for them with --token-file")
    return file
