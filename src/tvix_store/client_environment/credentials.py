"""Credentials for a server: a user and a password, or a token, sent to its origin alone."""

from __future__ import annotations

import netrc
import os
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path

from tvix_store.errors import InvalidError


@dataclass(frozen=True, slots=True)
class Credentials:
    """For HTTP's Basic authentication. The password is never printed by `repr`."""

    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        """The value of `Authorization`."""
        return "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_credentials(host: str) -> Credentials | None:
    """Those in $NETRC, else in `~/.netrc`, for a host. A user without a home, such as a service, has none.

    Raises:
        InvalidError: the file cannot be read.
    """
    given = os.environ.get("NETRC")
    try:
        file = Path(given) if given else Path.home() / ".netrc"
    except RuntimeError:
        return None
    try:
        found = netrc.netrc(str(file)).authenticators(host)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        if not given:  # systemd's ProtectHome= hides the home so
            return None
        raise InvalidError(f"cannot read {file}: {error}") from None
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError) as error:
        raise InvalidError(f"cannot read {file}: {error}") from None
    return Credentials(found[0], found[2] or "") if found else None
