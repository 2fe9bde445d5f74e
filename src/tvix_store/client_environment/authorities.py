"""The authorities to trust over TLS."""

from __future__ import annotations

import asyncio
import os
import ssl

from tvix_store.errors import InvalidError


def authorities_file() -> str | None:
    """$NIX_SSL_CERT_FILE, as for Nix; else $SSL_CERT_FILE. None for the system's authorities."""
    return os.environ.get("NIX_SSL_CERT_FILE") or os.environ.get("SSL_CERT_FILE") or None


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
