"""Invocation: the settings that all commands share, from options before or after a command's name, the environment, and files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click
from click.core import ParameterSource

from tvix_store.cli.credentials import SecretText
from tvix_store.cli.input import complete_directories, complete_files
from tvix_store.cli.sections import GENERAL, STORE, SectionedCommand, in_section
from tvix_store.cli.settings import SharedOption

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

    from tvix_store.cli.config_file import ConfigFile
    from tvix_store.cli.configuration import Configuration
    from tvix_store.config import Composition
    from tvix_store.model.signature import PublicKey
    from tvix_store.operations.export.worker_pool import WorkerPool
    from tvix_store.services.store import Store

P = ParamSpec("P")

_ADDRESSES = {
    "store": ("--store", "TVIX_STORE", "The store: a URL or a path."),
    "blobs": ("--blob-service-addr", "BLOB_SERVICE_ADDR", "The store of the blobs, if it is another."),
    "directories": ("--directory-service-addr", "DIRECTORY_SERVICE_ADDR", "The same for directories."),
    "path_infos": ("--path-info-service-addr", "PATH_INFO_SERVICE_ADDR", "The same for path infos."),
}
_CREW = 4
"""Most processes that share the work: more would wait for the disk."""
_CACHES_TOLD = 5
"""Most named caches that a line lists."""
_SOURCES = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
"""Where values come from, the most important source first. The last one is the configuration files."""


@dataclass(slots=True)
class Invocation:
    """The values of the shared options, by their sources, and the configuration that the command reads."""

    given: dict[ParameterSource, dict[str, Any]] = field(default_factory=lambda: {source: {} for source in _SOURCES})
    configuration: Configuration | None = None
    """None before the command's own options are read, and where there is no file."""
    _composition: Composition | None = None

    def value(self, name: str) -> Any:
        """The value of a shared option. None if it is not given."""
        return next((self.given[source][name] for source in _SOURCES if name in self.given[source]), None)

    @property
    def quiet(self) -> bool:
        return bool(self.value("quiet"))

    @property
    def debug(self) -> bool:
        return bool(self.value("debug"))

    def addresses(self) -> dict[str, str | None]:
        """The address of each service. The command line wins over the environment, and that over files. Within one of these, a
        service's own address wins over the store's, and a composition over all: then these are the places where it keeps things."""
        if self._composed_by() is not None:
            return {str(service): address for service, address in self.composition().addresses.items()}
        return {service: self._address(service) for service in ("blobs", "directories", "path_infos")}

    def _address(self, service: str) -> str | None:
        levels = (self.given[source] for source in _SOURCES)
        return next((found for level in levels if (found := level.get(service) or level.get("store"))), None)

    def composition(self) -> Composition:
        """The store that the command works on.

        Raises:
            ConfigurationError: a composition is wrong.
            InvalidError: an address is.
        """
        if self._composition is None:
            self._composition = self._read_composition()
        return self._composition

    def is_composed(self) -> bool:
        """Whether a composition is in force, and not addresses."""
        return self._composed_by() is not None

    def _read_composition(self) -> Composition:
        from tvix_store.config import of_addresses

        source = self._composed_by()
        if source is None:
            store, blobs, directories, path_infos = None, *self.addresses().values()
            return of_addresses(store, blobs=blobs, directories=directories, path_infos=path_infos)
        from tvix_store.cli.compositions import composition_in

        return composition_in(source)

    def _composed_by(self) -> str | ConfigFile | None:
        """The file of the composition, or the configuration with it; None where addresses count, which stand in a better place."""
        for source in _SOURCES:
            level = self.given[source]
            if (file := level.get("composition")) is not None:
                return str(file)
            if source is ParameterSource.DEFAULT_MAP and self.configuration is not None:
                return self.configuration.composition()
            if any(name in level for name in _ADDRESSES):
                return None
        return None

    def at(self, address: str) -> Invocation:
        """The same settings, but for the store at another address."""
        settings = {name: value for name in ("store_dir", "quiet", "debug") if (value := self.value(name)) is not None}
        other = Invocation(configuration=self.configuration)
        other.given[ParameterSource.COMMANDLINE] |= settings | {"store": address}
        return other

    async def open_store(
        self,
        *,
        substituters: Sequence[str] = (),
        substituter_public_keys: Sequence[PublicKey] = (),
        create: bool = False,
        cache: str | None = None,
        quota: int | None = None,
        retention: str | None = None,
        scrub_days: float = 0,
        as_worker: bool = False,
    ) -> Store:
        """The store that the command works on, filled from `substituters`; `as_worker` of its pool.

        It must be there: only with `create` is an embedded store made where there is none.
        `cache` names a cache of the store, whose files have at most `quota` bytes. It keeps unused paths for the `retention`.
        Content of a local store is read once in `scrub_days`, to look for damage.
        """
        from tvix_store.config import cache_address, of_addresses, open_store

        if not create:
            self.check_store_is_there()
        composition = self.composition()
        if cache is not None:
            composition = of_addresses(cache_address(composition, cache, quota, retention))
        return await open_store(
            composition=composition,
            store_dir=self.value("store_dir"),
            substituters=substituters,
            substituter_public_keys=substituter_public_keys,
            create=create,
            scrub_days=scrub_days,
            as_worker=as_worker,
        )

    async def open_or_make_store(self) -> Store:
        """The store of a command that puts something into it. An embedded store is made where there is none, and a line says so."""
        missing = self.missing_stores()
        store = await self.open_store(create=True)
        for each in missing:
            self.note(f"made a new {each}")
        return store

    def missing_stores(self) -> tuple[str, ...]:
        """The embedded stores that are not there, as `store in /path`."""
        from tvix_store.config import missing_stores

        return missing_stores(self.composition())

    def check_store_is_there(self) -> None:
        """Raise NoStoreError where the store is not there."""
        from tvix_store.errors import NoStoreError

        for missing in self.missing_stores():
            way_out = "tvix-store import makes one there"
            if "?" in missing:
                way_out = "an address with settings is a URL, as in local:///path?name=value"
            raise NoStoreError(f"there is no {missing}{self._named_by()}; {way_out}")

    def _named_by(self) -> str:
        """Who names the store that is not there, if that is not on the command line."""
        composed_by = self._composed_by()
        if composed_by is not None:
            return f", which {composed_by if isinstance(composed_by, str) else composed_by.path} names"
        for source in _SOURCES:
            named = [name for name in _ADDRESSES if name in self.given[source]]
            if named:
                words = {ParameterSource.ENVIRONMENT: f", which ${_ADDRESSES[named[0]][1]} names"}
                words[ParameterSource.DEFAULT_MAP] = f", which {named[0].replace('_', '-')} in the configuration names"
                return words.get(source, "")
        return ", the default place (--store and $TVIX_STORE name others)"

    def note(self, text: str) -> None:
        """Print a line on standard error about what was done, unless that is to be `quiet`."""
        if not self.quiet:
            print(f"tvix-store: {text}", file=sys.stderr, flush=True)

    def note_no_paths(self, store: Store, condition: str = "") -> None:
        """Say that `store`, which is that of the command, has no paths (that fit). Its named caches have paths of their own."""
        self.note(f"the store {store.name} has no store paths{condition}{self._named_caches()}")

    def _named_caches(self) -> str:
        from tvix_store.config import cache_address
        from tvix_store.config.peek import cache_names, local_directory

        only = self.composition().only_leaf()
        directory = None if only is None else local_directory(only)
        names = [] if directory is None else cache_names(directory)
        if not names:
            return ""
        listed = ", ".join(names[:_CACHES_TOLD]) + (", ..." if len(names) > _CACHES_TOLD else "")
        return f"; its named caches have paths of their own ({listed}): --store '{cache_address(self.composition(), names[0])}'"

    def pool(self, *, wanted: bool = True) -> WorkerPool:
        """Processes that share the work of a command, to be made before anything else is opened; none where they would not help."""
        from tvix_store.config import prepare_for_pool
        from tvix_store.operations.export.worker_pool import WorkerPool

        self.check_store_is_there()
        cores = len(os.sched_getaffinity(0))
        helps = wanted and cores > 1 and prepare_for_pool(self.composition())
        return WorkerPool(partial(self.open_store, as_worker=True), min(cores, _CREW) if helps else 0)


class StoreOption(SharedOption):
    """The option `--store`: its help names the directory of the store that is there by default."""

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        from tvix_store.config.user_directories import data_directory

        extra = super().get_help_extra(ctx)
        with suppress(RuntimeError):  # a user without a home
            extra["default"] = str(data_directory())
        return extra


def shared_options(*, opens_store: bool = True) -> list[click.Parameter]:
    """The options of the program and of every command. A command that opens no store does not show those of the store."""

    def remember(ctx: click.Context, option: click.Parameter, value: object) -> None:
        source = ctx.get_parameter_source(option.name or "")
        if option.name and source in _SOURCES and value != "":
            ctx.ensure_object(Invocation).given[source][option.name] = value

    def configure(ctx: click.Context, option: click.Parameter, value: object) -> None:
        remember(ctx, option, value)
        # A group comes before its command, behind whose name --config may stand too.
        if not isinstance(ctx.command, click.Group) and not ctx.resilient_parsing:
            from tvix_store.cli.configured import configure_command

            configure_command(ctx, ctx.ensure_object(Invocation))

    def shared(
        names: list[str], variable: str | list[str], cls: type[SharedOption] = SharedOption, **settings: Any
    ) -> click.Option:
        return cls(names, envvar=variable, expose_value=False, **{"callback": remember} | settings)

    of_store = [
        *(
            shared(
                [flag, service],
                variable,
                StoreOption if service == "store" else SharedOption,
                metavar="ADDRESS",
                type=SecretText(),
                shell_complete=complete_directories,
                show_envvar=True,
                hidden=not opens_store,
                help=text,
            )
            for service, (flag, variable, text) in _ADDRESSES.items()
        ),
        shared(
            ["--store-composition", "--experimental-store-composition", "composition"],
            ["TVIX_STORE_COMPOSITION", "EXPERIMENTAL_STORE_COMPOSITION"],
            metavar="FILE",
            shell_complete=complete_files,
            show_envvar=True,
            hidden=not opens_store,
            help="A TOML file with tables [blobservices.root] and so on, in place of addresses.",
        ),
        shared(
            ["--store-dir"],
            "NIX_STORE_DIR",
            metavar="DIRECTORY",
            show_envvar=True,
            hidden=not opens_store,
            help="Where Nix has its store. Default: as the store was made; /nix/store.",
        ),
    ]
    of_all = [
        # The variables of these are shown nowhere, since they follow from the names.
        shared(["-q", "--quiet"], "TVIX_STORE_QUIET", is_flag=True, help="Show no progress, and no summary."),
        shared(["--debug"], "TVIX_STORE_DEBUG", is_flag=True, help="Show where an error comes from."),
        shared(
            ["--config"],
            "TVIX_STORE_CONFIG",
            metavar="FILE",
            is_eager=True,
            callback=configure,
            help="Take options from this file alone. Default: ~/.config/tvix-store/config.toml over /etc/tvix-store/config.toml.",
        ),
    ]
    in_section(STORE, of_store)
    in_section(GENERAL, of_all)
    return [*of_store, *of_all]


def command(function: Callable[Concatenate[Invocation, P], Coroutine[Any, Any, None]]) -> click.Command:
    """Make a command of a coroutine function that takes the Invocation and its own options; its docstring is the help."""
    return _command(function, opens_store=True)


def command_without_store(function: Callable[Concatenate[Invocation, P], Coroutine[Any, Any, None]]) -> click.Command:
    """As `command`, of one that opens no store."""
    return _command(function, opens_store=False)


def _command(function: Callable[Concatenate[Invocation, P], Coroutine[Any, Any, None]], *, opens_store: bool) -> click.Command:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        from tvix_store.cli.event_loop import run

        run(function(click.get_current_context().ensure_object(Invocation), *args, **kwargs))

    made = click.command(cls=SectionedCommand)(call)
    made.params += shared_options(opens_store=opens_store)
    return made


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
nix_store_option = click.option(
    "--nix-store",
    metavar="URL",
    envvar="NIX_REMOTE",
    show_envvar=True,
    help="The store of Nix, as in its option --store. Default: Nix's own.",
)
