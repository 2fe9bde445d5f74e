"""Store paths that follow from content, against those of the real Nix."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import vectors
from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.hash_modulo import HashModulo, ModuloHashes
from tvix_store.model.nix_hash import SIZES, NixHash, hasher
from tvix_store.model.store_path import StorePath, fixed_output_path
from tvix_store.testing import strategies

OWN = b"0123456789abcdfghijklmnpqrsvwxyz"


@pytest.mark.parametrize("vector", vectors.nix()["content_addressed"], ids=lambda vector: vector["path"][11:50])
def test_a_path_follows_from_its_content_address_as_in_nix(vector: dict[str, Any]) -> None:
    path = StorePath.parse(vector["path"])
    references = {StorePath.parse(reference) for reference in vector["references"]}
    ca = ContentAddress.parse(vector["ca"])
    assert ca.store_path(path.name, references - {path}, self_reference=path in references) == path


@given(strategies.content_addresses(), strategies.store_path_names(), strategies.store_paths())
def test_only_texts_and_nars_by_sha256_may_have_references(ca: ContentAddress, name: str, reference: StorePath) -> None:
    path = ca.store_path(name)
    for references, self_reference in (([reference], False), ([], True)):
        if ca.method is Method.NAR and ca.hash.algorithm == "sha256":
            assert ca.store_path(name, references, self_reference=self_reference) != path
        elif ca.method is Method.TEXT and not self_reference:
            assert ca.store_path(name, references) != path
        else:
            allowed = "to other store paths only" if ca.method is Method.TEXT else "to no store path"
            message = f"content addressed by {ca.method.value}{ca.hash.algorithm} may refer {allowed}"
            with pytest.raises(InvalidError, match=f"^{re.escape(message)}$"):
                ca.store_path(name, references, self_reference=self_reference)


@given(strategies.content_addresses(), strategies.store_path_names())
def test_every_method_has_its_own_path(ca: ContentAddress, name: str) -> None:
    others = {"sha256": [method for method in Method if method is not ca.method]}.get(ca.hash.algorithm, [])
    paths = {ca.store_path(name), *(ContentAddress(method, ca.hash).store_path(name) for method in others)}
    assert len(paths) == 1 + len(others)
    assert ca.store_path(name, store_dir="/elsewhere") not in paths


def test_a_nar_by_sha256_has_the_path_that_nix_store_add_gives() -> None:
    assert ContentAddress(Method.NAR, NixHash("sha256", bytes(32))).store_path("name") == fixed_output_path("name", bytes(32))


def modulo(algorithm: str, pieces: list[bytes], **limits: int) -> ModuloHashes:
    content_hash = HashModulo(algorithm, OWN, **limits)
    for piece in pieces:
        content_hash.update(piece)
    return content_hash.finish()


@pytest.mark.parametrize("algorithm", SIZES)
@given(data=st.binary(max_size=200))
def test_content_without_its_name_has_its_plain_hash(algorithm: str, data: bytes) -> None:
    plain = hasher(algorithm)
    plain.update(data)
    assert modulo(algorithm, [data]) == (0, *[NixHash(algorithm, plain.digest())] * 2)


PARTS = st.sampled_from([OWN, OWN[:31], OWN[1:], OWN[:16], b"", b"0", b"text", bytes(32), OWN * 2])


@given(parts=st.lists(PARTS, max_size=12), data=st.data())
def test_occurrences_are_hashed_as_zeros_and_by_position_however_the_content_is_cut(
    parts: list[bytes], data: st.DataObject
) -> None:
    content = b"".join(parts)
    positions = [at for at in range(len(content)) if content.startswith(OWN, at)]
    without = content.replace(OWN, bytes(32))
    hashes = [hashlib.sha256(each).digest() for each in (without + b"".join(b"|%d" % at for at in positions), without)]
    expected = (len(positions), *(NixHash("sha256", each) for each in hashes))
    assert modulo("sha256", data.draw(strategies.cut(content))) == expected
    assert modulo("sha256", [content[at : at + 1] for at in range(len(content))]) == expected


def test_zeros_are_not_taken_for_an_occurrence() -> None:
    assert modulo("sha256", [OWN]).with_positions != modulo("sha256", [bytes(32)]).with_positions
    assert modulo("sha256", [OWN + bytes(32)]).with_positions != modulo("sha256", [bytes(32) + OWN]).with_positions


def test_too_many_occurrences_are_refused() -> None:
    modulo("sha256", [OWN * 10], max_occurrences=10)
    with pytest.raises(ExhaustedError, match="refers to itself more than 10 times"):
        modulo("sha256", [OWN * 11], max_occurrences=10)
