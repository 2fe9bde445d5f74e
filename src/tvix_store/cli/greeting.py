"""What `tvix-store daemon` says of itself when it serves."""

from __future__ import annotations

import logging
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tvix_store import __version__
from tvix_store.access.token_file import TokenFile
from tvix_store.cli.sizes import human
from tvix_store.config.user_directories import data_directory
from tvix_store.errors import StoreError
from tvix_store.model.address import without_secrets
from tvix_store.observe.start_lines import StartFacts, start_lines, warnings
from tvix_store.server import ServerConfig
from tvix_store.server.settings import NamedCacheConfig


def greeting(
    addresses: Mapping[str, str | None], config: ServerConfig, *, upstreams: Sequence[str], is_new: bool
) -> Callable[[Sequence[str]], Sequence[str]]:
    """What to say, from the addresses of the services and the settings. It takes the addresses of the listeners.

    is_new: Whether the store was made just now.
    """

    def lines(listeners: Sequence[str]) -> list[str]:
        facts = StartFacts(
            version=__version__,
            store=", ".join(dict.fromkeys(_place(address) for address in addresses.values())),
            read_only=config.cache.read_only,
            size=("new: " if is_new else "") + _size(config.directories),
            signing_keys=tuple(key.name for key in config.cache.signing_keys),
            upstreams=tuple(map(without_secrets, upstreams)),
            tls=config.tls is not None,
            private=config.access.private,
            closed=config.access.closed,
            caches=tuple(f"{each.name} ({_told(each, config)})" for each in config.caches),
            has_tokens=bool(config.access.identity_rules) or _has_tokens(config.access.token_file),
        )
        for warning in warnings(facts, listeners):
            logging.getLogger(__name__).warning("%s", warning)
        return start_lines(facts, listeners, socket.gethostname())

    return lines


def _place(address: str | None) -> str:
    """Where a store is, for people; None is the default one."""
    return without_secrets(address) if address else str(data_directory())


def _told(cache: NamedCacheConfig, config: ServerConfig) -> str:
    """What there is to say of a named cache."""
    keys = " and ".join(key.name for key in cache.cache.signing_keys)
    told = [
        "private" if cache.private else "public",
        "the default" if cache.name == config.default_cache else "",
        f"signs as {keys}" if keys else "",
        f"upstreams {' '.join(map(without_secrets, cache.upstreams))}" if cache.upstreams else "",
    ]
    return ", ".join(filter(None, told))


def _has_tokens(file: Path | None) -> bool:
    try:
        return file is not None and len(TokenFile(file).read()) > 0
    except StoreError:
        return False


def _size(directories: Iterable[Path]) -> str:
    """How large the stores in some directories are, and how much room there is."""
    sizes = []
    for directory in directories:
        with suppress(OSError):
            used = sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))
            sizes.append(f"{human(used)}, {human(shutil.disk_usage(directory).free)} free")
    return "; ".join(sizes)
