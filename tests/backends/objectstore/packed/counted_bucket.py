"""A bucket that counts its requests, and lets some fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from obstore.store import MemoryStore, ObjectStore

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.errors import UnavailableError

Fault = Callable[[int, str], str | None]
"""From the number of a request (the first is 0) and its key: None, or "before" or "after" the server has done it."""


def no_fault(number: int, key: str) -> str | None:
    return None


class CountedBucket(Bucket):
    """A bucket in memory, or in `store`. `requests` has the folders of the keys of all requests, and listings."""

    def __init__(self, store: ObjectStore | None = None, fault: Fault = no_fault) -> None:
        self.store = store or MemoryStore()
        super().__init__(self.store, "counted")
        self.requests: list[str] = []
        self.fault = fault

    @asynccontextmanager
    async def _request(self, key: str, *passed: type[Exception]) -> AsyncIterator[None]:
        fails = self.fault(len(self.requests), key)
        self.requests.append(key.partition("/")[0] if "/" in key else f"list {key}")
        async with super()._request(key, *passed):
            if fails == "before":
                raise UnavailableError(f"{key}: the server was told to fail")
            yield
            if fails == "after":
                raise UnavailableError(f"{key}: the answer was lost")

    @property
    def counts(self) -> dict[str, int]:
        """Requests for each folder. The end of a listing is not one of its own, and pages here are not full."""
        counts = Counter(self.requests)
        return {what: (count + 1) // 2 if what.startswith("list ") else count for what, count in counts.items()}

    def forget(self) -> None:
        self.requests.clear()
