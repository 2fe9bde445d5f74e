"""What a function wants: whoever gives it something else is told so, in a line."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from tvix_store.errors import InvalidError

if TYPE_CHECKING:
    from tvix_store.model.file_path import StrPath

T = TypeVar("T")
_SHOWN = 120
"""Characters of a value."""


def wanted(value: object, kind: type[T] | tuple[type[T], ...], what: str) -> T:
    """`value`, which is of a `kind`: `what` names it, with an article, and says how to get one.

    Raises:
        InvalidError: it is of another one.
    """
    if not isinstance(value, kind):
        raise _unwanted(value, what)
    return value


def wanted_text(value: str) -> str:
    """The argument of a `parse`.

    Raises:
        InvalidError: it is no text.
    """
    return wanted(value, str, "a text")


def wanted_path(value: StrPath, what: str = "a path in the file system, as a text or a pathlib.Path") -> StrPath:
    """A text or a path.

    Raises:
        InvalidError: it is neither.
    """
    if not isinstance(value, str | os.PathLike):
        raise _unwanted(value, what)
    return value


def wanted_many(values: Iterable[T], what: str) -> Iterable[T]:
    """`values`, of which there may be many: an iterable, but no text and no bytes, which Python takes for many characters.

    Raises:
        InvalidError: it is none.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise _unwanted(values, what)
    return values


def wanted_with(value: Any, methods: Iterable[str], what: str) -> None:
    """Check that `value`, of whatever class, has the `methods` of `what`.

    Raises:
        InvalidError: it has not.
    """
    for name in methods:
        if not hasattr(value, name):
            raise _unwanted(value, what)


def _unwanted(value: object, what: str) -> InvalidError:
    shown = " ".join(repr(value).split())
    return InvalidError(f"expected {what}, not {shown[:_SHOWN]}{'…' if len(shown) > _SHOWN else ''}")
