"""Proxies: those that the environment names, as $http_proxy, $https_proxy and $no_proxy."""

from __future__ import annotations

from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # as in urllib's own

from yarl import URL


class Proxies:
    """The proxies of the environment, as it is now."""

    def __init__(self) -> None:
        self._by_scheme = getproxies_environment()

    def proxy_of(self, url: URL) -> URL | None:
        """The proxy for a URL; None for none. It may be `http://user:password@host:port`."""
        found = self._by_scheme.get(url.scheme)
        if found is None or proxy_bypass_environment(url.host or "", self._by_scheme):
            return None
        return URL(found if "://" in found else f"http://{found}")
