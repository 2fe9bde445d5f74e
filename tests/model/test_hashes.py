"""Digest, NixHash and nixbase32, against what the real Nix printed."""

from __future__ import annotations

import base64

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from tests import vectors
from tvix_store.errors import InvalidError
from tvix_store.model import nixbase32
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.nix_hash import NixHash
from tvix_store.testing import strategies


@pytest.mark.parametrize("vector", vectors.nix()["hashes"], ids=lambda vector: f"{vector['algorithm']}-{vector['hex'][:8]}")
def test_hashes_are_written_and_read_as_nix_does(vector: dict[str, str]) -> None:
    expected = NixHash(vector["algorithm"], bytes.fromhex(vector["hex"]))
    nix_base32 = vector["nixbase32"]
    assert nixbase32.encode(expected.digest) == nix_base32
    assert nixbase32.decode(nix_base32) == expected.digest
    assert expected.sri == vector["sri"]
    for text in (f"{expected.algorithm}:{nix_base32}", f"{expected.algorithm}:{vector['hex']}", vector["sri"], str(expected)):
        assert NixHash.parse(text) == expected


@given(strategies.nix_hashes())
def test_a_hash_survives_its_texts(value: NixHash) -> None:
    colon_base64 = f"{value.algorithm}:{base64.b64encode(value.digest).decode()}"
    for text in (str(value), value.nixbase32, value.sri, colon_base64, f"{value.algorithm}:{value.digest.hex()}"):
        assert NixHash.parse(text) == value


@given(st.binary(max_size=70))
def test_nixbase32_has_one_text_for_each_bytes(data: bytes) -> None:
    text = nixbase32.encode(data)
    assert len(text) == nixbase32.encoded_length(len(data))
    assert nixbase32.decode(text) == data


@given(st.text(nixbase32.ALPHABET, max_size=60))
def test_nixbase32_text_that_is_accepted_is_the_one_that_would_be_written(text: str) -> None:
    try:
        data = nixbase32.decode(text)
    except InvalidError:
        return
    assert nixbase32.encode(data) == text


@pytest.mark.parametrize("text", ["0e", "0A", "0é", "0 ", "-0"])
def test_nixbase32_refuses_characters_that_are_not_its_own(text: str) -> None:
    with pytest.raises(InvalidError, match="holds"):
        nixbase32.decode(text)


def test_nixbase32_refuses_bits_behind_the_last_byte() -> None:
    assert nixbase32.decode("7z") == b"\xff"
    with pytest.raises(InvalidError, match="bits set behind its last byte"):
        nixbase32.decode("8z")


def test_nixbase32_refuses_lengths_that_no_bytes_have() -> None:
    with pytest.raises(InvalidError, match="impossible length"):
        nixbase32.decode("0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256-",
        "sha3:" + "0" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + " " * 64,
        "sha256:" + "e" * 52,
        "sha256-" + "0" * 52,
        "sha256:" + "A" * 43,
        "sha1:" + base64.b64encode(bytes(32)).decode(),
    ],
)
def test_what_is_not_a_hash_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        NixHash.parse(text)


def test_a_hash_of_the_wrong_length_cannot_be_made() -> None:
    with pytest.raises(InvalidError, match="a md5 digest is 16 bytes, got 15"):
        NixHash("md5", bytes(15))
    with pytest.raises(InvalidError, match="unknown hash algorithm 'crc32'"):
        NixHash("crc32", bytes(4))


@given(strategies.digests())
def test_a_digest_survives_its_texts(digest: Digest) -> None:
    for text in (str(digest), digest.hex, digest.base64, f"b3:{digest.base64}", f"blake3-{digest.base64}"):
        assert Digest.parse(text) == digest


@given(st.binary())
def test_the_digest_of_bytes_is_their_blake3(data: bytes) -> None:
    assert Digest.of(data).raw == Digest.of(memoryview(data)).raw == blake3(data).digest()


def test_the_digest_of_nothing_is_the_published_one() -> None:
    assert EMPTY.hex == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.parametrize("text", ["", "b3:", "x" * 64, " " * 64, "0" * 63, "=" * 44, "é" * 44, "A" * 44, "A" * 43 + "-"])
def test_what_is_not_a_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        Digest.parse(text)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_digest_of_the_wrong_length_cannot_be_made(size: int) -> None:
    with pytest.raises(InvalidError, match=f"digest must be 32 bytes, got {size}"):
        Digest(bytes(size))
