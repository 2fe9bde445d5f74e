"""ConfigFile: a configuration file, and who else may read or change it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import click

from tvix_store.cli.exit_codes import USAGE
from tvix_store.cli.masking import PASSWORD
from tvix_store.config.toml_document import TomlDocument, read_toml
from tvix_store.errors import InvalidError


class ConfigurationError(click.ClickException):
    """The configuration cannot be used. The message says where, and what is wrong."""

    exit_code = USAGE


@dataclass(frozen=True)
class ConfigFile(TomlDocument):
    """The document in a configuration file.

    exposure: A sentence on the others who may read a password in the file, or change the file. None if there are none.
    """

    exposure: str | None


def read_config_file(path: str) -> ConfigFile:
    """Read the TOML file at `path`.

    Raises:
        OSError: it cannot be read.
        ConfigurationError: it is larger than 256 KiB, or is not TOML.
    """
    try:
        read = read_toml(path)
    except InvalidError as error:
        raise ConfigurationError(str(error)) from None
    return ConfigFile(path, read.text, read.table, read.mode, _exposure(path, read.mode, read.text))


def _exposure(path: str, mode: int, text: str) -> str | None:
    if path == os.devnull:
        return None
    if mode & 0o002:
        return f"{path} has mode {mode:o}: everybody may change this configuration; run chmod o-w {path}"
    if mode & 0o004 and PASSWORD.search(text):
        return f"{path} has mode {mode:o}: everybody may read the password in this configuration; run chmod o-r {path}"
    return None
