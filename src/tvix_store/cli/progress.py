"""A progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, TypeVar

from tvix_store.cli.invocation import Invocation

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")


class Bar:
    """Takes progress; this one shows nothing."""

    visible = False

    def add(self, files: int, size: int) -> None:
        """So many more files, and bytes of them, are done."""

    def expect(self, size: int) -> None:
        """So many bytes are to be done in all."""


class _VisibleBar(Bar):
    visible = True

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._files = 0

    def add(self, files: int, size: int) -> None:
        self._files += files
        self._progress.update(self._task, advance=size, files=self._files)

    def expect(self, size: int) -> None:
        self._progress.update(self._task, total=size)


@contextmanager
def progress_bar(invocation: Invocation, label: str, size: int | None = None, *, counted: str = "files") -> Iterator[Bar]:
    """A bar with the rate and the remaining time, gone at the end. `size` is the expected total (bytes), where it is known.

    `counted` names the things that `Bar.add` counts.
    """
    if invocation.quiet or not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn(f"{{task.fields[files]}} {counted}"),
    )
    # Standard output is left alone: it may be something else than the terminal.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        yield _VisibleBar(progress, progress.add_task(escape(label), total=size, files=0))


@contextmanager
def step_bar(invocation: Invocation) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar for work of several steps, gone at the end: called in any thread with the step, how much is done, and of how much."""
    if invocation.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task("", total=None)

        def tell(step: str, done: int, total: int) -> None:
            if step:
                progress.update(task, description=step, completed=done, total=total)

        yield tell


async def behind_bar(
    invocation: Invocation,
    label: str,
    values: Callable[[Bar], AsyncGenerator[T, None]],
    size: int | None = None,
    *,
    counted: str = "files",
) -> AsyncGenerator[T, None]:
    """The items of `values`, which moves a bar. Where the bar is seen, all comes when it is gone: printing would go into it."""
    held: list[T] = []
    with progress_bar(invocation, label, size, counted=counted) as bar:
        async with aclosing(values(bar)) as given:
            async for each in given:
                if bar.visible:
                    held.append(each)
                else:
                    yield each
    for each in held:
        yield each
