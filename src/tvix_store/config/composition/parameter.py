"""Parameter: how the value of a key in a composition is read. The readers of the kinds of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Any

from tvix_store.errors import InvalidError
from tvix_store.model.address import Address
from tvix_store.model.byte_size import read_bytes
from tvix_store.services.offer import Service

_METADATA = "parameter"
_MOST_SHOWN = 60
"""Characters of a wrong value in a message."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One key of a type.

    what: The noun of its values, for messages: `a size, as in 50G`.
    read: Makes the value of what TOML has. It raises ValueError for a value that it refuses, or InvalidError to say more.
    also: Other names of the key, which snix has or had.
    secret: Whether nobody is shown the value.
    is_reference: Whether the value is another instance. It is read as a text.
    refers_to: The service that a reference is to; None is the one in which it stands.
    otherwise: The text of a reference that is not there.
    """

    what: str
    read: Callable[[object], object]
    also: tuple[str, ...] = ()
    secret: bool = False
    is_reference: bool = False
    refers_to: Service | None = None
    otherwise: str | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """What values are, and how they are read."""

    what: str
    read: Callable[[object], object]


def parameter(kind: Kind, *, also: tuple[str, ...] = (), secret: bool = False) -> dict[str, Parameter]:
    """The metadata of a field that is a key of a type. If the field has no default, the key must be there."""
    return {_METADATA: Parameter(kind.what, kind.read, also, secret)}


def reference(service: Service | None = None, *, otherwise: str | None = None) -> dict[str, Parameter]:
    """The metadata of a field that is another instance, a `Node`: of a service, if not of the one in which it stands.

    `otherwise` is the text that counts where the key is not there.
    """
    return {_METADATA: replace(_REFERENCE, refers_to=service, otherwise=otherwise)}


def parameters(terms: type[Any] | object) -> dict[str, tuple[Parameter, Field[Any]]]:
    """The keys of a type, in the order in which it has them."""
    found = {each.name: (each.metadata.get(_METADATA), each) for each in fields(terms)}  # type: ignore[arg-type]  # a dataclass
    return {name: (made, each) for name, (made, each) in found.items() if made is not None}


def read_value(made: Parameter, value: object) -> object:
    """The value of a key.

    Raises:
        InvalidError: it is refused. The message does not name the key.
    """
    shown = "***" if made.secret else shortened(value)
    try:
        return made.read(value)
    except (ValueError, KeyError, TypeError):
        raise InvalidError(f"not {made.what}: {shown}") from None
    except InvalidError as error:
        raise InvalidError(f"not {made.what}" if made.secret else str(error)) from None


def shortened(value: object) -> str:
    """A value for messages, as TOML writes texts."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            # As JSON and TOML: in double quotes.
            from json import dumps

            text = dumps(value, ensure_ascii=False)
        case Mapping():
            return "a table"
        case list() | tuple():
            return "a list"
        case _:
            text = str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(value)
    return value


def _address(value: object) -> str:
    text = _text(value)
    Address.parse(text)
    return text


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(value)
    return value


def _size(value: object) -> int:
    if type(value) is int and value >= 0:
        return value
    try:
        return read_bytes(_text(value))
    except InvalidError:
        raise ValueError(value) from None


def _span(value: object) -> str:
    from tvix_store.model.time_span import read_span

    read_span(_text(value))
    return _text(value)


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError(value)
    return float(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)  # noqa: TRY004 - as for other values
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(value)  # noqa: TRY004 - as for other values
    return tuple(map(_text, value))


def _keys(value: object) -> tuple[str, ...]:
    from tvix_store.model.signature import PublicKey

    texts = tuple(_text(value).split()) if isinstance(value, str) else _texts(value)
    for each in texts:
        PublicKey.parse(each)
    return texts


def _options(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise ValueError(value)  # noqa: TRY004 - as for other values
    plain = {name: str(each).lower() if isinstance(each, bool) else str(each) for name, each in value.items()}
    if not all(isinstance(each, str | int | float) for each in value.values()):
        raise ValueError(value)
    return tuple(sorted(plain.items()))


def choice(*words: str) -> Kind:
    """One of some words."""

    def read(value: object) -> str:
        if value not in words:
            raise ValueError(value)
        return str(value)

    return Kind(" or ".join(words), read)


TEXT = Kind("a text", _text)
PATH = Kind("a path", _text)
ADDRESS = Kind("an address", _address)
NUMBER = Kind("a number", _number)
COUNT = Kind("a number of at least 1", _count)
SIZE = Kind("a size", _size)
"""Bytes: a number, or a text as `50G`."""
SECONDS = Kind("a number of seconds", _seconds)
SPAN = Kind("a span of time", _span)
SWITCH = Kind("true or false", _switch)
TEXTS = Kind("a list of texts", _texts)
PUBLIC_KEYS = Kind("a list of public keys", _keys)
OPTIONS = Kind("a table of texts", _options)
_REFERENCE = Parameter("a name, as &NAME, or an address", _text, is_reference=True)
