"""The roots of a local store: what its path infos and records, and those of its named caches, need."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tvix_store.backends.local.caches import cache_directories
from tvix_store.backends.local.collection.mark import Mark
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.index import Index
from tvix_store.errors import UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import PathInfo
from tvix_store.services.record_kinds import KINDS, PLAN

_PAGE = 2000
_KEY_SIZE = 32


def mark_roots(engines: Sequence[Engine], mark: Mark, without: Container[bytes] = ()) -> None:
    """Mark all that a store and its named caches need (see `all_engines`). The paths `without` (output hashes) count as not there.

    Raises:
        CorruptError: something of it is missing or damaged, or a record cannot be read, or rows of path infos or records may be.
    """
    own, *_ = indexes = [each.index for each in engines]
    for index in indexes:
        index.see_that_all_are_found(index.path_infos, index.records)
        left_out = without if index is own else ()
        mark.add(PathInfo.root_of(encoded) for output_hash, encoded in path_infos(index) if output_hash not in left_out)
        for kind in KINDS:
            if not kind.follows:
                for _, value in records(index, kind.prefix):
                    content = kind.content_of(value)
                    if isinstance(content, Digest):
                        mark.add_blob(content)
                    elif content is not None:
                        mark.add([content])
    for index in indexes:  # when all nodes are known
        for key, value in records(index, PLAN.prefix):
            if key[len(PLAN.prefix) :] in mark.nodes and len(value) == _KEY_SIZE:
                with own.reading() as txn:
                    is_there = own.is_blob(txn, value)
                if is_there:
                    mark.add_blob(Digest(value))
    mark.add_chunks()
    if any(index.is_damaged for index in indexes):
        raise UnavailableError("nothing is collected: an index is damaged; it is made anew when the store is opened again")


def path_infos(index: Index) -> Iterator[tuple[bytes, bytes]]:
    """All path infos, read a few at a time: output hash and encoded."""
    last: bytes | None = b""
    while last is not None:
        rows, last = index.path_infos_behind(last, _PAGE)
        yield from rows


def records(index: Index, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All records whose keys begin with `prefix`, read a few at a time."""
    start = prefix
    while rows := index.records_from(start, prefix, _PAGE):
        for key, value in rows:
            if value is not None:
                yield key, value
        start = rows[-1][0] + b"\0"


@contextmanager
def all_engines(engine: Engine) -> Iterator[list[Engine]]:
    """The engine of a store, and those of its named caches.

    Raises:
        UnavailableError: a named cache cannot be opened.
    """
    with ExitStack() as stack:
        engines = [engine]
        for directory in cache_directories(engine.directory):
            cache = Engine.acquire(directory, {}, threads=0)
            stack.callback(cache.release)
            engines.append(cache)
        yield engines
