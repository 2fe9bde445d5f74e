"""Facade: an object of the library, as a thread uses it that has no event loop, or a busy one.

A verb is written once, in the library. Here it gets a name, and keeps its parameters, also for type checkers: a coroutine becomes
a call (`Call`), and a stream an iterator (`Stream`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from tvix_store.sync.loop_thread import LoopThread

A = TypeVar("A")
B = TypeVar("B")
P = ParamSpec("P")
T = TypeVar("T")


class Facade(Generic[A]):
    """An object whose calls run on a loop in another thread. `inner` is the asynchronous object."""

    def __init__(self, inner: A, loop: LoopThread) -> None:
        self.inner = inner
        self.loop = loop

    def __repr__(self) -> str:
        return repr(self.inner)


class Call(Generic[P, T]):
    """The method of a facade that waits for a coroutine method of the object behind it."""

    def __init__(self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, facade: None, owner: type) -> Self: ...
    @overload
    def __get__(self, facade: Facade[Any], owner: type) -> Callable[P, T]: ...
    def __get__(self, facade: Facade[Any] | None, owner: type) -> Self | Callable[P, T]:
        if facade is None:
            return self
        return waiting(getattr(facade.inner, self._method.__name__), facade.loop)


class Stream(Generic[P, T]):
    """The method of a facade that iterates over a stream of the object behind it. The stream ends with the iterator."""

    def __init__(self, method: Callable[Concatenate[Any, P], AsyncIterator[T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, facade: None, owner: type) -> Self: ...
    @overload
    def __get__(self, facade: Facade[Any], owner: type) -> Callable[P, Generator[T, None, None]]: ...
    def __get__(self, facade: Facade[Any] | None, owner: type) -> Self | Callable[P, Generator[T, None, None]]:
        if facade is None:
            return self
        return iterating(getattr(facade.inner, self._method.__name__), facade.loop)


def waiting(function: Callable[P, Coroutine[Any, Any, T]], loop: LoopThread) -> Callable[P, T]:
    """A function that waits for a coroutine function on `loop`. Facades among its arguments stand for what is behind them."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return loop.run(function(*map(_behind, args), **{name: _behind(value) for name, value in kwargs.items()}))  # type: ignore[arg-type]

    return call


def iterating(function: Callable[P, AsyncIterator[T]], loop: LoopThread) -> Callable[P, Generator[T, None, None]]:
    """A function that iterates over a stream on `loop`, as `waiting`."""

    @wraps(function)
    def iterate(*args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        behind = {name: _behind(value) for name, value in kwargs.items()}
        return loop.iterate(partial(function, *map(_behind, args), **behind))  # type: ignore[arg-type]

    return iterate


def _behind(value: object) -> object:
    if isinstance(value, Facade):
        return value.inner
    # An iterator may call a store itself, which must not happen on the loop.
    return list(value) if isinstance(value, Iterator) and not hasattr(value, "read") else value
