"""Credentials: secrets that systemd hands to a service, by `LoadCredential=NAME:/path` of its unit. `credential:NAME` names one.

Source: systemd.exec(5), Credentials. The service finds each in a file of that name in `$CREDENTIALS_DIRECTORY`.
"""

from __future__ import annotations

import os
import re
from typing import Any

import click

_SCHEME = "credential:"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LARGEST = 1 << 20
"""Bytes of a credential. systemd passes a MiB to a service at most."""


class NoCredentialsError(click.BadParameter):
    """Nothing hands credentials to this process. Only the service can tell whether they are there."""


class SecretText(click.ParamType[str]):
    """A text that may hold a secret, such as an address with a password, or `credential:NAME` in place of it."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        file = credential_file(self, value, param, ctx)
        if file is None:
            return str(value)
        try:
            with open(file, "rb") as opened:
                return opened.read(_LARGEST).decode().strip()
        except UnicodeDecodeError:
            self.fail(f"{value!r} is not text in UTF-8", param, ctx)
        except OSError as error:
            self.fail(f"cannot read {value!r}: {error.strerror}", param, ctx)


def credential_file(
    kind: click.ParamType[Any], value: object, param: click.Parameter | None, ctx: click.Context | None
) -> str | None:
    """The file of the credential that `value` names; None if it names none."""
    if not isinstance(value, str) or not value.startswith(_SCHEME):
        return None
    name = value.removeprefix(_SCHEME)
    if not _NAME.fullmatch(name):
        kind.fail(f"{value!r} does not name a credential, as in credential:cache-key", param, ctx)
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise NoCredentialsError(
            f"{value!r} needs LoadCredential={name}:/path in the unit of systemd: $CREDENTIALS_DIRECTORY is not set", ctx, param
        )
    file = os.path.join(directory, name)
    if not os.path.exists(file):
        kind.fail(f"{value!r} is not among the credentials: LoadCredential={name}:/path adds it", param, ctx)
    return file
