"""Keys and signatures, against PyNaCl and what the real Nix signed."""

from __future__ import annotations

import base64
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey, VerifyKey

from tests import vectors
from tvix_store.errors import InvalidError
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import PublicKey, SecretKey, Signature, fingerprint
from tvix_store.model.store_path import StorePath
from tvix_store.testing import strategies

NIX = vectors.nix()["signatures"]


@pytest.mark.parametrize("text", NIX["narinfos"], ids=["alone", "text", "built"])
def test_a_signature_of_nix_verifies_and_is_the_one_that_we_make(text: str) -> None:
    narinfo = NarInfo.parse(text.encode())
    secret, public = SecretKey.parse(NIX["secret_key"]), PublicKey.parse(NIX["public_key"])
    assert secret.public == public
    [signature] = narinfo.signatures
    assert public.verifies(signature, narinfo.fingerprint())
    assert secret.sign(narinfo.fingerprint()) == signature


def test_a_fingerprint_lists_references_as_full_paths_sorted() -> None:
    paths = [StorePath(bytes([n]) * 20, f"p{n}") for n in (2, 1)]
    line = fingerprint(paths[0], bytes(32), 112, paths, "/s").decode()
    assert line == f"1;/s/{paths[0]};sha256:{'0' * 52};112;" + ",".join(sorted(f"/s/{path}" for path in paths))


@given(strategies.path_infos(), strategies.secret_keys())
def test_a_path_info_that_was_signed_verifies_whatever_the_order_of_its_references(path_info: PathInfo, key: SecretKey) -> None:
    signature = key.sign(path_info.fingerprint())
    reordered = PathInfo(path_info.store_path, path_info.node, path_info.nar, path_info.references[::-1])
    assert key.public.verifies(signature, reordered.fingerprint())
    assert not key.public.verifies(signature, path_info.fingerprint("/another/store"))


@given(strategies.secret_keys(), st.binary())
def test_signatures_are_those_of_pynacl(key: SecretKey, message: bytes) -> None:
    signature = key.sign(message)
    assert signature.data == SigningKey(key.data[:32]).sign(message).signature
    assert VerifyKey(key.public.data).verify(message, signature.data) == message


@given(strategies.secret_keys(), st.binary(min_size=1), st.data())
def test_a_signature_verifies_only_as_a_whole(key: SecretKey, message: bytes, data: st.DataObject) -> None:
    signature = key.sign(message)
    position = data.draw(st.integers(0, 63))
    spoilt = bytearray(signature.data)
    spoilt[position] ^= data.draw(st.integers(1, 255))
    assert key.public.verifies(signature, message)
    assert not key.public.verifies(Signature(signature.name, bytes(spoilt)), message)
    assert not key.public.verifies(signature, message + b"\0")
    assert not key.public.verifies(Signature("somebody-else", signature.data), message)
    assert not PublicKey("somebody-else", key.public.data).verifies(signature, message)


@given(strategies.secret_keys())
def test_keys_survive_their_texts(key: SecretKey) -> None:
    assert SecretKey.parse(str(key)) == key
    assert SecretKey.parse(f" {key}\n") == key
    assert PublicKey.parse(str(key.public)) == key.public


@given(strategies.signatures())
def test_a_signature_survives_its_text_and_its_encoding(signature: Signature) -> None:
    assert Signature.parse(str(signature)) == signature
    assert Signature.decode(signature.encode()) == signature


def test_generated_keys_differ() -> None:
    assert SecretKey.generate("k") != SecretKey.generate("k")


def test_a_secret_key_does_not_print_itself() -> None:
    key = SecretKey.generate("cache.example.org-1")
    secret = base64.b64encode(key.data).decode()
    record = logging.LogRecord("log", logging.INFO, "", 0, "%r", (key,), None)
    for text in (repr(key), record.getMessage()):
        assert secret[:8] not in text
        assert repr(key.data)[:12] not in text


def encoded(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected name:base64"),
        (encoded(64), "expected name:base64"),
        (f":{encoded(64)}", "is not a key name"),
        *((f"{name}:{encoded(64)}", "is not a key name") for name in ("a b", "é", "a\x1b[31m", "n" * 257)),
        (f"name:{encoded(63)}", "has 63 bytes, expected 64"),
        (f"name:{encoded(65)}", "has 65 bytes, expected 64"),
        ("name:", "has 0 bytes, expected 64"),
        (f"name:{encoded(64)[:-1]}", "is not base64"),
        (f"name:é{encoded(64)}", "is not base64"),
        (f"name: {encoded(64)}", "is not base64"),
    ],
)
def test_what_is_not_a_signature_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidError, match=f"not a signature: .*{problem}"):
        Signature.parse(text)


def test_what_is_not_a_public_key_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"not a public key: .*has 64 bytes, expected 32"):
        PublicKey.parse(f"name:{encoded(64)}")


def test_a_secret_key_whose_halves_do_not_belong_together_is_refused() -> None:
    with pytest.raises(InvalidError, match="the two halves of 'name' do not belong together"):
        SecretKey.parse(f"name:{encoded(64)}")


def test_the_message_about_a_bad_secret_key_does_not_hold_it() -> None:
    secret = base64.b64encode(bytes(range(64))).decode()
    for text in (secret, f"name:{secret}", f"name:{secret}="):
        with pytest.raises(InvalidError) as caught:
            SecretKey.parse(text)
        assert secret[:10] not in str(caught.value)
