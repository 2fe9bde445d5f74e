"""NarWriter: what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.errors import InvalidError
from tvix_store.nar import (
    DirectoryEnd,
    DirectoryStart,
    EntryEnd,
    EntryStart,
    Event,
    FileData,
    FileEnd,
    FileStart,
    NarReader,
    NarWriter,
    Symlink,
)
from tvix_store.testing import strategies, trees
from tvix_store.testing.trees import Tree

EMPTY_FILE = (FileStart(0, executable=False), FileEnd())


def write(*events: Event) -> bytes:
    writer = NarWriter()
    data = b"".join(map(writer.send, events))
    writer.finish()
    return data


def entry(name: bytes) -> tuple[Event, ...]:
    return (EntryStart(name), *EMPTY_FILE, EntryEnd())


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ((), "not complete, expected FileStart, Symlink or DirectoryStart"),
        ((FileStart(0, executable=False),), "not complete, expected FileData or FileEnd"),
        ((DirectoryStart(),), "not complete, expected EntryStart or DirectoryEnd"),
        ((DirectoryStart(), EntryStart(b"a")), "not complete, expected FileStart, Symlink or DirectoryStart"),
        ((DirectoryStart(), EntryStart(b"a"), *EMPTY_FILE), "not complete, expected EntryEnd"),
        ((FileData(b""),), "got FileData, expected FileStart, Symlink or DirectoryStart"),
        ((EntryStart(b"a"),), "got EntryStart, expected FileStart"),
        ((DirectoryStart(), *EMPTY_FILE), "got FileStart, expected EntryStart or DirectoryEnd"),
        ((DirectoryStart(), EntryStart(b"a"), EntryEnd()), "got EntryEnd, expected FileStart"),
        ((DirectoryStart(), EntryStart(b"a"), Symlink(b"t"), DirectoryEnd()), "got DirectoryEnd, expected EntryEnd"),
        ((DirectoryStart(), DirectoryEnd(), DirectoryEnd()), "got DirectoryEnd, expected nothing, the archive is complete"),
        ((Symlink(b"a"), Symlink(b"b")), "got Symlink, expected nothing, the archive is complete"),
        ((FileStart(1, executable=False), FileEnd()), "1 of the file's 1 bytes are missing"),
        ((FileStart(3, executable=False), FileData(b"ab"), FileData(b"cd")), "1 bytes more than the 3 that the file was to have"),
        ((FileStart(-1, executable=False),), "size -1 does not fit 64 bits"),
        ((FileStart(1 << 64, executable=False),), "does not fit 64 bits"),
        ((Symlink(b""),), "target is empty"),
        ((Symlink(b"\0"),), "holds a NUL"),
        ((DirectoryStart(), *entry(b"a"), *entry(b"a")), "entry 'a' is there twice"),
        ((DirectoryStart(), *entry(b"b"), *entry(b"a")), "entry 'a' stands behind 'b': not sorted by name"),
        ((DirectoryStart(), *entry(b"a/b")), "holds a slash"),
        ((DirectoryStart(), *entry(b"..")), "is reserved"),
    ],
)
def test_misuse_is_refused(events: tuple[Event, ...], problem: str) -> None:
    with pytest.raises(InvalidError, match=problem):
        write(*events)


ANY_EVENT = st.one_of(
    st.builds(FileStart, st.integers(0, 2), st.booleans()),
    st.builds(FileData, st.binary(max_size=2)),
    st.builds(EntryStart, st.sampled_from((b"a", b"b", b"/"))),
    st.builds(Symlink, st.sampled_from((b"a", b""))),
    *(st.just(event) for event in (FileEnd(), EntryEnd(), DirectoryStart(), DirectoryEnd())),
)


@given(st.lists(ANY_EVENT, max_size=12))
def test_events_in_any_order_are_refused_or_make_an_archive(events: list[Event]) -> None:
    try:
        data = write(*events)
    except InvalidError:
        return
    reader = NarReader()
    assert without_cuts(reader.feed(data)) == without_cuts(events)
    reader.finish()


@given(strategies.trees(), st.data())
def test_an_archive_that_lacks_an_event_is_refused(tree: Tree, data: st.DataObject) -> None:
    events = list(trees.events(tree))
    del events[data.draw(st.integers(0, len(events) - 1))]
    with pytest.raises(InvalidError):
        write(*events)


def without_cuts(events: list[Event]) -> list[Event]:
    """`events` with the pieces of each file joined."""
    joined: list[Event] = []
    for event in events:
        if isinstance(event, FileData):
            before = joined.pop() if isinstance(joined[-1], FileData) else FileData(b"")
            assert isinstance(before, FileData)
            event = FileData(before.data + event.data)  # noqa: PLW2901
        joined.append(event)
    return [event for event in joined if event != FileData(b"")]
