"""ImportThreads: the threads that imports share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class ImportThreads:
    """The threads of one import after the other: one reads, one hashes. They start when they are needed.

    Starting and stopping them takes longer than importing a small tree, and keeps the event loop waiting.
    """

    def __init__(self) -> None:
        self.reading = ThreadPoolExecutor(1, thread_name_prefix="tvix-store-reading")
        self.hashing = ThreadPoolExecutor(1, thread_name_prefix="tvix-store-hashing")

    def stop(self) -> None:
        """Wait for running work, and drop work that has not begun."""
        self.reading.shutdown(cancel_futures=True)
        self.hashing.shutdown(cancel_futures=True)
