"""The verbs of the library, for synchronous stores. Each has the parameters of the asynchronous one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Sequence
from functools import wraps
from queue import SimpleQueue
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from tvix_store import config, library, services
from tvix_store.model.directory import SizeRule
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import PublicKey
from tvix_store.operations.export import export_tree as exporting
from tvix_store.operations.export import tar
from tvix_store.operations.granular.account import Account
from tvix_store.operations.ingest import import_tree as importing
from tvix_store.operations.nars import render
from tvix_store.operations.paths import copy
from tvix_store.operations.paths.path_copies import Copied
from tvix_store.operations.trees import read_file as reading
from tvix_store.operations.trees import resolve as resolving
from tvix_store.operations.trees import walk_path
from tvix_store.services.blobs import BlobService
from tvix_store.sync.facade import Facade, iterating, waiting
from tvix_store.sync.loop_thread import Jobs, LoopThread
from tvix_store.sync.store import Blobs, Data, Store, pulled

P = ParamSpec("P")
T = TypeVar("T")


def _opening(open_store: Callable[P, library.StoreOpening]) -> Callable[P, Store]:
    async def opened(*args: P.args, **kwargs: P.kwargs) -> library.Store:
        return await open_store(*args, **kwargs)

    @wraps(open_store)
    def opening(*args: P.args, **kwargs: P.kwargs) -> Store:
        loop = LoopThread.enter()
        try:
            return Store(loop.run(opened(*args, **kwargs)), loop)
        except BaseException:
            loop.leave()
            raise

    return opening


@overload
def _call(function: Callable[Concatenate[services.Store, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Store, P], T]: ...
@overload
def _call(function: Callable[Concatenate[BlobService, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Blobs, P], T]: ...
def _call(function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
    @wraps(function)
    def call(first: Facade[Any], *args: Any, **kwargs: Any) -> T:
        return waiting(function, first.loop)(first, *args, **kwargs)

    return call


@overload
def _stream(
    function: Callable[Concatenate[services.Store, P], AsyncIterator[T]],
) -> Callable[Concatenate[Store, P], Generator[T, None, None]]: ...
@overload
def _stream(
    function: Callable[Concatenate[BlobService, P], AsyncIterator[T]],
) -> Callable[Concatenate[Blobs, P], Generator[T, None, None]]: ...
def _stream(function: Callable[..., AsyncIterator[T]]) -> Callable[..., Generator[T, None, None]]:
    @wraps(function)
    def stream(first: Facade[Any], *args: Any, **kwargs: Any) -> Generator[T, None, None]:
        return iterating(function, first.loop)(first, *args, **kwargs)

    return stream


open_store = _opening(library.open_store)
export_tree = _call(exporting.export_tree)
import_tree = _call(importing.import_tree)
named_path_infos = _call(copy.named_path_infos)
read_bytes = _call(reading.read_bytes)
read_file = _stream(reading.read_file)
read_text = _call(reading.read_text)
render_nar = _stream(render.render_nar)
render_tar = _stream(tar.render_tar)
resolve = _call(resolving.resolve)
walk = _stream(walk_path.walk)


def import_nar(
    store: Store, nar: Data, *, name: str, path_info: bool = True, size_rule: SizeRule | None = None
) -> importing.Imported:
    """As `tvix_store.import_nar`. An iterable is walked in this thread."""
    jobs: Jobs = SimpleQueue()
    pieces = pulled(nar, store.loop, jobs)
    return store.loop.run(library.import_nar(store.inner, pieces, name=name, path_info=path_info, size_rule=size_rule), jobs)


def copy_paths(
    source: Store,
    target: Store,
    paths: Iterable[PathInfo | resolving.PathInStore],
    *,
    jobs: int = copy.JOBS,
    deltas: bool | None = None,
    account: Account | None = None,
) -> Generator[Copied, None, None]:
    """As `tvix_store.copy_paths`."""
    run = iterating(copy.copy_paths, source.loop)
    return run(source.inner, target.inner, list(paths), jobs=jobs, deltas=deltas, account=account)


def verified(
    store: Store,
    keys: Sequence[PublicKey] = (),
    *,
    require_signatures: bool = False,
    require_references: bool = False,
    trust_nar: bool = True,
) -> Store:
    """As `tvix_store.verified`."""
    inner = config.verified(
        store.inner,
        keys,
        require_signatures=require_signatures,
        require_references=require_references,
        trust_nar=trust_nar,
    )
    return Store(inner, store.loop)
