"""Named caches as users write them: in an option, or as a table in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from tvix_store.cli.credentials import SecretText
from tvix_store.cli.input import SecretPath
from tvix_store.cli.settings import TableType

_SWITCHES = ("private", "require_signatures")
_LISTS = ("signing_key_file", "trusted_public_keys", "substituters", "substituter_public_keys")


@dataclass(frozen=True, slots=True)
class NamedCacheOption:
    """A named cache. Settings that are not given are those of the daemon's options, but for keys and upstreams, which it lacks.

    signing_key_file: Files of the keys that sign its narinfos.
    quota: Bytes of the files that it may hold.
    retention: How long it keeps paths that nobody uses, as in `90d`.
    """

    name: str
    private: bool = False
    require_signatures: bool = False
    priority: int | None = None
    quota: int | None = None
    retention: str | None = None
    signing_key_file: tuple[str, ...] = ()
    trusted_public_keys: tuple[str, ...] = ()
    substituters: tuple[str, ...] = ()
    substituter_public_keys: tuple[str, ...] = ()

    @property
    def signing_key_files(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.signing_key_file))


class NamedCacheType(TableType["NamedCacheOption"]):
    """A named cache as words, `NAME private priority=30 signing-key-file=FILE`, or as a table with `name` and the same settings."""

    name = "cache"
    example = "team-a private priority=30"

    def made(self, value: str | Mapping[str, Any], param: click.Parameter | None, ctx: click.Context | None) -> NamedCacheOption:
        from tvix_store.model.cache_name import check_cache_name

        settings = _settings_in_words(value) if isinstance(value, str) else _settings(value)
        check_cache_name(settings["name"])
        keys, urls = settings.get("signing_key_file", ()), settings.get("substituters", ())
        # As in the options of the daemon, `credential:NAME` stands for what systemd hands over.
        settings["signing_key_file"] = tuple(str(SecretPath().convert(each, param, ctx)) for each in keys)
        settings["substituters"] = tuple(word for each in urls for word in SecretText().convert(each, param, ctx).split())
        return NamedCacheOption(**settings)


def _settings_in_words(text: str) -> dict[str, Any]:
    from tvix_store.errors import InvalidError

    name, *words = text.split() or [""]
    table: dict[str, Any] = {"name": name}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            table[key] = True
        elif key.replace("-", "_") in _LISTS:
            table[key] = [*table.get(key, []), value]
        elif key in table:
            raise InvalidError(f"cache {name}: {key} stands there twice")
        else:
            table[key] = value
    return _settings(table)


def _settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a table, checked. A number may be a text, as in words."""
    from tvix_store.errors import InvalidError

    who = f"cache {str(table['name'])[:80]}" if "name" in table else "a cache"
    known = [field.name for field in fields(NamedCacheOption)]
    settings: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise InvalidError(f"{who}: unknown setting {key!r} (known: {', '.join(each.replace('_', '-') for each in known)})")
        settings[name] = _read(f"{who}: {key}", name, value)
    if "name" not in settings:
        raise InvalidError("a cache needs a name")
    return settings


def _read(where: str, name: str, value: Any) -> Any:
    from tvix_store.errors import InvalidError
    from tvix_store.model.byte_size import read_bytes
    from tvix_store.model.time_span import read_span
    from tvix_store.services.removal import HOUR

    if name in _SWITCHES:
        if isinstance(value, bool):
            return value
        raise InvalidError(f"{where} is true or false; as a word it stands alone")
    if name in _LISTS:
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, Sequence) and all(isinstance(each, str) for each in texts):
            return tuple(word for each in texts for word in ([each] if name == "signing_key_file" else each.split()))
        raise InvalidError(f"{where} is a list of texts")
    if name == "priority":
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            return int(value)
        raise InvalidError(f"{where} is a number that is not negative")
    if name == "quota" and not isinstance(value, bool):
        return read_bytes(str(value))
    if name == "retention" and read_span(str(value)) < HOUR:
        raise InvalidError(f"{where}: the least is an hour")
    if isinstance(value, str):
        return value
    raise InvalidError(f"{where} is a text")
