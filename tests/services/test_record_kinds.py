"""The table of record kinds tells of the records that the program makes what content they are about."""

from __future__ import annotations

import hashlib
import struct

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.errors import CorruptError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.nars.links import NarLink, NarLinks, link_records
from tvix_store.operations.paths.documents import KeptDocuments
from tvix_store.services.record_kinds import KINDS, kind_of
from tvix_store.testing.content import put_file, stream


def test_no_kind_begins_as_another() -> None:
    prefixes = [kind.prefix for kind in KINDS]
    assert [one for one in prefixes for other in prefixes if one is not other and one.startswith(other)] == []


async def test_a_link_goes_with_its_root_node() -> None:
    store = await open_store()
    assert store.records
    node = await put_file(store.blobs, b"content")
    for linked in (node, SymlinkNode(b"target")):
        link = NarLink(NarFacts(120, hashlib.sha256(b"nar").digest()), linked)
        for key, value in link_records(link, bytes(32)).items():
            kind = kind_of(key)
            assert kind is not None
            assert kind.follows
            assert kind.content_of(value) == linked
    assert NarLinks.of(store) is not None


async def test_a_document_keeps_its_blob_alive() -> None:
    store = await open_store()
    assert store.records
    await KeptDocuments(store, store.records).put("log", "x.drv", stream([b"built"]))
    key = b"document:log/x.drv"
    kind, value = kind_of(key), await store.records.get(key)
    assert kind is not None
    assert value is not None
    assert not kind.follows
    assert kind.content_of(value) == Digest.of(b"built")


def test_a_damaged_value_is_told() -> None:
    for key in (b"nar:x", b"document:x", b"plan:x"):
        kind = kind_of(key)
        assert kind is not None
        with pytest.raises(CorruptError, match="is damaged"):
            kind.content_of(struct.pack("<Q", 7))


def test_an_unknown_kind_is_not_ours() -> None:
    assert kind_of(b"theirs:x") is None
