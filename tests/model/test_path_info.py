"""Path infos and content addresses: encodings, rules, and how two records of a path become one."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.model import oracle
from tvix_store.errors import ConflictError, InvalidError
from tvix_store.model import wire
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.digest import EMPTY
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import FileNode, Node, decode_node, encode_node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import MAX_SIGNATURES, Signature
from tvix_store.model.store_path import StorePath
from tvix_store.testing import strategies

NAME = "00000000000000000000000000000000-hello"
HELLO = PathInfo(StorePath.parse(NAME), FileNode(EMPTY, 0), NarFacts(112, bytes(32)))


@given(strategies.path_infos())
def test_the_encoding_is_what_the_protobuf_runtime_writes(path_info: PathInfo) -> None:
    assert path_info.encoded == oracle.path_info_message(path_info).SerializeToString(deterministic=True)


@given(strategies.path_infos())
def test_a_path_info_survives_its_encoding(path_info: PathInfo) -> None:
    assert PathInfo.decode(path_info.encoded) == path_info
    assert PathInfo.decode(path_info.encoded).encoded == path_info.encoded


@given(strategies.path_infos())
def test_a_stored_path_info_is_the_one_that_was_stored(path_info: PathInfo) -> None:
    stored = PathInfo.stored(path_info.encoded)
    hashes = path_info.store_path.output_hash, [each.output_hash for each in path_info.references]
    assert stored.output_hashes == path_info.output_hashes == hashes
    assert stored.in_brief == path_info.in_brief == (path_info.store_path, path_info.node, path_info.nar.size)
    assert "store_path" not in stored.__dict__
    assert stored.encoded == path_info.encoded
    assert stored.signatures == path_info.signatures
    assert stored == path_info
    assert hash(stored) == hash(path_info)
    assert replace(PathInfo.stored(path_info.encoded), references=()) == replace(path_info, references=())
    with pytest.raises(AttributeError, match="colour"):
        PathInfo.stored(path_info.encoded).colour  # type: ignore[attr-defined]  # noqa: B018


@given(strategies.names(), strategies.nodes())
def test_a_node_survives_its_encoding_as_a_root(name: bytes, node: Node) -> None:
    assert encode_node(name, node) == oracle.root_message(name, node).SerializeToString(deterministic=True)
    assert decode_node(encode_node(name, node)) == (name, node)


@given(strategies.content_addresses())
def test_a_content_address_survives_its_text_and_its_encoding(ca: ContentAddress) -> None:
    assert ContentAddress.parse(str(ca)) == ca
    assert ContentAddress.decode(ca.encode()) == ca


@pytest.mark.parametrize(
    "text",
    ["", "fixed", "sha256:0", "text:sha1:" + "0" * 32, "fixed:r:sha256:0", "fixed:r", "fixed:", "r:sha256:" + "0" * 64],
)
def test_what_is_not_a_content_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        ContentAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fixed:git:sha1:" + "0" * 32, "the method 'git' with 'sha1' cannot be checked here"),
        ("fixed:git:sha256:" + "0" * 52, "the method 'git' with 'sha256' cannot be checked here"),
        ("fixed:a\n:b\0:c", r"the method 'a\n' with 'b\x00' cannot be checked here"),  # nothing that steers a terminal
        ("fixed:r:sha3-256:" + "0" * 52, "unknown hash algorithm 'sha3-256' (known: md5, sha1, sha256, sha512, blake3)"),
        ("fixed:sha3:" + "0" * 52, "unknown hash algorithm 'sha3'"),
        ("text:blake3:" + "0" * 52, "there are no content addresses by text:blake3"),
    ],
)
def test_a_content_address_that_cannot_be_checked_is_refused_by_method_and_algorithm(text: str, words: str) -> None:
    with pytest.raises(InvalidError, match=re.escape(words)):
        ContentAddress.parse(text)


@pytest.mark.parametrize(
    ("encoding", "rule"),
    [
        (b"\x08\x09\x12\x20" + bytes(32), "unknown type 9"),
        (b"\x12\x14" + bytes(20), "a sha256 digest is 32 bytes, got 20"),
        (b"\x18\x01", "unknown field 3"),
    ],
)
def test_a_content_address_message_that_breaks_a_rule_is_refused(encoding: bytes, rule: str) -> None:
    with pytest.raises(InvalidError, match=rule):
        ContentAddress.decode(encoding)


@given(strategies.path_infos(), st.randoms(use_true_random=False))
def test_messages_sent_in_parts_are_merged(path_info: PathInfo, random: Random) -> None:
    """Protobuf parsers merge repeated occurrences of a message field; field order has no meaning."""
    message = oracle.path_info_message(path_info)
    narinfos = [oracle.make("NARInfo", **{field.name: value}) for field, value in message.narinfo.ListFields()]
    parts = [oracle.encode("PathInfo", node=message.node), *(oracle.encode("PathInfo", narinfo=part) for part in narinfos)]
    random.shuffle(parts)
    encoding = b"".join([*parts, oracle.encode("PathInfo", references=message.references)])
    assert oracle.parse("PathInfo", encoding) == message
    assert PathInfo.decode(encoding) == path_info


def test_messages_inside_are_merged_too() -> None:
    path = StorePath(bytes(20), "hello")
    ca = ContentAddress(Method.FLAT, NixHash("sha1", bytes(20)))
    encoding = (
        spoil(deriver=oracle.make("StorePath", name="hello"), ca=oracle.make("CA", type=5))
        + oracle.encode("PathInfo", narinfo=oracle.make("NARInfo", deriver=oracle.make("StorePath", digest=bytes(20))))
        + oracle.encode("PathInfo", narinfo=oracle.make("NARInfo", ca=oracle.make("CA", digest=bytes(20))))
    )
    assert PathInfo.decode(encoding) == replace(HELLO, deriver=path, ca=ca)


@pytest.mark.parametrize(
    ("part", "what"),
    [(b"\x0a\x00", "node"), (b"\x1a\x00", "narinfo"), (b"\x1a\x02\x2a\x00", "deriver"), (b"\x1a\x02\x32\x00", "ca")],
)
def test_a_message_inside_comes_in_few_pieces(part: bytes, what: str) -> None:
    """Each piece was once added to a copy of those before it: 4 MiB of them took half a minute."""
    inside = part[2:] if len(part) > 2 else part
    pieces = inside * 65
    encoding = pieces if inside is part else wire.message_field(3, pieces)
    with pytest.raises(InvalidError, match=f"{what} comes in more than 64 pieces"):
        PathInfo.decode(HELLO.encoded + encoding)


def test_a_node_has_few_fields() -> None:
    with pytest.raises(InvalidError, match="more than 64 fields"):
        decode_node(b"\x12\x00" * 65)


def test_the_last_member_of_a_oneof_counts() -> None:
    file = oracle.encode("Node", file=oracle.node_message(b"f", FileNode(EMPTY, 1)))
    symlink = oracle.encode("Node", symlink=oracle.make("SymlinkNode", name=b"s", target=b"t"))
    executable = oracle.encode("Node", file=oracle.make("FileNode", executable=True))
    assert decode_node(symlink + file) == (b"f", FileNode(EMPTY, 1))
    assert decode_node(file + executable) == (b"f", FileNode(EMPTY, 1, executable=True))
    with pytest.raises(InvalidError, match="digest must be 32 bytes"):
        decode_node(file + symlink + executable)


def spoil(**changes: object) -> bytes:
    """The encoding of HELLO with fields of its NARInfo changed."""
    narinfo = oracle.make("NARInfo", **{"nar_size": 112, "nar_sha256": bytes(32), **changes})
    return oracle.encode("PathInfo", node=root(NAME.encode()), narinfo=narinfo)


def root(name: bytes) -> object:
    return oracle.root_message(name, FileNode(EMPTY, 0))


NAR_INFO = oracle.make("NARInfo", nar_size=112, nar_sha256=bytes(32))


@pytest.mark.parametrize(
    ("encoding", "rule"),
    [
        (b"", "it has no root node"),
        (oracle.encode("PathInfo", narinfo=NAR_INFO), "it has no root node"),
        (oracle.encode("PathInfo", node=root(NAME.encode())), "it has no narinfo"),
        (oracle.encode("PathInfo", node=oracle.make("Node"), narinfo=NAR_INFO), "neither directory, file nor symlink is set"),
        (oracle.encode("PathInfo", node=root(b""), narinfo=NAR_INFO), "not a store path"),
        (oracle.encode("PathInfo", node=root(b"hello"), narinfo=NAR_INFO), "not a store path"),
        (oracle.encode("PathInfo", node=root(b"\xff" * 40), narinfo=NAR_INFO), "not a store path"),
        (oracle.encode("PathInfo", node=root(f"/nix/store/{NAME}".encode()), narinfo=NAR_INFO), "not a store path"),
        (spoil(nar_sha256=bytes(31)), "nar_sha256 must be 32 bytes, got 31"),
        (spoil(nar_sha256=b""), "nar_sha256 must be 32 bytes, got 0"),
        (spoil(reference_names=[NAME]), r"references \(0\) and reference_names \(1\) do not match"),
        (spoil() + oracle.encode("PathInfo", references=[bytes(20)]), r"references \(1\) and reference_names \(0\) do not match"),
        (spoil(reference_names=[NAME]) + oracle.encode("PathInfo", references=[bytes(19) + b"\1"]), "do not match one to one"),
        (spoil(reference_names=["x"]) + oracle.encode("PathInfo", references=[bytes(20)]), "not a store path"),
        (spoil(reference_names=[f"/nix/store/{NAME}"]), "not a store path"),
        (spoil(signatures=[oracle.make("Signature", name="k", data=bytes(63))]), "has 63 bytes, expected 64"),
        (spoil(signatures=[oracle.make("Signature", name="", data=bytes(64))]), "not a key name"),
        *(
            (spoil(signatures=[oracle.make("Signature", name=name, data=bytes(64))]), "not a key name")
            for name in ("a b", "a:b", "é", "a\0", "a\x7f", "a\n", "n" * 257)
        ),
        (spoil(deriver=oracle.make("StorePath", name="hello", digest=bytes(19))), "output hash must be 20 bytes, got 19"),
        (spoil(deriver=oracle.make("StorePath", name="", digest=bytes(20))), "not a store path name"),
        (spoil(ca=oracle.make("CA", type=9, digest=bytes(32))), "unknown type 9"),
        (spoil(ca=oracle.make("CA", type=1, digest=bytes(32))), "a sha1 digest is 20 bytes, got 32"),
        (spoil() + b"\x22\x00", "path info: unknown field 4"),
        (spoil() + b"\x1a\x02\x38\x01", "narinfo: unknown field 7"),
        (spoil() + b"\x1a\x04\x1a\x02\x18\x01", "signature: unknown field 3"),
        (spoil() + b"\x1a\x04\x2a\x02\x18\x01", "deriver: unknown field 3"),
        (spoil() + b"\x0a\x02\x22\x00", "node: unknown field 4"),
        (spoil() + b"\x1a\x04\x1a\x02\x08\x01", "field 1 must be bytes"),
        (spoil() + b"\x1a\x05\x1a\x03\x0a\x01\xff", "field 1 is not UTF-8"),
        (spoil() + b"\x1a\x7f", "field 3 is cut short"),
    ],
)
def test_a_path_info_that_breaks_a_rule_is_refused_by_the_name_of_the_rule(encoding: bytes, rule: str) -> None:
    with pytest.raises(InvalidError, match=rule):
        PathInfo.decode(encoding)


ENCODINGS = strategies.path_infos().map(lambda path_info: path_info.encoded)


@given(strategies.damaged(ENCODINGS) | st.binary(max_size=60))
def test_what_is_accepted_is_what_the_runtime_reads_and_the_rules_allow(data: bytes) -> None:
    expected = None
    message = oracle.parse("PathInfo", data)
    if message is not None:
        try:
            expected = oracle.to_path_info(message)
        except (InvalidError, UnicodeDecodeError):
            expected = None
    assert decoded(data) == expected


def decoded(data: bytes) -> PathInfo | None:
    """What we read, or None where we refuse. The runtime cuts over-long numbers off; we refuse them, which is not compared."""
    try:
        return PathInfo.decode(data)
    except InvalidError as error:
        assume("longer than 64 bits" not in str(error))
        return None


@pytest.mark.parametrize("size", [-1, 2**64])
def test_a_nar_size_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(InvalidError, match="does not fit 64 bits"):
        NarFacts(size, bytes(32))


@given(strategies.path_infos(), st.lists(strategies.signatures(), max_size=8), st.lists(strategies.signatures(), max_size=8))
def test_merging_unites_signatures_each_once(path_info: PathInfo, ours: list[Signature], theirs: list[Signature]) -> None:
    left = replace(path_info, signatures=()).with_signatures(ours)
    right = replace(path_info, signatures=()).with_signatures(theirs)
    merged = left.merged(right)
    assert set(merged.signatures) == {*ours, *theirs}
    assert len(set(merged.signatures)) == len(merged.signatures)
    assert merged.signatures[: len(left.signatures)] == left.signatures
    assert merged.merged(right) is merged


def test_signatures_are_bounded_when_they_are_read() -> None:
    many = [Signature(f"key-{number}", bytes(64)) for number in range(MAX_SIGNATURES)]
    full = replace(HELLO, signatures=()).with_signatures(many)
    assert PathInfo.decode(full.encoded) == full
    assert PathInfo.decode(replace(full, signatures=(*many, *many)).encoded) == full
    one_more = Signature("one-more", bytes(64))
    with pytest.raises(InvalidError, match="a path may have 64 signatures, not 65"):
        PathInfo.decode(full.with_signatures([one_more]).encoded)


def test_records_with_different_nar_hashes_are_not_merged() -> None:
    with pytest.raises(ConflictError, match=f"{NAME} is in the store with NAR hash 00.*, not 01"):
        HELLO.merged(replace(HELLO, nar=NarFacts(112, b"\x01" * 32)))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(HELLO, store_path=StorePath(HELLO.store_path.output_hash, "other")), "by this name, not as .*-other"),
        (replace(HELLO, references=(*HELLO.references, StorePath(b"\x07" * 20, "one-more"))), "other references .*-one-more"),
    ],
)
def test_records_of_which_a_signature_would_be_true_and_false_are_not_merged(other: PathInfo, reason: str) -> None:
    with pytest.raises(ConflictError, match=f"{NAME} is in the store (with )?{reason}"):
        HELLO.merged(other)
