"""Leftovers: records that describe content which was dropped go after it."""

from __future__ import annotations

from tvix_store.backends.local.collection.roots import records
from tvix_store.backends.local.collection.watch import Watch
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.records import Kind
from tvix_store.backends.local.requests import Commit, Request, Result
from tvix_store.errors import CorruptError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.services.batches import batched
from tvix_store.services.record_kinds import FILE, LINK, PLAN, RecordKind

_AT_ONCE = 1000
"""Records that one transaction looks at: some 10 ms."""


def drop_leftovers(engine: Engine, watch: Watch) -> None:
    """Delete links of NARs whose root is not there, and plans that are not.

    Raises:
        StoreError: the store cannot be written.
        StoppedError: nobody waits for it any more.
    """
    for kind in (LINK, PLAN):
        for some in batched((key for key, _ in records(engine.index, kind.prefix)), _AT_ONCE):
            watch.tell("", 0, 0)
            engine.committer.submit(DropLeftovers(kind, some)).result()


class DropLeftovers(Request):
    """Those of the records of a kind are deleted whose content is not there now. Somebody may just put it again."""

    is_durable = True
    appends = True

    def __init__(self, kind: RecordKind, keys: list[bytes]) -> None:
        super().__init__()
        self._kind = kind
        self._keys = keys

    def apply(self, commit: Commit) -> Result:
        gone = [key for key in self._keys if self._is_left_over(commit, key)]
        if self._kind is LINK:  # what is known of the file goes with it
            gone += [key for key in (FILE.prefix + each[len(LINK.prefix) :] for each in gone) if _value(commit, key) is not None]
        if gone:
            commit.put_records(dict.fromkeys(gone), durable=True)
        return None

    def _is_left_over(self, commit: Commit, key: bytes) -> bool:
        value = _value(commit, key)
        if value is None:
            return False
        try:
            content = self._kind.content_of(value)
        except CorruptError:  # whoever reads it says so
            return False
        index, txn = commit.index, commit.txn
        if isinstance(content, DirectoryNode):
            return not index.is_named(txn, Kind.DIRECTORY, content.digest.raw)
        if isinstance(content, FileNode):
            return content.size > 0 and not index.is_blob(txn, content.digest.raw)
        return isinstance(content, Digest) and not index.is_blob(txn, content.raw)


def _value(commit: Commit, key: bytes) -> bytes | None:
    return commit.index.record_in(commit.txn, key)
