"""The store behind an upstream cache of ours: over plain HTTP, below the URL of the cache."""

from __future__ import annotations

from urllib.parse import quote

from yarl import URL

from tvix_store.backends import grpc
from tvix_store.client_environment.credentials import Credentials
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
    return await grpc.open_store(f"connect+{url.scheme}://{who}{place}", patience=PATIENCE)
