"""Where configuration files lie. Every command looks there, so this imports little.

Source of the user's directory: XDG Base Directory Specification 0.8, which says to ignore relative paths.
"""

from __future__ import annotations

import os

SYSTEM = "/etc/tvix-store/config.toml"
"""The file of the system. One that is there and cannot be read is an error: a daemon must not run without its rules."""


def user_file() -> str | None:
    """`tvix-store/config.toml` in the user's configuration directory. None for a user without a home."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    directory = given if os.path.isabs(given) else os.path.expanduser("~/.config")
    return f"{directory}/tvix-store/config.toml" if os.path.isabs(directory) else None


def files_in_force(path: str | None) -> list[str]:
    """The files to read, the most important one first: `path` alone, or those of the user and of the system that are there."""
    if path is not None:
        return [path]
    user = user_file()
    return [*([user] if user and _is_there(user, hidden=False) else []), *([SYSTEM] if _is_there(SYSTEM, hidden=True) else [])]


def _is_there(path: str, *, hidden: bool) -> bool:
    """Whether a file is there, or what to say if a directory on the way is closed to this user.

    `sudo -u service` often leaves the HOME of another user. Its files are not meant for the service.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return hidden
    return True
