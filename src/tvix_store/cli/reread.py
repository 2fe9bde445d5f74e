"""Reading the configuration of a running command anew."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tvix_store.cli.configuration import Configuration
from tvix_store.cli.configured import words_of
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.settings import SharedOption, settings
from tvix_store.config.composition.tables import SERVICES

_log = logging.getLogger(__name__)


class Reread:
    """The options of a running command, and what the configuration files say of them now.

    Only files change: the command line and the environment of a process stay. So an option that is given there stays too.
    """

    def __init__(self, context: click.Context) -> None:
        """`context` is that of the command, whose options have been read."""
        self._context = context
        self._invocation = context.ensure_object(Invocation)
        self._running: dict[str, Any] = {}
        """The values that are in force, by keys."""
        for name, option in settings(context.command).items():
            parameter = option.name or ""
            shared = isinstance(option, SharedOption)
            self._running[name] = self._invocation.value(parameter) if shared else context.params.get(parameter)
        self._stores = self._written_stores(self._invocation.configuration)

    def changes(self, reloadable: Collection[str]) -> dict[str, Any]:
        """Read the files anew. Return those of the `reloadable` options (keys) that have changed, with their new values.

        A line in the log names the other options that have changed. They stay as they are, and are named again the next time. Where
        a file is wrong, a line says so, and nothing changes.
        """
        try:
            configuration = Configuration.read(self._invocation.value("config"))
            now = self._read(configuration)
            stores = self._written_stores(configuration)
        except (click.ClickException, OSError) as error:
            why = error.format_message() if isinstance(error, click.ClickException) else f"{error.filename}: {error.strerror}"
            _log.error("the configuration stays as it was: %s", " ".join(why.split()))
            return {}
        changed = {name: value for name, value in now.items() if value != self._running[name]}
        left = [f"--{name}" for name in changed if name not in reloadable] + ["the composition"] * (stores != self._stores)
        if left:
            _log.warning("changed in the configuration, but not before the next start: %s", ", ".join(left))
        new = {name: value for name, value in changed.items() if name in reloadable}
        self._running |= new
        return new

    def _written_stores(self, configuration: Configuration | None) -> object:
        """What is written of the composition in force, in its own file or in the configuration. None without one."""
        file = self._invocation.value("composition")
        if file is not None:
            return Path(file).read_bytes()
        composed = configuration and configuration.composition()
        return composed and {name: composed.table.get(name) for name in SERVICES.values()}

    def _read(self, configuration: Configuration) -> dict[str, Any]:
        """The values, by keys, of the options that files can change."""
        command, words = self._context.command, words_of(self._context)
        configuration.check(self._context.find_root().command, words)
        options = settings(command)
        alone = click.Command(None, params=[*options.values()], add_help_option=False)
        fresh = alone.make_context(None, [], obj=Invocation(), default_map=configuration.defaults(words, command))
        given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
        values = {}
        for name, option in options.items():
            parameter = option.name or ""
            if not isinstance(option, SharedOption):
                if self._context.get_parameter_source(parameter) not in given:
                    values[name] = fresh.params.get(parameter)
            elif not any(parameter in self._invocation.given[source] for source in given):
                values[name] = fresh.ensure_object(Invocation).value(parameter)
        return values
