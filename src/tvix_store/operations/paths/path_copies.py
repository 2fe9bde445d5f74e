"""PathCopies: brings store paths into a store or a cache, whatever they come from.

Contents come in any order, several paths at a time. Path infos are put in the order of the references. So a recorded path is
complete with its closure, whatever stops a copy. A copy that is repeated brings only paths that are not recorded.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from typing import Generic, Protocol, TypeVar

from tvix_store.concurrency.coalesced import Coalesced
from tvix_store.errors import (
    ConflictError,
    CorruptError,
    DeniedError,
    ExhaustedError,
    IncompleteError,
    InvalidError,
    NotFoundError,
    StoreError,
)
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import NarFacts
from tvix_store.model.store_path import StorePath
from tvix_store.operations.trees.path_name import PathName
from tvix_store.services.batches import parts

OF_A_PATH = (ConflictError, CorruptError, DeniedError, IncompleteError, InvalidError, NotFoundError)
"""Errors that leave hope for other paths."""
MAX_CLOSURE = 500_000
"""Paths of a closure and their references, each counted: 200 to 500 bytes of memory each. A system has up to 100,000."""
_ASKED_AT_ONCE = 1000
"""Paths about which the store is asked in one call."""
_TOGETHER = 256
"""Paths that are recorded in one call: half a second's work for a server that reads their contents."""
_UNDER_WAY = 2000
"""Paths that have begun, and wait for a free place or for their references."""


class Status(Enum):
    """The outcome for a path."""

    COPIED = "copied"
    KNOWN = "known"
    FAILED = "failed"
    LEFT_OUT = "left out"
    """Its content is stored, but one of its references failed, or was left out."""


class NothingTakenError(Exception):
    """The target takes nothing from us, so this error ends the copy, though it is one of OF_A_PATH."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Copied:
    """The outcome for a path. `error` says why it is not recorded."""

    store_path: StorePath
    status: Status
    error: StoreError | None = None

    @property
    def recorded(self) -> bool:
        return self.error is None


class Stated(Protocol):
    """What a source says of a path."""

    @property
    def store_path(self) -> StorePath: ...
    @property
    def references(self) -> Sequence[StorePath]: ...
    @property
    def nar(self) -> NarFacts: ...


S = TypeVar("S", bound=Stated)
R = TypeVar("R", bound=Stated)
C_contra = TypeVar("C_contra", bound=Stated, contravariant=True)


class Records(Protocol[R]):
    """Where the paths are recorded, by output hash: the path infos of a store, or the narinfos of a cache."""

    async def get_many(self, output_hashes: Sequence[bytes], /) -> dict[bytes, R]:
        """What is recorded of these paths."""
        ...

    async def existing(self, output_hashes: Sequence[bytes], /) -> dict[bytes, StorePath]:
        """The recorded ones of these paths."""
        ...

    async def put(self, record: R, /) -> object:
        """Record a path, or add to its record. What it needs is there."""
        ...


class RecordsTogether(Protocol[C_contra]):
    """Where paths can be recorded together with paths that they refer to."""

    async def put_many(self, records: Sequence[C_contra], /) -> Sequence[object]:
        """Record paths, each after those that it refers to."""
        ...


class PathCopies(ABC, Generic[S, R]):
    """Copies of many paths, each in a task that waits for those of its references.

    `jobs` paths are brought at a time. `source` names who states the paths, for messages. References that are `elsewhere` are not
    looked for. What can be recorded `together` need not wait until its references are recorded: they are sent before it.
    """

    def __init__(
        self,
        records: Records[R],
        source: str,
        jobs: int,
        elsewhere: Container[StorePath] = (),
        together: RecordsTogether[R] | None = None,
    ) -> None:
        self._records = records
        self._elsewhere = elsewhere
        self._source = source
        self._room = asyncio.Semaphore(jobs)
        self._tasks: dict[StorePath, asyncio.Task[Copied]] = {}
        # One call after the other: each takes what came after those in the call before it.
        self._together = Coalesced(together.put_many, most=_TOGETHER, at_once=1) if together else None
        self._sent: dict[StorePath, asyncio.Future[bool]] = {}
        """Whether a path is recorded, or waits in `_together` for its turn. False: who refers to it waits for its task."""

    @abstractmethod
    async def bring(self, stated: S) -> R:
        """Store the content of a path, and make sure that it is what `stated` says. Return what to record.

        Raises:
            StoreError: one of OF_A_PATH is the fault of this path; any other one ends the copy.
            NothingTakenError: its error ends the copy.
        """

    async def merged(self, known: R, stated: S) -> R:
        """What to record of a path that is there with the same NAR.

        Raises:
            StoreError: as `bring`.
        """
        return known

    async def record(self, record: R) -> None:
        """Record a path, or add to its record.

        Raises:
            StoreError: as `bring`.
        """
        await self._records.put(record)

    async def run(self, paths: Iterable[S]) -> AsyncGenerator[Copied, None]:
        """Copy `paths`, and yield the outcome of each, references first.

        An error of one path keeps this path, and all that refer to it, from being recorded; the others are copied.

        Raises:
            InvalidError: the references go round in a circle.
            ExhaustedError, UnavailableError, UnsupportedError: the store cannot take them, or the source cannot give them.
        """
        by_path = {each.store_path: each for each in paths}
        order = _references_first(by_path)
        running: deque[asyncio.Task[Copied]] = deque()
        try:
            for at in range(0, len(order), _ASKED_AT_ONCE):
                some = order[at : at + _ASKED_AT_ONCE]
                known = await self._records.get_many([path.output_hash for path in some])
                for path in some:
                    self._sent[path] = asyncio.get_running_loop().create_future()
                    task = asyncio.create_task(self._copy(by_path[path], known.get(path.output_hash)))
                    self._tasks[path] = task
                    running.append(task)
                while len(running) > _UNDER_WAY:
                    yield await running.popleft()
            while running:
                yield await running.popleft()
        except NothingTakenError as refusal:
            raise refusal.error from None
        finally:
            await self._stop()

    async def _stop(self) -> None:
        """Leave nothing running, whatever happened."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._together is not None:
            await self._together.close()

    async def _copy(self, stated: S, known: R | None) -> Copied:
        path = stated.store_path
        try:
            if known is None:
                async with self._room:
                    record = await self.bring(stated)
                if await self._recorded_together(stated, record):
                    return Copied(path, Status.COPIED)
                missing = await self._missing_reference(stated)
                if missing is not None:
                    return missing
            else:
                self._check_same(known, stated)
                self._sent[path].set_result(True)
                record = await self.merged(known, stated)
            if record is not known:
                await self.record(record)
        except OF_A_PATH as error:
            return Copied(path, Status.FAILED, error)
        finally:
            if not self._sent[path].done():
                self._sent[path].set_result(False)
        return Copied(path, Status.KNOWN if known else Status.COPIED)

    def _check_same(self, known: R, stated: S) -> None:
        if known.store_path != stated.store_path or known.nar != stated.nar:
            raise ConflictError(
                f"{stated.store_path} is in the store with NAR hash {_shown(known.nar)}, "
                f"but {self._source} says {_shown(stated.nar)}; it is not overwritten"
            )

    async def _recorded_together(self, stated: S, record: R) -> bool:
        """Record a path in one call with others, or after them. False where that does not work: the path is then recorded when its
        references are, and whatever is wrong shows.
        """
        if self._together is None:
            return False
        for reference in stated.references:
            if reference != stated.store_path and reference not in self._elsewhere:
                sent = self._sent.get(reference)
                if sent is None or not await asyncio.shield(sent):
                    return False
        # Who waits for this goes on after the record is in the queue.
        self._sent[stated.store_path].set_result(True)
        try:
            await self._together([record])
        except OF_A_PATH:
            return False
        return True

    async def _missing_reference(self, stated: S) -> Copied | None:
        """Wait until all references are recorded. The outcome for the path if one cannot be, else None."""
        others: list[StorePath] = []
        for reference in stated.references:
            if reference == stated.store_path or reference in self._elsewhere:
                continue
            task = self._tasks.get(reference)
            if task is None:
                others.append(reference)
            # Shielded: it is not for one of its referrers to stop it.
            elif not (await asyncio.shield(task)).recorded:
                error = IncompleteError(f"{stated.store_path} is left out: it refers to {reference}, which is not copied")
                return Copied(stated.store_path, Status.LEFT_OUT, error)
        there = await self._records.existing([reference.output_hash for reference in others]) if others else {}
        for reference in others:
            if there.get(reference.output_hash) != reference:
                raise IncompleteError(
                    f"{stated.store_path} is not copied: it refers to {reference}, "
                    "which is neither in the store nor among the paths to copy"
                )
        return None


async def stated_paths(
    ask: Callable[[Sequence[bytes]], Awaitable[Sequence[S]]],
    names: Sequence[str],
    *,
    store_dir: str,
    source: str,
    closure: bool,
) -> list[S]:
    """What `source` states of the store paths that `names` name; with their `closure`, also of all they refer to, directly or not.

    `ask` gets the output hashes of some paths. It leaves out those that are not there.

    Raises:
        InvalidError: a name is not a store path, its base name, or its hash.
        NotFoundError: `source` lacks a path, or has it under another name.
        ExhaustedError: the closure is too large.
    """
    named = [PathName.parse(name, store_dir) for name in names]
    wanted = {name.output_hash: name for name in named}
    found: dict[bytes, S] = {}
    count = 0
    while wanted:
        level: list[S] = []
        for some in parts(list(wanted.items()), _ASKED_AT_ONCE):
            told = await ask([output_hash for output_hash, _ in some])
            there = {each.store_path.output_hash: each for each in told}
            for output_hash, name in some:
                name.check(there[output_hash].store_path if output_hash in there else None, source)
                level.append(there[output_hash])
            count += sum(1 + len(each.references) for each in told)
            if closure and count > MAX_CLOSURE:  # a source may state new references without an end
                raise ExhaustedError(f"{source} states a closure of more than {MAX_CLOSURE} paths and references; name fewer paths")
        found |= {each.store_path.output_hash: each for each in level}
        references = {each for told in level for each in told.references} if closure else set()
        wanted = {
            each.output_hash: PathName(str(each), each.output_hash, None) for each in references if each.output_hash not in found
        }
    return list(found.values())


def check_nar(path: StorePath, true: NarFacts, stated: NarFacts, source: str, advice: str = "") -> None:
    """
    Raises:
        CorruptError: the NAR is not what `source` states.
    """
    if true != stated:
        raise CorruptError(f"{path} is not copied: its NAR hash is {_shown(true)}, but {source} says {_shown(stated)}{advice}")


def _references_first(paths: dict[StorePath, S]) -> list[StorePath]:
    graph = {path: {other for other in stated.references if other in paths and other != path} for path, stated in paths.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise InvalidError(f"references go round in a circle: {' '.join(map(str, error.args[1]))}") from None


def _shown(nar: NarFacts) -> str:
    return f"{NixHash('sha256', nar.sha256)} ({nar.size} bytes)"
