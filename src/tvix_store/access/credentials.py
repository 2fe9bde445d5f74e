"""Reading credentials from the header field `Authorization`, which gRPC has as metadata."""

from __future__ import annotations

import binascii
from base64 import b64decode

LONGEST = 8192
"""Bytes of the longest value that is looked at. Tokens of CI systems have some 2,000."""


def shown_secret(value: bytes) -> str | None:
    """The secret that a client shows: a bearer token, or the password of any user. None where `value` is neither.

    Nix sends what it finds in `netrc-file` as a password. Sources: RFC 6750, RFC 7617.
    """
    if len(value) > LONGEST:
        return None
    scheme, _, rest = value.strip().partition(b" ")
    rest = rest.strip()
    try:
        match scheme.lower():
            case b"bearer":
                return rest.decode("ascii") or None
            case b"basic":
                _, _, password = b64decode(rest, validate=True).partition(b":")
                return password.decode("ascii") or None
    except (binascii.Error, UnicodeDecodeError):
        return None
    return None
