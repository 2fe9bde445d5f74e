"""Which paths stay because others need them, and in which order others go: for who removes paths."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from tvix_store.services.batches import parts

References: TypeAlias = Mapping[bytes, Sequence[bytes]]
"""Candidates, each with those that it refers to, by output hashes: some 250 bytes of memory each."""


def closure(references: References, found: Iterable[bytes]) -> set[bytes]:
    """The candidates among `found` paths, and all candidates that these refer to, directly or not."""
    found_all: set[bytes] = set()
    waiting = list(found)
    while waiting:
        each = waiting.pop()
        if each in references and each not in found_all:
            found_all.add(each)
            waiting += references[each]
    return found_all


def referrers_first(references: References) -> list[bytes]:
    """The candidates in an order in which each stands before those that it refers to. Those in a cycle are left out, and what
    these refer to."""
    referrers = dict.fromkeys(references, 0)
    for to in references.values():
        for each in to:
            if each in referrers:
                referrers[each] += 1
    waiting = deque(each for each, count in referrers.items() if not count)
    order: list[bytes] = []
    while waiting:
        order.append(each := waiting.popleft())
        for other in references[each]:
            if other in referrers:
                referrers[other] -= 1
                if not referrers[other]:
                    waiting.append(other)
    return order


def batches(references: References, most: int) -> list[Sequence[bytes]]:
    """The candidates, up to `most` at a time: each in no later batch than those that it refers to.

    The last batch has those in a cycle, and what these refer to. They can only go together.
    """
    order = referrers_first(references)
    rest = list(references.keys() - set(order)) if len(order) < len(references) else []
    return [*parts(order, most), *([rest] if rest else [])]


def waves(references: References) -> list[list[bytes]]:
    """The candidates in waves. Those that refer to one are in an earlier wave; the last wave has those in cycles, and what these
    refer to."""
    numbers: dict[bytes, int] = {}
    order = referrers_first(references)
    for each in order:
        number = numbers.setdefault(each, 0)
        for other in references[each]:
            if other in references:
                numbers[other] = max(numbers.get(other, 0), number + 1)
    found: list[list[bytes]] = [[] for _ in range(1 + max((numbers[each] for each in order), default=-1))]
    for each in order:
        found[numbers[each]].append(each)
    ordered = set(order)
    rest = [each for each in references if each not in ordered]
    return [*found, rest] if rest else found
