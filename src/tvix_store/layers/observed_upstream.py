"""ObservedUpstream: counts the questions to an upstream, what comes of them, and how long they take."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from time import monotonic

from tvix_store.model.narinfo import NarInfo
from tvix_store.services.store import Store
from tvix_store.services.upstream import Upstream, UpstreamDownError, UpstreamLacksError, UpstreamLiesError
from tvix_store.telemetry import meters, spans

_FOUND, _ABSENT, _FAILED, _REFUSED, _LEFT = "found", "absent", "failed", "refused", "left"
"""Outcomes of a question. `left`: who asked went away before the end."""


class ObservedUpstream:
    """An Upstream that passes everything on to another."""

    def __init__(self, inner: Upstream) -> None:
        self._inner = inner
        self.name = inner.name

    async def priority(self) -> int:
        return await self._inner.priority()

    async def narinfo(self, output_hash: bytes) -> NarInfo | None:
        with self._asking("narinfo") as question:
            narinfo = await self._inner.narinfo(output_hash)
            question.outcome = _ABSENT if narinfo is None else _FOUND
        return narinfo

    async def content(self) -> Store | None:
        return await self._inner.content()

    async def nar_file(self, narinfo: NarInfo) -> AsyncGenerator[bytes, None]:
        came = meters.UPSTREAM_NAR_BYTES.of(self.name)
        with self._asking("nar") as question:
            async with aclosing(self._inner.nar_file(narinfo)) as pieces:
                async for piece in pieces:
                    came.add(len(piece))
                    yield piece
            question.outcome = _FOUND

    async def document(self, path: str, most: int) -> bytes | None:
        with self._asking("document") as question:
            document = await self._inner.document(path, most)
            question.outcome = _ABSENT if document is None else _FOUND
        return document

    async def stream(self, path: str, most: int) -> AsyncGenerator[bytes, None]:
        with self._asking("document") as question:
            async with aclosing(self._inner.stream(path, most)) as pieces:
                async for piece in pieces:
                    yield piece
            question.outcome = _FOUND

    async def close(self) -> None:
        await self._inner.close()

    @contextmanager
    def _asking(self, kind: str) -> Generator[_Question, None, None]:
        question, begun = _Question(), monotonic()
        span = spans.begin(f"upstream {kind}", self.name)
        try:
            yield question
        except UpstreamLacksError:
            question.outcome = _ABSENT
            raise
        except UpstreamLiesError:
            question.outcome = _REFUSED
            raise
        except UpstreamDownError:
            question.outcome = _FAILED
            raise
        finally:
            span.end(question.outcome)
            meters.UPSTREAM_REQUESTS.of(self.name, kind, question.outcome).add()
            meters.UPSTREAM_SECONDS.of(self.name, kind).observe(monotonic() - begun)


class _Question:
    outcome = _LEFT
