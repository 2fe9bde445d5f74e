"""observed: an offer that counts its calls, their bytes, their time, and their errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

from tvix_store.concurrency.closing import closing
from tvix_store.layers.around import Method, wrapped
from tvix_store.model.directory import Directory
from tvix_store.services.offer import Offer
from tvix_store.telemetry import meters

_OK, _LEFT = "ok", "left"
"""Outcomes, beside the kinds of errors. `left`: the caller went away before the end."""


def _sizes(items: Iterable[bytes | None]) -> int:
    return sum(len(item) for item in items if item is not None)


def _stored(chunks: Iterable[Any]) -> int:
    return sum(len(chunk.stored) for chunk in chunks)


_OF_RESULT: Mapping[Method, Callable[[Any], int]] = {
    Method("blobs", "get_many"): _sizes,
    Method("granular", "get_chunks"): _stored,
}
"""How many bytes a result has, and
_OF_ARGUMENT: how many the first argument has. Bytes of other calls are not counted."""
_OF_ARGUMENT: Mapping[Method, Callable[[Any], int]] = {
    Method("blobs", "put_many"): _sizes,
    Method("granular", "put_chunks"): _stored,
}


def observed(offer: Offer, name: str) -> Offer:
    """The offer, counted under `name`, as the label `store` of the meters. Each name takes some hundred series."""
    return wrapped(offer, _Observing(name))


class _Observing:
    """An Around that counts."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def call(self, method: Method, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._observed(method) as count:
            result = await function(*args, **kwargs)
            if method in _OF_RESULT:
                count(_OF_RESULT[method](result))
            elif method in _OF_ARGUMENT:
                count(_OF_ARGUMENT[method](args[0]))
        return result

    async def put(self, method: Method, function: Callable[..., Any], data: AsyncIterable[Any], *args: Any, **kwargs: Any) -> Any:
        with self._observed(method) as count:

            async def counted() -> AsyncIterator[Any]:
                async for item in data:
                    count(_size(item))
                    yield item

            return await function(counted(), *args, **kwargs)

    async def stream(self, method: Method, function: Callable[..., Any], *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        with self._observed(method) as count:
            async with closing(function(*args, **kwargs)) as items:
                async for item in items:
                    count(_size(item))
                    yield item

    @contextmanager
    def _observed(self, method: Method) -> Generator[Callable[[int], None], None, None]:
        """Count what is done within; what it gives counts bytes."""
        begun = monotonic()
        outcome = _OK
        size = 0

        def count(more: int) -> None:
            nonlocal size
            size += more

        try:
            yield count
        except (asyncio.CancelledError, GeneratorExit):
            outcome = _LEFT
            raise
        except Exception as error:
            outcome = error_kind(type(error))
            raise
        finally:
            meters.SERVICE_CALLS.of(self._name, *method, outcome).add()
            meters.SERVICE_SECONDS.of(self._name, *method).observe(monotonic() - begun)
            if size:
                meters.SERVICE_BYTES.of(self._name, *method).add(size)


def error_kind(kind: type[Exception]) -> str:
    """The name of an error as a value of a label, such as `not-found` for NotFoundError."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__.removesuffix("Error")).lower()


def _size(item: Any) -> int:
    """Bytes of a piece, or of a directory. Other items count nothing."""
    if isinstance(item, Directory):
        return len(item.encoded)
    return len(item) if isinstance(item, bytes | bytearray | memoryview) else 0
