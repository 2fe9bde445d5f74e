"""Graphs of instances, at random: right ones are opened and closed once each; cycles and unknown names are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.config import counted_types
from tvix_store.config import open_store
from tvix_store.config.composition import types
from tvix_store.config.composition.reading import CompositionError

Graph: TypeAlias = dict[str, str | tuple[str, str]]
"""Each name is a source with a label, or a pair of the names to which it refers."""
_NAMES = ["root", "a", "b", "c", "d", "e"]


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, attribute in (("source", "Source"), ("pair", "Pair")):
        monkeypatch.setitem(types.TYPES, name, (counted_types.__name__, attribute))
    yield
    counted_types.opened.clear()
    counted_types.closed.clear()


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = _NAMES[: draw(st.integers(1, len(_NAMES)))]
    anything = draw(st.booleans())
    graph: Graph = {}
    for number, name in enumerate(names):
        others = [*names, "nobody"] if anything else names[number + 1 :]
        source = st.sampled_from(["x", "y"])
        graph[name] = draw(source | st.tuples(st.sampled_from(others), st.sampled_from(others)) if others else source)
    return graph


def _is_right(graph: Graph) -> bool:
    references = {name: set(node) if isinstance(node, tuple) else set() for name, node in graph.items()}
    if any(each not in graph for referred in references.values() for each in referred):
        return False
    try:
        TopologicalSorter(references).prepare()
    except CycleError:
        return False
    return True


def _distinct(graph: Graph) -> int:
    """How many different instances the root is made of: two of the same values and references are one."""
    found = set()

    def unfolded(name: str) -> object:
        node = graph[name]
        made = tuple(map(unfolded, node)) if isinstance(node, tuple) else node
        found.add(made)
        return made

    unfolded("root")
    return len(found)


def _tables(graph: Graph) -> dict[str, object]:
    table: dict[str, object] = {}
    for name, node in graph.items():
        pair = isinstance(node, tuple)
        table[name] = {"type": "pair", "near": f"&{node[0]}", "far": node[1]} if pair else {"type": "source", "label": node}
    return dict.fromkeys(("blobservices", "directoryservices", "pathinfoservices"), table)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graphs())
def test_each_instance_is_opened_and_closed_once_or_the_graph_is_refused(graph: Graph) -> None:
    counted_types.opened.clear()
    counted_types.closed.clear()

    async def use() -> None:
        async with await open_store(composition=_tables(graph)) as store:
            assert len(counted_types.opened) == _distinct(graph)
            assert counted_types.closed == []
            # The services of all kinds come from one instance, which has its powers therefore.
            assert store.staging is not None

    if _is_right(graph):
        asyncio.run(use())
        assert counted_types.closed == counted_types.opened[::-1]
    else:
        with pytest.raises(CompositionError, match=r"a cycle|there is no \[.*nobody\]"):
            asyncio.run(use())
        assert counted_types.opened == []


def test_what_was_open_is_closed_where_a_later_part_fails() -> None:
    for failing in ("pathinfoservices", "directoryservices", "blobservices"):
        table = _tables({"root": "x"}) | {failing: {"root": "local:///dev/null/store"}}
        with pytest.raises(Exception, match="dev/null"):
            asyncio.run(_opened(table))
        assert counted_types.closed == counted_types.opened[::-1]


async def _opened(table: dict[str, object]) -> None:
    async with await open_store(composition=table):
        pass
