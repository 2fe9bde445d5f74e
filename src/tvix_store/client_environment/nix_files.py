"""Where Nix has its configuration and its passwords, for this user and for the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tvix_store.client_environment import nix_conf


def system_file() -> Path:
    """The machine's nix.conf."""
    return Path(os.environ.get("NIX_CONF_DIR") or "/etc/nix", "nix.conf")


def user_file() -> Path:
    """The user's nix.conf. A user without a home, such as a service, has none: RuntimeError."""
    given = os.environ.get("NIX_USER_CONF_FILES", "").split(":")[0]
    configuration = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return Path(given) if given else (configuration if configuration.is_absolute() else Path.home() / ".config") / "nix/nix.conf"


def netrc_files() -> Iterator[Path]:
    """The files of passwords that Nix uses for this user: those that a nix.conf names, else the ones beside it."""
    for of_nix in (user_file, system_file):
        text = ""
        with suppress(RuntimeError):
            file = of_nix()
            with suppress(OSError, UnicodeDecodeError):
                text = file.read_text()
            named = nix_conf.values(text, "netrc-file")
            yield Path(named[0]) if named else file.with_name("netrc")
