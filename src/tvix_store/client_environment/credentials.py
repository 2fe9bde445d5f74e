"""Credentials for a server: a user and a password, or a token, sent to its origin alone."""

from __future__ import annotations

import netrc
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tvix_store.client_environment.nix_files import netrc_files
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
    """Those for a host in $NETRC; else in `~/.netrc`, or in the first of Nix's own netrc files that has some.

    Raises:
        InvalidError: a file is malformed, or cannot be read.
    """
    given = os.environ.get("NETRC")
    files = [Path(given)] if given else _usual_files()
    return next(filter(None, (_credentials_in(file, host, must_be_readable=bool(given)) for file in files)), None)


def _usual_files() -> Iterator[Path]:
    with suppress(RuntimeError):  # a user without a home, such as a service
        yield Path.home() / ".netrc"
    yield from netrc_files()


def _credentials_in(file: Path, host: str, *, must_be_readable: bool) -> Credentials | None:
    try:
        found = netrc.netrc(str(file)).authenticators(host)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        if not must_be_readable:  # systemd's ProtectHome= hides the home so, and the machine's passwords are root's
            return None
        raise InvalidError(f"cannot read {file}: {error}") from None
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError) as error:
        raise InvalidError(f"cannot read {file}: {error}") from None
    return Credentials(found[0], found[2] or "") if found else None
