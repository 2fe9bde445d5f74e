"""AtomicTarget: a file or tree on disk that appears under its name only when it is complete."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from tvix_store.errors import ConflictError, InvalidError, of_disk
from tvix_store.operations.trees.open_directory import remove_tree

P = ParamSpec("P")
T = TypeVar("T")


class AtomicTarget:
    """Something that is built at `path`, beside `target`, and moved to `target` at the end of an `async with` that went well.

    All work on the disk goes through `run`, into one thread. So steps stay in order, and the step of a cancelled caller is over
    before anything is removed. Nothing is synced: exported content is still in the store.

    Raises:
        ConflictError: `target` exists, at the begin or at the end; it is not touched.
        InvalidError: the directory that `target` is in does not exist.
        DeniedError, ExhaustedError: the disk does not let us, or is full.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        # Not named after the target, whose name may be as long as names may be.
        self.path = target.parent / f".tvix-store-{secrets.token_hex(8)}.partial"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="export")

    async def run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a step of the work in the target's thread."""

        def named() -> T:
            with self.errors():
                return step(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, named)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors of the operating system become ours, which name the target."""
        try:
            yield
        except OSError as error:
            raise of_disk(error, f"cannot write {self._target}: {error.strerror}", InvalidError) from error

    async def __aenter__(self) -> Self:
        if await self.run(os.path.lexists, self._target):
            raise _exists(self._target)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                await self.run(self._publish)
        finally:
            # Nothing is left to discard of what was published.
            await self.run(self._discard)
            self._thread.shutdown(wait=False)

    def _publish(self) -> None:
        if os.path.lexists(self._target):
            raise _exists(self._target)
        try:
            if self._is_directory():
                # Takes the place of an empty directory that appeared just now, and of nothing else.
                self.path.rename(self._target)
            else:
                self._publish_file()
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise _exists(self._target) from error
            raise

    def _publish_file(self) -> None:
        try:
            # Unlike `rename`, never takes another file's place.
            os.link(self.path, self._target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP}:
                raise
            self.path.rename(self._target)  # a file system without hard links

    def _discard(self) -> None:
        if self._is_directory():
            remove_tree(self.path)
        else:
            self.path.unlink(missing_ok=True)

    def _is_directory(self) -> bool:
        return not self.path.is_symlink() and self.path.is_dir()  # a target may be too long to be followed


def _exists(target: Path) -> ConflictError:
    return ConflictError(f"{target} exists; it is not overwritten")
