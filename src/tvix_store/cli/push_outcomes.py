"""The outcomes of a push: printed, counted, and turned into an exit code."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import click

from tvix_store.cli.output import print_json
from tvix_store.cli.sizes import counted, human
from tvix_store.errors import StoreError
from tvix_store.operations.granular.account import Account
from tvix_store.operations.paths.pushed import Pushed, PushStatus


class PushOutcomes:
    """What became of the paths. Each failure is told as it comes; the first decides about the exit code.

    `account` and `began`, a time of the monotonic clock, are for the account at the end.
    """

    def __init__(self, account: Account, began: float, *, as_json: bool, quiet: bool) -> None:
        self._account = account
        self._began = began
        self._as_json = as_json
        self._quiet = quiet
        self._listed: list[dict[str, str]] = []
        self._counts: Counter[PushStatus] = Counter()
        self._code = 0

    def add(self, pushed: Pushed) -> None:
        """Take the next outcome. Print the path, if it is new at the target."""
        from tvix_store.cli.program import report

        self._counts[pushed.status] += 1
        if pushed.status is PushStatus.FAILED and pushed.error is not None:
            code = report(pushed.error)
            self._code = self._code or code
        if self._as_json:
            self._listed.append(_to_json(pushed))
        elif pushed.status is PushStatus.COPIED:
            print(pushed.path, flush=True)

    @contextmanager
    def told(self) -> Iterator[None]:
        """The account of what is added inside stands at the end, also where the push as a whole fails."""
        failure: StoreError | None = None
        try:
            yield
        except StoreError as error:
            failure = error
            raise
        finally:
            if self._as_json:
                told = {"paths": self._listed, "account": self._account_to_json()}
                print_json(told | ({"error": str(failure)} if failure is not None else {}))
            elif not self._quiet and (self._counts or failure is None):
                print(self._summary(), file=sys.stderr)

    def end(self) -> None:
        """Say how many paths were left out, and end the program where something failed."""
        if left_out := self._counts[PushStatus.LEFT_OUT]:
            print(f"tvix-store: {left_out} more paths refer to such paths, and are left out", file=sys.stderr)
        if self._code:
            raise click.exceptions.Exit(self._code)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _summary(self) -> str:
        counts, account = self._counts, self._account
        chunks = f" ({counted(account.chunks, 'chunk')})" if account.chunks else ""
        parts = [f"{counted(counts[PushStatus.COPIED], 'path')} pushed, {counts[PushStatus.KNOWN]} were there"]
        if counts[PushStatus.SKIPPED]:
            parts.append(f"{counts[PushStatus.SKIPPED]} left to upstreams")
        parts += [
            f"{human(account.logical)} in NARs",
            f"{human(account.sent)} sent{chunks}",
            f"{self._seconds:.1f} s",
        ]
        return "; ".join(parts)

    def _account_to_json(self) -> dict[str, object]:
        account = self._account
        return {
            **{status.value.replace(" ", "_"): self._counts[status] for status in PushStatus},
            "nar_bytes": account.logical,
            "sent_bytes": account.sent,
            "sent_chunks": account.chunks,
            "seconds": round(self._seconds, 3),
        }


def _to_json(pushed: Pushed) -> dict[str, str]:
    return {
        "path": pushed.path,
        "status": pushed.status.value,
        **({"reason": pushed.reason} if pushed.reason else {}),
        **({"error": str(pushed.error)} if pushed.error else {}),
    }
