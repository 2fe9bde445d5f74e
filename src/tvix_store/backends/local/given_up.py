"""What a replay has entered, and then forgets: it is half of something whose writer, or the machine, died."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from tvix_store.backends.local.damage import torn_blobs
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import REMOVED, SEQUENCE
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.progress import Progress
from tvix_store.backends.local.records import KEY_SIZE
from tvix_store.errors import StoreError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.batches import parts

_AT_ONCE = 10_000
"""Path infos that one transaction looks at."""
_log = logging.getLogger(__name__)


def drop_torn_blobs(index: Index, reader: PackReader, blobs: set[bytes] | None, level: int) -> None:
    """Forget those of the blobs that lack a chunk, or a part of their list: a power cut may keep one pack, and lose what is in
    another. None stands for all blobs.
    """
    with index.reading() as txn:
        total = index.rows(txn, index.chunk_lists) if blobs is None else len(blobs)
        progress = Progress("checking chunk lists", total)
        torn = [segments[0].key[:KEY_SIZE] for segments in torn_blobs(index, reader, txn, blobs=blobs, checked=progress.add)]
    for blob in torn:
        _log.log(level, "blob b3:%s has lost a chunk; it must be put again", blob.hex())
        with index.writing() as txn:
            index.drop_chunk_list(txn, blob)


def drop_given_up(index: Index, path_infos: Iterable[bytes]) -> None:
    """Forget path infos that refer to a path which was removed later: a put that was given up, and left its entry.

    Nothing is removed to which a path refers that was put.
    """
    with index.reading() as txn:
        waiting = list(path_infos) if index.counter(txn, REMOVED) else []
    dropped = True
    while dropped and waiting:
        dropped = False
        for some in parts(waiting, _AT_ONCE):
            with index.writing() as txn:
                for output_hash in some:
                    sequence, encoded = index.path_info_sequence(txn, output_hash), index.path_info_in(txn, output_hash)
                    if encoded is None:
                        continue
                    references = _references(encoded)
                    if any(index.removed_at(txn, each.output_hash) >= sequence for each in references):
                        index.put_path_info(txn, output_hash, index.count(txn, SEQUENCE, 1), None)
                        dropped = True


def _references(encoded: bytes) -> Sequence[StorePath]:
    try:
        return PathInfo.stored(encoded).references
    except StoreError:  # whoever reads it hears of that
        return ()
