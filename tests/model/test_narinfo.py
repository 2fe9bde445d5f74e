"""The `.narinfo` text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import vectors
from tvix_store.errors import InvalidError
from tvix_store.model.narinfo import MAX_NARINFO, NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import MAX_SIGNATURES
from tvix_store.testing import strategies

OTHER = "b" * 31 + "0-other"
TEXT = f"""\
StorePath: /nix/store/{"a" * 31}0-hello
URL: nar/hello.nar.xz
Compression: xz
FileHash: sha256:{"0" * 52}
FileSize: 100
NarHash: sha256:{"1" * 51}0
NarSize: 120
References: {OTHER}
Deriver: {"c" * 31}0-hello.drv
System: x86_64-linux
Sig: k:{"A" * 86}==
Sig: l:{"A" * 86}==
CA: fixed:r:sha256:{"0" * 52}
""".replace(f"{'1' * 51}0", f"0{'1' * 51}")


NOT_NUMBERS = ("", "-1", "1e3", "٣", "1" * 21, str(2**64))


def parse(text: str) -> NarInfo:
    return NarInfo.parse(text.encode())


def changed(key: str, value: str | None) -> str:
    """TEXT with another value, or without the line."""
    lines = [line for line in TEXT.splitlines(keepends=True) if not line.startswith(f"{key}:")]
    return "".join([*lines, f"{key}: {value}\n"] if value is not None else lines)


@given(strategies.narinfos())
def test_a_narinfo_survives_its_text(narinfo: NarInfo) -> None:
    assert NarInfo.parse(narinfo.format()) == narinfo
    assert NarInfo.parse(narinfo.format("/tmp/store"), "/tmp/store") == narinfo


@pytest.mark.parametrize("text", [*vectors.nix()["signatures"]["narinfos"], TEXT], ids=["alone", "text", "built", "every-key"])
def test_the_text_is_the_one_that_nix_writes(text: str) -> None:
    assert parse(text).format().decode() == text


@given(strategies.path_infos(), strategies.nix_hashes("sha256"))
def test_a_path_info_survives_a_narinfo(path_info: PathInfo, file_hash: NixHash) -> None:
    narinfo = NarInfo.of(path_info, "nar/a.nar.zst", "zstd", file_hash, 1234)
    assert NarInfo.parse(narinfo.format()).path_info(path_info.node) == path_info
    assert narinfo.fingerprint() == path_info.fingerprint()
    assert (narinfo.url, narinfo.compression, narinfo.file_hash, narinfo.file_size) == ("nar/a.nar.zst", "zstd", file_hash, 1234)


@given(strategies.narinfos(), strategies.nodes())
def test_the_path_info_of_a_narinfo_has_the_node_that_its_nar_held(narinfo: NarInfo, node: Node) -> None:
    path_info = narinfo.path_info(node)
    assert path_info.node == node
    assert NarInfo.of(path_info, narinfo.url, narinfo.compression, narinfo.file_hash, narinfo.file_size) == replace(
        narinfo, system=None
    )


def test_the_order_of_lines_and_unknown_keys_have_no_meaning() -> None:
    lines = TEXT.splitlines(keepends=True)
    assert parse("".join([*lines[:10][::-1], *lines[10:], "Colour: blue: and: green\n", "Colour: red\n"])) == parse(TEXT)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Compression", "bzip2"),
        ("FileHash", None),
        ("FileSize", None),
        ("References", ""),
        ("Deriver", None),
        ("System", None),
        ("CA", None),
    ],
)
def test_a_missing_line_has_a_meaning(key: str, value: str | None) -> None:
    missing = parse(changed(key, None))
    if value is None:
        assert f"{key}:" not in missing.format().decode()
    else:
        assert missing == parse(changed(key, value))


def test_a_file_hash_of_an_unknown_algorithm_is_not_needed() -> None:
    assert parse(changed("FileHash", "sha3-256:" + "0" * 52)) == parse(changed("FileHash", None))


def test_an_unknown_deriver_is_none() -> None:
    assert parse(changed("Deriver", "unknown-deriver")).deriver is None


def test_a_value_may_be_empty_without_a_space() -> None:
    assert parse(changed("References", "").replace("References: \n", "References:\n")).references == ()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "its last line is cut short"),
        ("\n", "line 1 is not"),
        (TEXT[:-1], "its last line is cut short"),
        (TEXT + "\n", "line 14 is not `Key: value`"),
        (TEXT + "Colour\n", "line 14 is not `Key: value`"),
        (TEXT + "Colour:blue\n", "line 14 is not `Key: value`"),
        (TEXT + ": blue\n", "line 14 is not `Key: value`"),
        *((changed(key, None), f"{key} is missing") for key in ("StorePath", "URL", "NarHash", "NarSize")),
        *(
            (TEXT + line + "\n", f"{line.partition(':')[0]} is there twice \\(line 14\\)")
            for line in TEXT.splitlines()
            if not line.startswith("Sig:")
        ),
        (changed("StorePath", OTHER), "is not in /nix/store"),
        (changed("StorePath", f"/gnu/store/{OTHER}"), "is not in /nix/store"),
        (changed("StorePath", "/nix/store/hello"), "not a store path"),
        (changed("URL", ""), "URL '' is not one word"),
        (changed("URL", "a b"), "URL 'a b' is not one word"),
        (changed("URL", "a\r"), "URL .* is not one word"),
        (changed("Compression", "x z"), "Compression 'x z' is not one word"),
        (changed("NarHash", "sha256:0"), "narinfo: NarHash: not a hash"),
        (changed("NarHash", "foo:" + "0" * 52), "narinfo: NarHash: unknown hash algorithm 'foo'"),
        (changed("NarHash", "sha1:" + "0" * 32), "NarHash is sha1, not sha256"),
        (changed("NarHash", "blake3:" + "0" * 52), "NarHash is blake3, not sha256"),
        (changed("NarHash", "sha3:" + "0" * 52), "unknown hash algorithm 'sha3'"),
        (changed("FileHash", ""), "narinfo: FileHash: not a hash"),
        *((changed("NarSize", value), "NarSize .* is not a number") for value in NOT_NUMBERS),
        *((changed("FileSize", value), "FileSize .* is not a number") for value in NOT_NUMBERS),
        (changed("NarSize", "0"), "NarSize is 0"),
        (changed("References", "hello"), "not a store path"),
        (changed("References", f"/nix/store/{OTHER}"), "not a store path"),
        (changed("References", f"{OTHER} {OTHER}"), "twice in References"),
        (changed("Deriver", OTHER), "does not end with .drv"),
        (changed("Deriver", "hello.drv"), "not a store path"),
        (changed("Sig", "nonsense"), "not a signature"),
        (changed("CA", "nonsense"), "not a content address"),
    ],
)
def test_a_narinfo_that_breaks_a_rule_is_refused_by_the_name_of_the_rule(text: str, rule: str) -> None:
    with pytest.raises(InvalidError, match=rule):
        parse(text)


def test_a_signature_that_stands_there_often_counts_once() -> None:
    signature = f"k:{'A' * 86}=="
    read = parse(TEXT + f"Sig: {signature}\n" * 35_000)
    assert list(map(str, read.signatures)) == [signature, signature.replace("k", "l")]


def test_signatures_are_bounded_before_they_are_read() -> None:
    without = changed("Sig", None)
    many = [f"Sig: key-{number}:{'A' * 86}==\n" for number in range(MAX_SIGNATURES)]
    assert len(parse(without + "".join(many)).signatures) == MAX_SIGNATURES
    with pytest.raises(InvalidError, match="a path may have 64 signatures, not 65"):
        parse(without + "".join(many) + "Sig: nonsense\n")


def test_a_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(InvalidError, match="not UTF-8"):
        NarInfo.parse(TEXT.encode() + b"Colour: \xff\n")


def test_a_text_over_the_limit_is_refused_before_it_is_read() -> None:
    comment = TEXT.encode() + b"Colour: "
    fits = comment + b"x" * (MAX_NARINFO - len(comment) - 1) + b"\n"
    assert NarInfo.parse(fits) == parse(TEXT)
    with pytest.raises(InvalidError, match="are more than"):
        NarInfo.parse(fits + b"\n")


@given(strategies.damaged(strategies.narinfos().map(NarInfo.format)))
def test_a_damaged_text_is_refused_or_read_as_what_it_says(text: bytes) -> None:
    read = parsed(text)
    if isinstance(read, NarInfo):
        assert NarInfo.parse(read.format()) == read
    else:
        assert read.isprintable()


def parsed(data: bytes) -> NarInfo | str:
    """The NARInfo, or why it is refused."""
    try:
        return NarInfo.parse(data)
    except InvalidError as error:
        return str(error)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidError):
        NarInfo.parse(data)


def test_a_size_may_have_64_bits() -> None:
    narinfo = parse(changed("FileSize", str(2**64 - 1)))
    assert narinfo.file_size == 2**64 - 1
    assert narinfo == NarInfo.parse(narinfo.format())
