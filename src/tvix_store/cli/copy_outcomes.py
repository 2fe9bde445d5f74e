"""The outcomes of a copy: printed, counted, and turned into an exit code."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tvix_store.errors import StoreError
    from tvix_store.operations.paths.path_copies import Copied


class Outcomes:
    """What became of the paths of a copy. Each failure is told as it comes; the first decides about the exit code.

    Without `keep_going`, the first failure ends the copy.
    """

    def __init__(self, *, keep_going: bool = True) -> None:
        self.copied = self.known = 0
        self._keep_going = keep_going
        self._left_out = 0
        self._code = 0

    async def noted(self, copies: AsyncIterator[Copied]) -> AsyncIterator[Copied]:
        """Pass `copies` on, and tell of those that failed."""
        from tvix_store.operations.paths.path_copies import Status

        async for each in copies:
            match each.status:
                case Status.COPIED:
                    self.copied += 1
                case Status.KNOWN:
                    self.known += 1
                case Status.LEFT_OUT:
                    self._left_out += 1
                case Status.FAILED:
                    assert each.error is not None
                    self.add(each.error)
            yield each
            if self._code and not self._keep_going:
                return

    async def printed(self, copies: AsyncIterator[Copied], store_dir: str) -> None:
        """Print the paths that are new, one a line."""
        from tvix_store.operations.paths.path_copies import Status

        async for each in self.noted(copies):
            if each.status is Status.COPIED:
                print(each.store_path.absolute(store_dir), flush=True)

    def add(self, error: StoreError) -> None:
        """Tell of a failure."""
        from tvix_store.cli.program import report

        code = report(error)
        self._code = self._code or code

    def end(self) -> None:
        """Say how many paths were left out, and end the program where something failed."""
        if self._left_out:
            print(f"tvix-store: {self._left_out} more paths refer to such paths, and are left out", file=sys.stderr)
        if self._code:
            raise click.exceptions.Exit(self._code)


def to_json(copied: Copied, store_dir: str) -> dict[str, object]:
    return {
        "path": copied.store_path.absolute(store_dir),
        "status": copied.status.value,
        **({"error": str(copied.error)} if copied.error else {}),
    }
