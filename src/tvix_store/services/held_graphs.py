"""HeldGraphs: the directories that wait in memory until their graph is known to be right, and how many these may be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvix_store.errors import ExhaustedError
from tvix_store.model.directory import Directory

MAX_GRAPH = 128 << 20
"""Bytes that the directories of one put may take."""
MAX_GRAPHS = 256 << 20
"""Bytes that the directories of all puts into a store may take."""
OVERHEAD = 500
"""Bytes that a directory takes beside its encoding, measured with 200,000 of 12 bytes."""


class HeldGraphs:
    """All graphs that are being put into one store."""

    def __init__(self) -> None:
        self._size = 0

    @contextmanager
    def graph(self) -> Iterator[HeldGraph]:
        """A graph, as long as it is held."""
        graph = HeldGraph(self)
        try:
            yield graph
        finally:
            self._size -= graph.size

    def grow(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            ExhaustedError: all graphs together take too many.
        """
        self._size += size
        if self._size > MAX_GRAPHS:
            raise ExhaustedError(f"the graphs that are being put take more than {MAX_GRAPHS} bytes; try again later")


class HeldGraph:
    """One of them. `size` is what it takes (bytes)."""

    def __init__(self, all_graphs: HeldGraphs) -> None:
        self._all = all_graphs
        self.size = 0

    def add(self, directory: Directory) -> None:
        """Hold one more directory.

        Raises:
            ExhaustedError: the graph, or all graphs together, take too many bytes.
        """
        size = len(directory.encoded) + OVERHEAD
        self.size += size
        self._all.grow(size)
        if self.size > MAX_GRAPH:
            raise ExhaustedError(f"a graph of directories may take {MAX_GRAPH} bytes; put fewer at a time")
