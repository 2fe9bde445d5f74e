"""The authorities to trust over TLS."""

from __future__ import annotations

import asyncio
import os
import ssl

from tvix_store.errors import InvalidError

_VARIABLES = ("NIX_SSL_CERT_FILE", "SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
"""Those of Nix, of OpenSSL and of gRPC. All our clients heed them alike: a push may speak gRPC, Connect and HTTP to one server."""


def authorities_file() -> str | None:
    """The file of the first variable of `_VARIABLES` that is set. None for the system's authorities."""
    return next(filter(None, map(os.environ.get, _VARIABLES)), None)


async def trusted_authorities() -> ssl.SSLContext:
    """The authorities in `authorities_file`.

    Raises:
        InvalidError: the file cannot be read.
    """
    file = authorities_file()
    try:
        return await asyncio.to_thread(ssl.create_default_context, cafile=file)  # reads and parses for 20 ms
    except OSError as error:
        raise InvalidError(f"cannot read the trusted authorities in {file}: {error.strerror or error}") from None
