"""Effective values: what a command would work with, and where each value comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from tvix_store.cli.configuration import Configuration
from tvix_store.cli.masking import masked
from tvix_store.cli.settings import SharedOption, set_variable, settings, variables
from tvix_store.config.toml_document import Keys


@dataclass(frozen=True, slots=True)
class Effective:
    """The value of an option, as it was given: a credential is a reference, and not its content.

    value: None for an option that is not set, and has no default that the program knows.
    place: Where the value was given: `$VARIABLE` or `path:line`. None on the command line, and for a default.
    """

    words: Keys
    key: str
    option: click.Option
    value: Any
    source: ParameterSource
    place: str | None

    @property
    def shown(self) -> Any:
        """The value for people to see: secrets are masked."""
        if self.option.hide_input and self.value is not None:
            return "***"
        return _masked(self.value)

    @property
    def variable(self) -> str:
        """The variable to set the option with."""
        return variables(self.option)[0]


def _masked(value: Any) -> Any:
    match value:
        case str():
            return masked(value)
        case list() | tuple():
            return [_masked(each) for each in value]
        case dict():
            return {name: _masked(each) for name, each in value.items()}
    return value


def effective_values(
    command: click.Command, words: Keys, configuration: Configuration, typed: dict[str, Any]
) -> Iterator[Effective]:
    """The options of a command. `typed` are shared ones that stand on the command line, by parameter.

    Of the shared ones, those that the command's own table sets; of the program (no words), all.
    """
    context = click.Context(command)
    context.default_map = configuration.defaults(words, command)
    for name, option in settings(command).items():
        value, source = option.consume_value(context, {})
        place = None
        if isinstance(option, SharedOption) and option.name in typed:
            value, source = typed[option.name], ParameterSource.COMMANDLINE
        match source:
            case ParameterSource.ENVIRONMENT:
                place, value = f"${set_variable(option)}", _as_typed(option, context, value)
            case ParameterSource.DEFAULT_MAP:
                found = configuration.setting(words, name, option)
                assert found is not None, "the default map is made of these"
                if words and isinstance(option, SharedOption) and len(found.keys) <= len(words):
                    continue  # it stands further out
                place = found.place
            case ParameterSource.DEFAULT:
                value = option.to_info_dict()["default"]
        if not words or not isinstance(option, SharedOption) or source is ParameterSource.DEFAULT_MAP:
            yield Effective(words, name, option, value, source, place)


def _as_typed(option: click.Option, context: click.Context, value: Any) -> Any:
    """The text of a variable as the number or switch that it stands for; as it is where it stands for none."""
    if not isinstance(option.type, click.types.BoolParamType | click.types.IntParamType | click.types.FloatParamType):
        return value
    try:
        return option.type_cast_value(context, value)
    except click.UsageError:
        return value
