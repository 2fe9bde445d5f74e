"""The authorities to trust over TLS."""

from __future__ import annotations

import asyncio
import os
import ssl

from tvix_store.errors import InvalidError


async def trusted_authorities() -> ssl.SSLContext:
    """The authorities in $NIX_SSL_CERT_FILE, as for Nix; else in $SSL_CERT_FILE, else the system's.

    Raises:
        InvalidError: the file cannot be read.
    """
    file = os.environ.get("NIX_SSL_CERT_FILE") or os.environ.get("SSL_CERT_FILE") or None
    try:
        return await asyncio.to_thread(ssl.create_default_context, cafile=file)  # reads and parses for 20 ms
    except OSError as error:
        raise InvalidError(f"cannot read the trusted authorities in {file}: {error.strerror or error}") from None
