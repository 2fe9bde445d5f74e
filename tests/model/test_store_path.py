"""Store paths: their text, their names, and what counts as one on a command line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import vectors
from tvix_store.errors import InvalidError
from tvix_store.model import nixbase32
from tvix_store.model.store_path import StorePath, check_store_path_name, fixed_output_path, parse_output_hash
from tvix_store.testing import strategies

HASH = "n4hss129xrln71w0nss39bcx6hzsh9bg"


@given(strategies.store_paths())
def test_a_store_path_survives_its_texts(path: StorePath) -> None:
    assert StorePath.from_base_name(str(path)) == path
    assert StorePath.parse(str(path)) == path
    assert StorePath.parse(path.absolute()) == path
    assert StorePath.parse(path.absolute("/tmp/store"), "/tmp/store") == path
    assert StorePath.parse(path.absolute("/tmp/store"), "/tmp/store/") == path


@given(strategies.store_paths())
def test_the_output_hash_is_found_in_every_text_of_a_path(path: StorePath) -> None:
    for text in (path.absolute(), str(path), nixbase32.encode(path.output_hash)):
        assert parse_output_hash(text) == path.output_hash


@pytest.mark.parametrize(
    "text",
    [
        "",
        HASH,
        f"{HASH}-",
        f"{HASH}_hello",
        f"{HASH}-.",
        f"{HASH}-..",
        f"{HASH}-.-hello",
        f"{HASH}-..-hello",
        f"{HASH}-hel lo",
        f"{HASH}-hello\n",
        f"{HASH}-hello/",
        f"{HASH[:-1]}-hello",
        f"{HASH.upper()}-hello",
        f"/gnu/store/{HASH}-hello",
        f"/nix/store/{HASH}-hello/bin",
        f"/nix/store//{HASH}-hello",
        f"{'e' * 32}-hello",
        f"{HASH}-héllo",
    ],
)
def test_what_is_not_a_store_path_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        StorePath.parse(text)
    if text != HASH:
        with pytest.raises(InvalidError):
            parse_output_hash(text)


def test_a_base_name_is_not_read_from_an_absolute_path() -> None:
    with pytest.raises(InvalidError, match="not a store path"):
        StorePath.from_base_name(f"/nix/store/{HASH}-hello")


@pytest.mark.parametrize("size", [0, 19, 21, 32])
def test_an_output_hash_of_the_wrong_length_is_refused(size: int) -> None:
    with pytest.raises(InvalidError, match=f"output hash must be 20 bytes, got {size}"):
        StorePath(bytes(size), "hello")


@pytest.mark.parametrize("vector", vectors.nix()["names"], ids=lambda vector: ascii(vector["name"][:20]))
def test_names_are_allowed_as_in_nix(vector: dict[str, Any]) -> None:
    if vector["accepted"]:
        assert check_store_path_name(vector["name"]) == vector["name"]
    else:
        with pytest.raises(InvalidError, match="not a store path name"):
            check_store_path_name(vector["name"])


@pytest.mark.parametrize("name", [".p10k.zsh", "..p10k", "...", "..a-b", ".a-b", "...-a", "a-.", "a-..", "-.", ".=-"])
def test_a_name_may_begin_with_a_dot(name: str) -> None:
    assert StorePath.from_base_name(f"{HASH}-{name}").name == name


@pytest.mark.parametrize("name", [".", "..", ".-", "..-", ".-a", "..-a", ".-.", "..-..", ".--", ".\n", "..\n"])
def test_the_part_up_to_the_first_dash_is_neither_of_the_directories_that_dots_mean(name: str) -> None:
    """Nix 2.34 refuses these, and 2.8 takes them."""
    with pytest.raises(InvalidError, match="not a store path name"):
        check_store_path_name(name)


@given(st.binary(min_size=32, max_size=32), strategies.store_path_names(), st.lists(strategies.store_paths(), unique=True))
def test_the_order_of_references_does_not_change_a_path(nar_sha256: bytes, name: str, references: list[StorePath]) -> None:
    path = fixed_output_path(name, nar_sha256, references)
    assert path == fixed_output_path(name, nar_sha256, references[::-1])
    assert (path == fixed_output_path(name, nar_sha256)) == (not references)
    assert path != fixed_output_path(name, nar_sha256, references, self_reference=True)
    assert path != fixed_output_path(name, nar_sha256, references, "/tmp/store")
