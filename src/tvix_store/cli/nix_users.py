"""Whom Nix's daemon trusts."""

from __future__ import annotations

import grp
import os
import pwd
from contextlib import suppress
from pathlib import Path

from tvix_store.client_environment import nix_conf

_SOCKET = Path("/nix/var/nix/daemon-socket/socket")


def untrusted_user() -> bool:
    """Whether there is a daemon that does not trust the user of this process. False where that cannot be told."""
    if os.geteuid() == 0 or not _SOCKET.exists():
        return False
    try:
        text = Path(os.environ.get("NIX_CONF_DIR") or "/etc/nix", "nix.conf").read_text(errors="replace")
        name = pwd.getpwuid(os.geteuid()).pw_name
    except (OSError, KeyError):
        return False
    return not is_trusted(text, name, _groups())


def is_trusted(configuration: str, user: str, groups: set[str]) -> bool:
    """Whether a text of nix.conf makes a user trusted. Source: nix, src/libstore/daemon.cc, matchUser."""
    trusted = nix_conf.values(configuration, "trusted-users")
    return any(each in ("*", user) or (each.startswith("@") and each[1:] in groups) for each in trusted)


def _groups() -> set[str]:
    names = set()
    for number in {os.getegid(), *os.getgroups()}:
        with suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return names
