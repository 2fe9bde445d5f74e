"""Reading a directory size rule from what a user writes."""

from __future__ import annotations

from tvix_store.model.directory import SizeRule


def read_size_rule(text: str) -> SizeRule:
    """`documented` or `snix`; ValueError for anything else."""
    for rule in SizeRule:
        if rule.name.lower() == text:
            return rule
    raise ValueError(text)
