"""What a shell offers for the words of a command: store paths, and names of pins, tokens and caches.

Whoever presses a key waits for it. So a local store is not opened: its index is read as it lies. A server gets a second to answer.
What goes wrong is not told, since the shell would print it into the command.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tvix_store.cli.invocation import Invocation

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from tvix_store.model.path_info import PathInfo

_PATIENCE, _PATIENCE_WITH_SERVERS = 3.0, 1.0
"""Seconds until the shell is left alone."""
_MOST = 500
"""Words that are offered: nobody reads more, and bash asks before it shows 100."""
_SERVERS = ("grpc", "connect")
"""How the schemes of servers begin."""
Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]


@contextmanager
def in_silence() -> Iterator[None]:
    """A completion that says nothing but its words, and ends soon: in time, without them."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        yield
    except Exception:  # noqa: BLE001 - there is nothing to offer
        os._exit(0)


def _words(find: Callable[[click.Context, str], list[str]]) -> Completer:
    @wraps(find)
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(each) for each in find(context, incomplete) if each.startswith(incomplete)][:_MOST]

    return complete


@_words
def store_paths(context: click.Context, incomplete: str) -> list[str]:
    """Store paths, as base names where the word is the begin of a hash, else in full."""
    from tvix_store.config.peek import local_directory, peek_paths
    from tvix_store.model.store_path import STORE_DIR

    address = _address(context)
    directory = local_directory(address)
    store_dir = _store_dir(context, directory) if directory else STORE_DIR
    place = f"{store_dir}/"
    begin = incomplete.removeprefix(place)
    in_full = begin != incomplete or place.startswith(incomplete)
    if in_full and begin == incomplete:
        begin = ""
    if directory is not None:
        found = peek_paths(directory, begin, _MOST)
    elif address is not None and address.startswith(_SERVERS):
        found = _of_server(address, begin)
    else:
        return []
    return [place + each for each in found] if in_full else found


@_words
def pin_names(context: click.Context, incomplete: str) -> list[str]:
    """The names of pins in a local store."""
    from tvix_store.config.peek import peek_records

    directory = _directory(context)
    keys = peek_records(directory, f"pin:{incomplete}".encode(), 10 * _MOST) if directory else []
    names = (key.decode().removeprefix("pin:").rpartition("/")[0] for key in keys)
    return list(dict.fromkeys(filter(None, names)))


@_words
def cache_names(context: click.Context, incomplete: str) -> list[str]:
    """The named caches of a local store."""
    from tvix_store.config import peek

    directory = _directory(context)
    return peek.cache_names(directory) if directory else []


@_words
def token_ids(context: click.Context, incomplete: str) -> list[str]:
    """The tokens that grant something."""
    import time

    from tvix_store.access.token_file import TokenFile
    from tvix_store.cli.token_files import chosen_token_file

    file = chosen_token_file(context.ensure_object(Invocation), context.params.get("token_file"))
    return [record.id for record in TokenFile(file).read().records if record.refusal(time.time()) is None]


@_words
def commands(context: click.Context, incomplete: str) -> list[str]:
    """The commands below those that are written already."""
    at = context.find_root().command
    for word in context.params.get("words") or ():
        below = at.get_command(context, word) if isinstance(at, click.Group) else None
        if below is None:
            return []
        at = below
    return at.list_commands(context) if isinstance(at, click.Group) else []


def _address(context: click.Context) -> str | None:
    """The address of the path infos; None where none is given. Files are read here, since click reads no defaults now."""
    from tvix_store.cli.config_paths import files_in_force

    invocation = context.ensure_object(Invocation)
    address = invocation.addresses()["path_infos"]
    path = invocation.value("config")
    if address is None and files_in_force(path):
        from tvix_store.cli.configuration import Configuration

        configuration = Configuration.read(path)
        composed = configuration.composition()
        if composed is not None:
            from tvix_store.cli.compositions import composition_in

            return composition_in(composed).addresses["path_infos"]
        found = configuration.find(("path-info-service-addr",)) or configuration.find(("store",))
        address = str(found.value) if found else None
    return address


def _directory(context: click.Context) -> Path | None:
    from tvix_store.config.peek import local_directory

    return local_directory(_address(context))


def _store_dir(context: click.Context, directory: Path) -> str:
    from tvix_store.config.peek import store_dir_of

    return context.ensure_object(Invocation).value("store_dir") or store_dir_of(directory)


def _of_server(address: str, begin: str) -> list[str]:
    import asyncio

    from tvix_store.config import open_store

    signal.setitimer(signal.ITIMER_REAL, _PATIENCE_WITH_SERVERS)

    async def listed() -> list[str]:
        found: list[str] = []
        async with await open_store(address) as store:
            path_info: PathInfo
            async for path_info in store.path_infos.list():
                if str(path_info.store_path).startswith(begin):
                    found.append(str(path_info.store_path))
                    if len(found) == _MOST:
                        break
        return found

    return asyncio.run(listed())
