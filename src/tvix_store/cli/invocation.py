"""Invocation: the settings that all commands share, from options before or after a command's name, and from the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

if TYPE_CHECKING:
    from tvix_store.model.signature import PublicKey
    from tvix_store.operations.export.worker_pool import WorkerPool
    from tvix_store.services.store import Store

P = ParamSpec("P")

_ADDRESSES = {
    "store": ("--store", "TVIX_STORE", "Address of the store: a URL or a path."),
    "blobs": ("--blob-service-addr", "BLOB_SERVICE_ADDR", "Address of another store for blobs."),
    "directories": ("--directory-service-addr", "DIRECTORY_SERVICE_ADDR", "The same for directories."),
    "path_infos": ("--path-info-service-addr", "PATH_INFO_SERVICE_ADDR", "The same for path infos."),
}
_CREW = 4
"""Most processes that share the work: more would wait for the disk."""
_STORE_DIR = (
    "--store-dir",
    "NIX_STORE_DIR",
    "Where Nix has its store. Default: as the store was made; /nix/store.",
)


@dataclass(slots=True)
class Invocation:
    """The values of the shared options: addresses by service, the store directory, and the switches."""

    given: dict[str, str] = field(default_factory=dict)
    quiet: bool = False
    debug: bool = False

    def addresses(self) -> dict[str, str | None]:
        """The address of each service: an option wins over the environment, and a service's own address over the store's."""
        environment = {service: os.environ.get(variable) for service, (_, variable, _) in _ADDRESSES.items()}
        return {
            service: self.given.get(service) or self.given.get("store") or environment[service] or environment["store"]
            for service in ("blobs", "directories", "path_infos")
        }

    async def open_store(
        self,
        *,
        substituters: Sequence[str] = (),
        substituter_public_keys: Sequence[PublicKey] = (),
        cache: str | None = None,
        quota: int | None = None,
        as_worker: bool = False,
    ) -> Store:
        """The store that the command works on, filled from `substituters`; `as_worker` of its pool.

        `cache` names a cache of the store, whose files have at most `quota` bytes.
        """
        from tvix_store.config import cache_address, open_store

        addresses = self.addresses()
        if cache is not None:
            addresses = dict.fromkeys(addresses, cache_address(addresses.values(), cache, quota))

        return await open_store(
            **addresses,
            store_dir=self.given.get("store_dir") or os.environ.get(_STORE_DIR[1]),
            substituters=substituters,
            substituter_public_keys=substituter_public_keys,
            as_worker=as_worker,
        )

    def pool(self, *, wanted: bool = True) -> WorkerPool:
        """Processes that share the work of a command, to be made before anything else is opened; none where they would not help."""
        from tvix_store.config import prepare_for_pool
        from tvix_store.operations.export.worker_pool import WorkerPool

        cores = len(os.sched_getaffinity(0))
        helps = wanted and cores > 1 and prepare_for_pool(self.addresses().values())
        return WorkerPool(partial(self.open_store, as_worker=True), min(cores, _CREW) if helps else 0)


def shared_options() -> list[click.Parameter]:
    """The options of the program and of every command in it."""

    def remember_text(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
        if value and option.name:
            ctx.ensure_object(Invocation).given[option.name] = value

    def remember_switch(ctx: click.Context, option: click.Parameter, value: bool) -> None:
        if value and option.name:
            setattr(ctx.ensure_object(Invocation), option.name, True)

    return [
        *(
            click.Option(
                [flag, service], metavar="ADDRESS", expose_value=False, callback=remember_text, help=f"{text} [{variable}]"
            )
            for service, (flag, variable, text) in _ADDRESSES.items()
        ),
        click.Option(
            [_STORE_DIR[0]],
            metavar="DIRECTORY",
            expose_value=False,
            callback=remember_text,
            help=f"{_STORE_DIR[2]} [{_STORE_DIR[1]}]",
        ),
        click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=remember_switch, help="Show no progress."),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=remember_switch, help="Show where an error comes from."
        ),
    ]


def command(function: Callable[Concatenate[Invocation, P], Coroutine[Any, Any, None]]) -> click.Command:
    """Make a command of a coroutine function that takes the Invocation and its own options; its docstring is the help."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        from tvix_store.cli.event_loop import run

        run(function(click.get_current_context().ensure_object(Invocation), *args, **kwargs))

    made = click.command(call)
    made.params += shared_options()
    return made


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
