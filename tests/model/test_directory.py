"""Directories: their rules, their canonical encoding, and what else is an encoding of them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.model import oracle
from tvix_store.errors import InvalidError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode, decode_file
from tvix_store.testing import strategies

FILE = FileNode(EMPTY, 0)
RAW = EMPTY.raw


@given(strategies.directories())
def test_the_encoding_is_what_the_protobuf_runtime_writes(directory: Directory) -> None:
    assert directory.encoded == oracle.directory_message(directory).SerializeToString(deterministic=True)


@given(strategies.directories())
def test_a_directory_survives_its_encoding(directory: Directory) -> None:
    decoded = Directory.decode(directory.encoded)
    assert decoded == directory
    assert dict(decoded.entries) == dict(directory.entries)
    assert decoded.digest == directory.digest == Digest.of(directory.encoded)


@given(strategies.directories())
def test_a_stored_directory_is_the_one_that_was_stored(directory: Directory) -> None:
    stored = Directory.stored(directory.digest, directory.encoded)
    assert stored == directory
    assert list(stored.entries.items()) == list(directory.entries.items())
    assert stored.size() == directory.size()


@given(st.dictionaries(strategies.names(), strategies.nodes()))
def test_entries_come_sorted_by_bytes(entries: dict[bytes, Node]) -> None:
    directory = Directory(entries)
    assert list(directory.entries) == sorted(entries)
    assert list(Directory.stored(directory.digest, directory.encoded).entries) == sorted(entries)


@given(strategies.directories())
def test_directories_are_equal_where_their_entries_are(directory: Directory) -> None:
    same = Directory(dict(reversed(list(directory.entries.items()))))
    assert same == directory
    assert hash(same) == hash(directory)
    assert directory != Directory({**directory.entries, b"another one": FILE})
    assert directory != directory.encoded


@given(strategies.directories())
def test_the_documented_size_counts_a_child_once_and_the_snix_size_twice(directory: Directory) -> None:
    below = sum(node.size for node in directory.entries.values() if isinstance(node, DirectoryNode))
    assert directory.size() == directory.size(SizeRule.DOCUMENTED) == len(directory.entries) + below
    assert directory.size(SizeRule.SNIX) == 2 * len(directory.entries) + below
    for rule in SizeRule:
        assert directory.node(rule) == DirectoryNode(directory.digest, directory.size(rule))


@st.composite
def other_encodings(draw: st.DrawFn) -> tuple[Directory, bytes]:
    """A directory, and an encoding of it with fields in any order, defaults written out and overwritten values."""
    directory = draw(strategies.directories())
    queues: list[list[bytes]] = [[], [], []]
    for name, node in directory.entries.items():
        message = oracle.node_message(name, node)
        kind = type(message).__name__
        number = ("DirectoryNode", "FileNode", "SymlinkNode").index(kind) + 1
        fields = [oracle.encode(kind, **{field.name: value}) for field, value in message.ListFields()]
        if kind != "SymlinkNode":
            fields.append(b"\x18\x00" if not node_size(node) else b"")
        overwritten = [oracle.encode(kind, name=b"overwritten")] if draw(st.booleans()) else []
        body = b"".join([*overwritten, *draw(st.permutations(fields))])
        queues[number - 1].append(bytes([number << 3 | 2]) + varint(len(body), draw(st.integers(0, 2))) + body)
    order = draw(st.permutations([number for number, queue in enumerate(queues) for _ in queue]))
    return directory, b"".join(queues[number].pop(0) for number in order)


def node_size(node: Node) -> int:
    return 0 if isinstance(node, SymlinkNode) else node.size


def varint(value: int, too_many_bytes: int = 0) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1) + 7 * too_many_bytes, 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


@given(other_encodings())
def test_every_encoding_is_accepted_and_made_canonical(example: tuple[Directory, bytes]) -> None:
    directory, encoding = example
    assert oracle.to_directory(oracle.parse("Directory", encoding)) == directory
    assert Directory.decode(encoding).encoded == directory.encoded


@given(other_encodings())
def test_a_directory_that_was_received_is_the_one_that_was_sent(example: tuple[Directory, bytes]) -> None:
    directory, encoding = example
    received = Directory.received(encoding)
    assert not received.is_parsed
    assert (received.digest, received.encoded) == (directory.digest, directory.encoded)
    assert [received.size(rule) for rule in SizeRule] == [directory.size(rule) for rule in SizeRule]
    assert not received.is_parsed
    assert list(received.directories()) == list(directory.directories())
    assert list(received.entries.items()) == list(directory.entries.items())


def children(kind: str, *names: bytes) -> bytes:
    lists = {"FileNode": "files", "DirectoryNode": "directories"}
    return oracle.encode("Directory", **{lists[kind]: [oracle.make(kind, name=name, digest=RAW) for name in names]})


def one(kind: str, **values: object) -> bytes:
    lists = {"FileNode": "files", "DirectoryNode": "directories", "SymlinkNode": "symlinks"}
    return oracle.encode("Directory", **{lists[kind]: [oracle.make(kind, **values)]})


@pytest.mark.parametrize(
    ("encoding", "rule"),
    [
        (children("FileNode", b"b", b"a"), "not sorted by name"),
        (children("DirectoryNode", b"b", b"a"), "not sorted by name"),
        (children("FileNode", b"a", b"a"), "two children are called 'a'"),
        (children("FileNode", b"a") + children("DirectoryNode", b"a"), "two children are called 'a'"),
        (children("FileNode", b""), "name is empty"),
        (one("FileNode", digest=RAW), "name is empty"),
        (children("FileNode", b"."), "reserved"),
        (children("DirectoryNode", b".."), "reserved"),
        (children("DirectoryNode", b"a/b"), "slash"),
        (children("FileNode", b"a\0b"), "NUL"),
        (children("FileNode", b"n" * 256), "longer than 255 bytes"),
        (one("FileNode", name=b"a"), "digest must be 32 bytes, got 0"),
        (one("FileNode", name=b"a", digest=bytes(31)), "digest must be 32 bytes, got 31"),
        (one("DirectoryNode", name=b"a", digest=bytes(33)), "digest must be 32 bytes, got 33"),
        (one("SymlinkNode", name=b"a"), "target is empty"),
        (one("SymlinkNode", name=b"a", target=b"\0"), "holds a NUL"),
        (one("SymlinkNode", name=b"a", target=b"t" * 4096), "longer than 4095"),
        (one("DirectoryNode", name=b"a", digest=RAW, size=2**64 - 2), "more than 64 bits"),
        (b"\x12\x82\x01" + b"\x18\x00" * 65, "more than 64 fields"),
        (b"\x22\x00", "unknown field 4"),
        (b"\x12\x02\x28\x01", "file node: unknown field 5"),
        (b"\x0a\x02\x20\x01", "directory node: unknown field 4"),
        (b"\x1a\x02\x18\x01", "symlink node: unknown field 3"),
        (b"\x08\x01", "field 1 must be bytes"),
        (b"\x12\x02\x08\x01", "field 1 must be bytes"),
        (b"\x12\x09\x19" + bytes(8), "field 3 must be a number"),
        (b"\x12\x05\x1d" + bytes(4), "field 3 must be a number"),
        (b"\x12\x02\x1a\x00", "field 3 must be a number"),
        (b"\x12\x7f", "field 2 is cut short"),
        (b"\x12", "cut short inside a number"),
        (b"\x12\x03\x19\0\0", "field 3 is cut short"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x0f", "unknown wire type 7"),
        (b"\x00", "0 is not a field number"),
        (b"\xff" * 9 + b"\x02", "longer than 64 bits"),
        (b"\xff" * 11, "longer than 64 bits"),
    ],
)
def test_an_encoding_that_breaks_a_rule_is_refused_by_the_name_of_the_rule(encoding: bytes, rule: str) -> None:
    for read in (Directory.decode, Directory.received):
        with pytest.raises(InvalidError, match=rule):
            read(encoding)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"\0", b"n" * 256])
def test_a_directory_cannot_be_made_with_a_name_that_breaks_a_rule(name: bytes) -> None:
    with pytest.raises(InvalidError, match="name"):
        Directory({name: FILE})


@pytest.mark.parametrize("size", [-1, 2**64])
def test_a_node_cannot_be_made_with_a_size_that_does_not_fit(size: int) -> None:
    with pytest.raises(InvalidError, match="does not fit 64 bits"):
        FileNode(EMPTY, size)
    with pytest.raises(InvalidError, match="does not fit 64 bits"):
        DirectoryNode(EMPTY, size)


def test_the_empty_directory_encodes_to_nothing() -> None:
    assert Directory({}).encoded == b""
    assert Directory({}).digest == EMPTY
    assert Directory.decode(b"") == Directory({})


ENCODINGS = strategies.directories(4).map(lambda directory: directory.encoded)


@given(strategies.damaged(ENCODINGS) | st.binary(max_size=60))
def test_what_is_accepted_is_what_the_runtime_reads_and_the_rules_allow(data: bytes) -> None:
    expected = None
    message = oracle.parse("Directory", data)
    if message is not None:
        try:
            expected = oracle.to_directory(message)
        except InvalidError:
            expected = None
    assert decoded(data) == expected


def decoded(data: bytes) -> Directory | None:
    """What we read, or None where we refuse. The runtime cuts over-long numbers off; we refuse them, which is not compared."""
    try:
        directory = Directory.decode(data)
        assert Directory.received(data) == directory
        return directory
    except InvalidError as error:
        with pytest.raises(InvalidError):
            Directory.received(data)
        assume("longer than 64 bits" not in str(error))
        return None


@pytest.mark.parametrize(
    "data",
    [
        FileNode(EMPTY, size, executable).encode(b"n" * length)
        for length in (1, 126, 127, 128, 129, 255)
        for size, executable in ((0, False), (300, True))
    ],
    ids=len,
)
def test_a_file_node_of_any_bytes_is_what_the_runtime_reads(data: bytes) -> None:
    """The encoding, cut short anywhere, and with any byte changed."""
    changed = [data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :] for at in range(len(data)) for bits in (1, 0x80)]
    for each in (data, *(data[:size] for size in range(len(data))), *changed, data + b"\x00", data + b"\x20\x01"):
        message = oracle.parse("FileNode", each)
        expected: FileNode | None = None
        if message is not None and len(message.digest) == 32:
            expected = FileNode(Digest(message.digest), message.size, message.executable)
        if expected is None:
            with pytest.raises(InvalidError):
                decode_file(each)
        else:
            assert decode_file(each) == (message.name, expected)


@pytest.mark.parametrize("size", [0, 1, 100, 127])
def test_a_length_that_takes_a_byte_too_many_is_not_taken_for_a_longer_name(size: int) -> None:
    """Its first byte is 128 more than the length. Read as a length, it leads exactly to the digest."""
    hidden = oracle.encode("FileNode", name=b"x" * 125)
    data = b"\x0a" + varint(size, 1) + b"s" * size + hidden
    assert data[1] == len(data) - 2
    assert decode_file(data + oracle.encode("FileNode", digest=RAW)) == (b"x" * 125, FileNode(Digest(RAW), 0))
