"""retrying: an offer that repeats calls which found a store unavailable."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from tvix_store.concurrency.closing import closing
from tvix_store.concurrency.replay import Replay
from tvix_store.errors import ClosedError, UnavailableError
from tvix_store.layers.around import Method, wrapped
from tvix_store.model.directory import Directory
from tvix_store.services.offer import Offer
from tvix_store.telemetry import meters

T = TypeVar("T")

_LEFT = ("staging", "removal", "collection")
"""Powers whose calls are not repeated: the second one would answer something else than the first."""
_ONCE = {Method("records", "exchange")}
_REPLAYED = 4 << 20
"""Bytes of a stream that are kept to be sent again: all directories of most trees, and most blobs."""
_EARNED = 0.1
"""Repetitions that a call earns which ends well."""


@dataclass(frozen=True, slots=True)
class RetryTerms:
    """How often, and for how long, calls are repeated.

    tries: The calls, with the first one.
    first_pause: Seconds before the second call, at most; each further pause is up to twice as long. It is drawn at random.
    longest_pause: Seconds of the longest pause.
    total: Seconds from the first call after which none is begun.
    budget: How many calls may be repeated in a row without success, of all callers together. A store that is down has peace then.
    """

    tries: int = 5
    first_pause: float = 0.1
    longest_pause: float = 5.0
    total: float = 30.0
    budget: int = 100


def retrying(offer: Offer, terms: RetryTerms | None = None) -> Offer:
    """The offer, where a call that ends with UnavailableError is made again, if that does no harm.

    Content is put under its digest, and path infos are merged, so to put twice does none. A stream that is put is sent again while
    no more than 4 MiB of it were read, or if it can be read anew. A stream that is read is begun again before its first item; that
    of a blob, or of path infos, goes on where it broke off. Stages, removals, collections and `RecordService.exchange` are not
    repeated.
    """
    return wrapped(offer, Retries(terms or RetryTerms()), leaves=_LEFT)


class Retries:
    """An Around that repeats. It has one budget for all."""

    def __init__(self, terms: RetryTerms) -> None:
        self._terms = terms
        self._left = float(terms.budget)

    async def call(self, method: Method, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if method in _ONCE:
            return await function(*args, **kwargs)
        return await self._repeated(method, lambda: function(*args, **kwargs))

    async def put(self, method: Method, function: Callable[..., Any], data: AsyncIterable[Any], *args: Any, **kwargs: Any) -> Any:
        source = Replay(data, _REPLAYED, _size)

        async def attempt() -> Any:
            async with aclosing(source.items()) as items:
                return await function(items, *args, **kwargs)

        return await self._repeated(method, attempt, lambda: source.can_repeat)

    async def stream(self, method: Method, function: Callable[..., Any], *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        tries = _Tries(self, method)
        rest = _Rest(method, args, kwargs)
        while True:
            try:
                async with closing(function(*rest.args, **rest.kwargs)) as items:
                    async for item in items:
                        if tries.failures:
                            tries.end()
                        rest.passed(item)
                        yield item
                self.earn()
                return
            except UnavailableError as error:
                await tries.after(error, may_repeat=rest.can_go_on)

    async def _repeated(
        self, method: Method, attempt: Callable[[], Awaitable[T]], may_repeat: Callable[[], bool] = lambda: True
    ) -> T:
        tries = _Tries(self, method)
        while True:
            try:
                result = await attempt()
            except UnavailableError as error:
                await tries.after(error, may_repeat=may_repeat())
            else:
                self.earn()
                return result

    def earn(self) -> None:
        """A call has ended well."""
        self._left = min(self._left + _EARNED, self._terms.budget)

    def spend(self) -> bool:
        """Whether a call may be repeated."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    @property
    def terms(self) -> RetryTerms:
        return self._terms


class _Tries:
    """The tries of one call."""

    def __init__(self, retries: Retries, method: Method) -> None:
        self._retries = retries
        self._method = method
        self._clock = asyncio.get_running_loop().time
        self._begun = self._clock()
        self.failures = 0

    def end(self) -> None:
        """The store has answered again: what comes now has tries of its own."""
        self.failures = 0
        self._begun = self._clock()

    async def after(self, error: UnavailableError, *, may_repeat: bool) -> None:
        """Wait until the next try, or raise the error where there is none."""
        terms = self._retries.terms
        self.failures += 1
        pause = random.uniform(0, min(terms.first_pause * 2 ** (self.failures - 1), terms.longest_pause))  # noqa: S311
        is_late = self._clock() + pause - self._begun > terms.total
        if isinstance(error, ClosedError) or not may_repeat or self.failures >= terms.tries or is_late or not self._retries.spend():
            raise error
        meters.RETRIES.of(*self._method).add()
        await asyncio.sleep(pause)


class _Rest:
    """The arguments for the rest of a stream, of which a part has passed."""

    def __init__(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = dict(kwargs)
        self._method = method
        self._has_begun = False
        if method == ("blobs", "read"):
            names = ("digest", "start", "stop")
            self.kwargs = {"start": 0, "stop": None} | dict(zip(names, args, strict=False)) | kwargs
            self.args = ()
        elif method == ("path_infos", "list"):
            self.args = ()
            self.kwargs = dict(zip(("after",), args, strict=False)) | kwargs

    @property
    def can_go_on(self) -> bool:
        """Whether the rest can be read, without what has passed."""
        return not self._has_begun or self._method in (("blobs", "read"), ("path_infos", "list"))

    def passed(self, item: Any) -> None:
        """An item has passed."""
        self._has_begun = True
        if self._method == ("blobs", "read"):
            self.kwargs["start"] += len(item)
        elif self._method == ("path_infos", "list"):
            self.kwargs["after"] = item.store_path.output_hash


def _size(item: Any) -> int:
    return len(item.encoded) if isinstance(item, Directory) else len(item)
