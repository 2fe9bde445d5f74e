"""The store behind an upstream cache of ours: over plain HTTP, below the URL of the cache."""

from __future__ import annotations

import os
from urllib.parse import quote

from yarl import URL

from tvix_store.backends import grpc
from tvix_store.backends.nix_http.credentials import Credentials
from tvix_store.services.store import Store

PATIENCE = 20.0
"""Seconds without a message after which the NAR is fetched instead, as long as a NAR may stall. A client waits meanwhile."""


async def open_upstream_content(url: URL, credentials: Credentials | None) -> Store:
    """The store whose binary cache is at `url`, which takes these credentials.

    Raises:
        StoreError: it cannot be reached, or is no such store.
    """
    who = f"{quote(credentials.user, safe='')}:{quote(credentials.password, safe='')}@" if credentials is not None else ""
    place = f"{url.host_subcomponent}:{url.port}{url.raw_path.rstrip('/')}"
    # As Nix finds its authorities, and the cache's other client too.
    authorities = os.environ.get("NIX_SSL_CERT_FILE") or os.environ.get("SSL_CERT_FILE")
    ca = f"?ca={quote(authorities)}" if authorities and url.scheme == "https" else ""
    return await grpc.open_store(f"connect+{url.scheme}://{who}{place}{ca}", patience=PATIENCE)
