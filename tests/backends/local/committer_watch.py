"""Watching the committer of local stores, and letting their disk fill up."""

from __future__ import annotations

from typing import Any

import pytest

from tvix_store.backends.local.committer import Committer
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.errors import ExhaustedError


def watch_requests(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The requests to all committers from now on; the list grows."""
    asked: list[object] = []
    submit = Committer.submit

    def watched(self: Committer, request: Any) -> Any:
        asked.append(request)
        return submit(self, request)

    monkeypatch.setattr(Committer, "submit", watched)
    return asked


def fill_disk(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let the disk be full after some appends to packs."""
    append = PackWriter.append
    left = after

    def fills(self: PackWriter, records: list[object]) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise ExhaustedError("the disk is full")
        return append(self, records)  # type: ignore[arg-type]

    monkeypatch.setattr(PackWriter, "append", fills)
