"""Directories that wait in memory: how many they may be, of one graph and of all."""

from __future__ import annotations

import pytest

from tvix_store.errors import ExhaustedError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.services import held_graphs
from tvix_store.services.held_graphs import OVERHEAD, HeldGraphs


def directory(size: int) -> Directory:
    return Directory.stored(Digest.of(b""), bytes(size - OVERHEAD))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_graphs, "MAX_GRAPH", 2000)
    monkeypatch.setattr(held_graphs, "MAX_GRAPHS", 3000)


def test_a_graph_has_a_bound() -> None:
    graphs = HeldGraphs()
    with graphs.graph() as graph:
        graph.add(directory(1000))
        graph.add(directory(1000))
        assert graph.size == 2000
        with pytest.raises(ExhaustedError, match="a graph of directories may take 2000 bytes; put fewer at a time"):
            graph.add(directory(500))


def test_all_graphs_have_a_bound_and_what_is_over_counts_no_more() -> None:
    graphs = HeldGraphs()
    for _ in range(2):
        with graphs.graph() as one:
            one.add(directory(2000))
            with (
                pytest.raises(ExhaustedError, match="the graphs that are being put take more than 3000 bytes; try again later"),
                graphs.graph() as other,
            ):
                other.add(directory(1001))
            with graphs.graph() as third:
                third.add(directory(1000))
