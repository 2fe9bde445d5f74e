"""NarReader: what it reads, however the archive is cut, and what it refuses, at which byte."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.errors import InvalidError
from tvix_store.model.nodes import SymlinkNode
from tvix_store.nar import Event, FileData, FileStart, NarReader, NarWriter, tokens
from tvix_store.testing import strategies, trees
from tvix_store.testing.trees import Tree, TreeFile


def read(pieces: list[bytes]) -> list[Event]:
    reader = NarReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    reader.finish()
    return events


def rewrite(events: list[Event]) -> bytes:
    writer = NarWriter()
    data = b"".join(map(writer.send, events))
    writer.finish()
    return data


def single_bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@given(strategies.trees())
def test_an_archive_reads_as_what_was_written(tree: Tree) -> None:
    assert read([trees.nar(tree)]) == list(trees.events(tree))


@given(strategies.trees(), st.data())
def test_cuts_do_not_matter(tree: Tree, data: st.DataObject) -> None:
    nar = trees.nar(tree)
    for pieces in (data.draw(strategies.cut(nar)), single_bytes(nar)):
        assert rewrite(read(pieces)) == nar


@given(strategies.trees(), st.data())
def test_an_archive_that_is_cut_short_is_refused_where_it_ends(tree: Tree, data: st.DataObject) -> None:
    nar = trees.nar(tree)
    end = data.draw(st.integers(0, len(nar) - 1))
    with pytest.raises(InvalidError, match=f"^NAR: at byte {end}: the archive is cut short$"):
        read([nar[:end]])


@given(strategies.trees(), st.binary(min_size=1, max_size=9))
def test_bytes_behind_the_end_are_refused(tree: Tree, trailing: bytes) -> None:
    nar = trees.nar(tree)
    for pieces in ([nar + trailing], [nar, trailing]):
        with pytest.raises(InvalidError, match=f"^NAR: at byte {len(nar)}: bytes follow behind the end of the archive$"):
            read(pieces)


@given(strategies.damaged(strategies.trees().map(trees.nar)), st.data())
def test_a_damaged_archive_is_refused_or_read_as_what_it_says(nar: bytes, data: st.DataObject) -> None:
    whole = verdict([nar])
    assert whole == nar or whole.startswith(b"NAR: at byte ")
    assert verdict(data.draw(strategies.cut(nar))) == whole


def verdict(pieces: list[bytes]) -> bytes:
    """The archive as read and written again, or why it is refused."""
    try:
        return rewrite(read(pieces))
    except InvalidError as error:
        return str(error).encode()


S = tokens.string
MAGIC = tokens.MAGIC
DIRECTORY = MAGIC + tokens.DIRECTORY_START
NAME = DIRECTORY + tokens.ENTRY_HEAD
ENTRY_B = tokens.entry_start(b"b") + tokens.symlink(b"t") + tokens.ENTRY_END
SYMLINK = MAGIC + tokens.SYMLINK_HEAD
FILE_END = MAGIC + tokens.file_start(3, executable=False) + b"abc"


def length(size: int) -> bytes:
    return size.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        (b"", S(b"nix-archive-2"), "expected 'nix-archive-1'"),
        (b"", b"PK\x03\x04", "expected 'nix-archive-1'"),
        (b"", length(1 << 63), "expected 'nix-archive-1'"),
        (MAGIC, S(b"["), r"expected '\('"),
        (MAGIC, S(b""), r"expected '\('"),
        (MAGIC + S(b"("), S(b"kind"), "expected 'type'"),
        (MAGIC + S(b"(") + S(b"type"), S(b"fifo"), "expected 'directory' or 'regular' or 'symlink'"),
        (MAGIC + S(b"(") + S(b"type"), S(b"regulas"), "expected 'directory' or 'regular' or 'symlink'"),
        (MAGIC + S(b"(") + S(b"type") + S(b"regular"), S(b"target"), "expected 'contents' or 'executable'"),
        (MAGIC + S(b"(") + S(b"type") + S(b"regular"), S(b")"), "expected 'contents' or 'executable'"),
        (MAGIC + S(b"(") + S(b"type") + S(b"regular") + S(b"executable"), S(b"1"), "expected ''"),
        (MAGIC + S(b"(") + S(b"type") + S(b"regular") + S(b"executable") + S(b""), S(b"executable"), "expected 'contents'"),
        (MAGIC + S(b"(") + S(b"type") + S(b"symlink"), S(b"contents"), "expected 'target'"),
        (SYMLINK + S(b"t"), S(b"("), r"expected '\)'"),
        (SYMLINK, length(4096), "a symlink's target is 4096 bytes long, more than 4095"),
        (SYMLINK, length(1 << 63), "more than 4095"),
        (SYMLINK, S(b""), "a symlink's target is empty"),
        (SYMLINK, S(b"a\0b"), "holds a NUL"),
        (FILE_END + bytes(5), S(b"("), r"expected '\)'"),
        (DIRECTORY, S(b"entries"), r"expected '\)' or 'entry'"),
        (DIRECTORY + S(b"entry"), S(b")"), r"expected '\('"),
        (DIRECTORY + S(b"entry") + S(b"("), S(b"node"), "expected 'name'"),
        (NAME, length(256), "an entry's name is 256 bytes long, more than 255"),
        (NAME, length((1 << 64) - 1), "more than 255"),
        (NAME, S(b""), "name is empty"),
        (NAME, S(b"."), "is reserved"),
        (NAME, S(b".."), "is reserved"),
        (NAME, S(b"/"), "holds a slash or a NUL"),
        (NAME, S(b"usr/bin"), "holds a slash or a NUL"),
        (NAME, S(b"a\0"), "holds a slash or a NUL"),
        (NAME + S(b"a"), S(b"type"), "expected 'node'"),
        (NAME + S(b"a") + S(b"node"), S(b")"), r"expected '\('"),
        (DIRECTORY + tokens.entry_start(b"a") + tokens.symlink(b"t"), S(b"("), r"expected '\)'"),
        (DIRECTORY + ENTRY_B + tokens.ENTRY_HEAD, S(b"a"), "entry 'a' stands behind 'b': not sorted by name"),
        (DIRECTORY + ENTRY_B + tokens.ENTRY_HEAD, S(b"B"), "entry 'B' stands behind 'b': not sorted by name"),
        (DIRECTORY + ENTRY_B + tokens.ENTRY_HEAD, S(b"b"), "entry 'b' is there twice"),
        (DIRECTORY + ENTRY_B + tokens.DIRECTORY_END, S(b")"), "bytes follow behind the end of the archive"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_byte(good: bytes, bad: bytes, rule: str) -> None:
    message = f"^NAR: at byte {len(good)}: .*{rule}"
    for pieces in ([good + bad], [good, bad], single_bytes(good + bad)):
        with pytest.raises(InvalidError, match=message):
            read(pieces)


@pytest.mark.parametrize(
    ("good", "padding"),
    [
        (MAGIC[:-3], b"\0\0\1"),
        (MAGIC + S(b"(")[:-7], b"\1"),
        (MAGIC + tokens.DIRECTORY_START[:-7], b"\0\0\0\0\0\0\1"),
        (NAME + S(b"a")[:-7], b"\1" + bytes(6)),
        (NAME + S(b"a")[:-1], b"\1"),
        (NAME + S(b"a") + S(b"node")[:-1], b"\1"),
        (SYMLINK + S(b"target")[:-2], b"\0\1"),
        (FILE_END, b"\1"),
        (FILE_END + b"\0\0\0\0", b" "),
        (FILE_END + bytes(5) + S(b")")[:-1], b")"),
    ],
)
def test_padding_that_is_not_zero_is_refused_with_the_byte(good: bytes, padding: bytes) -> None:
    wrong = len(good) + len(padding.rstrip(b"\0")) - 1 if padding[0] == 0 else len(good)
    message = f"^NAR: at byte {wrong}: the padding of a string is not zero$"
    for pieces in ([good + padding], single_bytes(good + padding)):
        with pytest.raises(InvalidError, match=message):
            read(pieces)


def nested(depth: int) -> Tree:
    tree: Tree = TreeFile(b"")
    for _ in range(depth - 1):
        tree = {b"d": tree}
    return tree


def test_64_nodes_inside_each_other_are_read_and_65_are_refused() -> None:
    assert rewrite(read([trees.nar(nested(64))])) == trees.nar(nested(64))
    with pytest.raises(InvalidError, match=r"^NAR: at byte \d+: more than 64 nodes are inside each other$"):
        read([trees.nar(nested(65))])
    reader = NarReader(max_depth=100)
    reader.feed(trees.nar(nested(65)))
    reader.finish()


def test_too_many_entries_are_refused() -> None:
    nar = trees.nar({b"a": TreeFile(b""), b"b": {b"c": TreeFile(b"")}})
    NarReader(max_entries=3).feed(nar)
    with pytest.raises(InvalidError, match=r"^NAR: at byte \d+: there are more than 2 entries$"):
        NarReader(max_entries=2).feed(nar)


def test_the_limits_themselves_are_allowed() -> None:
    tree = {b"n" * 255: SymlinkNode(b"t" * 4095)}
    assert read([trees.nar(tree)]) == list(trees.events(tree))


def test_a_wrong_byte_is_refused_before_the_rest_of_its_string_arrives() -> None:
    reader = NarReader()
    reader.feed(SYMLINK)
    with pytest.raises(InvalidError, match="more than 4095"):
        reader.feed(length(1 << 62))


def test_after_an_error_nothing_more_is_read() -> None:
    reader = NarReader()
    with pytest.raises(InvalidError, match="at byte 0: expected"):
        reader.feed(b"garbage")
    with pytest.raises(InvalidError, match="refused before"):
        reader.feed(MAGIC)
    with pytest.raises(InvalidError, match="cut short"):
        reader.finish()


def test_contents_are_handed_on_as_they_come() -> None:
    reader = NarReader()
    assert reader.feed(MAGIC + tokens.file_start(10**6, executable=False) + b"abc") == [
        FileStart(10**6, executable=False),
        FileData(b"abc"),
    ]
    piece = bytes(1000)
    [event] = reader.feed(piece)
    assert isinstance(event, FileData)
    assert event.data is piece  # not even copied


def test_a_length_that_did_not_arrive_costs_no_memory() -> None:
    heads = (
        MAGIC + tokens.file_start((1 << 64) - 1, executable=True),
        NAME + length(255),
        SYMLINK + length(4095),
    )
    for head in heads:
        tracemalloc.start()
        reader = NarReader()
        reader.feed(head)
        for _ in range(100):
            reader.feed(b"x")
        assert tracemalloc.get_traced_memory()[1] < 20_000
        tracemalloc.stop()


def test_a_file_without_contents_is_refused() -> None:
    """Nix reads a file without contents as an empty one; such an archive is not the NAR of any tree, and is refused."""
    with pytest.raises(InvalidError, match="expected 'contents' or 'executable'"):
        read([MAGIC + S(b"(") + S(b"type") + S(b"regular") + S(b")")])
