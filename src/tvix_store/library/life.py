"""Life: whether a store is open, for everything that belongs to it."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from tvix_store.errors import ClosedError

P = ParamSpec("P")
T = TypeVar("T")


class Life:
    """The time in which a store is open. It warns where the store is thrown away open.

    `name` is the store's address. `close` closes the store itself; it is called once.
    """

    def __init__(self, name: str, close: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._close = close
        self.is_open = True

    def check(self) -> None:
        """Raise ClosedError after the end."""
        if not self.is_open:
            raise ClosedError(f"the store {self._name} is closed: use it inside of its `with` block, or before its close()")

    async def end(self) -> None:
        """Close the store, unless that was done."""
        if self.is_open:
            self.is_open = False
            await self._close()

    def guarded(self, inner: T) -> T:
        """A service, power or function that raises ClosedError after the end, and otherwise is `inner`."""
        guard: Any = partial(self._call, inner) if callable(inner) else _Guarded(self, inner)
        return guard  # type: ignore[no-any-return]

    async def stream(self, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """The items. A step after the end raises ClosedError."""
        try:
            self.check()
            async for item in items:
                yield item
                self.check()
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.check()
        result = function(*args, **kwargs)
        return self.stream(result) if isinstance(result, AsyncIterator) else result

    def __del__(self) -> None:
        if self.is_open:
            message = f"unclosed store {self._name}: open it in a `with` block, or call its close()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


class _Guarded:
    """An object whose methods raise ClosedError after the end."""

    __slots__ = ("_inner", "_life")

    def __init__(self, life: Life, inner: object) -> None:
        self._life = life
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return partial(self._life._call, value) if callable(value) else value  # noqa: SLF001 - it is a part of Life
