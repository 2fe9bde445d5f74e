"""The JSON in which Nix describes store paths, in the forms of all its versions."""

from __future__ import annotations

from typing import Any

import pytest

from tvix_store.errors import InvalidError
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import NarFacts
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.operations.paths.nix_json import StatedPath, objects_by_path, stated_path

HASH = NixHash("sha256", bytes(range(32)))
NAME, OTHER, DERIVER = (f"{character * 32}-{name}" for character, name in (("0", "a"), ("1", "b"), ("2", "a.drv")))
PATH = f"{STORE_DIR}/{NAME}"
SIGNATURE = Signature("key-1", bytes(64))
IN_PARTS = {"algorithm": "sha256", "format": "base64", "hash": HASH.sri.removeprefix("sha256-")}

WANTED = StatedPath(
    StorePath.parse(NAME),
    NarFacts(120, HASH.digest),
    (StorePath.parse(NAME), StorePath.parse(OTHER)),
    (SIGNATURE,),
    StorePath.parse(DERIVER.removesuffix(".drv")),
    ContentAddress(Method.NAR, HASH),
)
OLD = {
    "narHash": HASH.sri,
    "narSize": 120,
    "references": [PATH, f"{STORE_DIR}/{OTHER}"],
    "ca": str(WANTED.ca),
    "deriver": f"{STORE_DIR}/{DERIVER}",
    "signatures": [str(SIGNATURE)],
    "registrationTime": 1,
    "ultimate": True,
}
NEW = {
    **OLD,
    "references": [NAME, OTHER],
    "deriver": DERIVER,
    "ca": {"method": "nar", "hash": HASH.sri},
    "storeDir": STORE_DIR,
    "version": 2,
}
FORMS: dict[str, Any] = {
    "2.8, a list": [{"path": PATH, **OLD}],
    "2.19, an object by path": {PATH: OLD},
    "2.32, hashes in parts": {PATH: {**OLD, "narHash": IN_PARTS, "ca": {"method": "nar", "hash": IN_PARTS}}},
    "2.33, with base names": {"info": {NAME: NEW}, "storeDir": STORE_DIR, "version": 2},
    "2.36, signatures in parts": {
        "info": {NAME: {**NEW, "signatures": [dict(zip(("keyName", "sig"), str(SIGNATURE).split(":"), strict=True))]}},
    },
    "a graph of references, by other attributes": {
        "builder": "/bin/sh",
        "closure": [{"path": PATH, "valid": True, **OLD, "narHash": HASH.nixbase32, "closureSize": 240}],
        "empty": [],
        "names": ["a"],
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(form: str) -> None:
    [(path, stated)] = objects_by_path(FORMS[form]).items()
    assert stated is not None
    assert stated_path(path, stated, STORE_DIR) == WANTED


def test_what_is_left_out_is_not_there() -> None:
    stated = stated_path(PATH, {"narHash": HASH.sri, "narSize": 120, "deriver": None, "ca": None, "references": []}, STORE_DIR)
    assert stated == StatedPath(WANTED.store_path, WANTED.nar)


@pytest.mark.parametrize("document", [[{"path": PATH, "valid": False}], {PATH: None}, {"info": {PATH: None}}])
def test_paths_that_are_not_valid_are_told(document: Any) -> None:
    assert objects_by_path(document) == {PATH: None}


@pytest.mark.parametrize("document", [1, "x", None, ["x"], [{"narHash": ""}], {"a": 1}, {"a": []}, {"a": ["b"]}])
def test_other_json_is_refused(document: Any) -> None:
    with pytest.raises(InvalidError, match="store paths"):
        objects_by_path(document)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"narHash": None}, "narHash is missing"),
        ({"narHash": 1}, "narHash is malformed"),
        ({"narHash": "sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA="}, "narHash: it is sha1, not sha256"),
        ({"narHash": "md5"}, "narHash: not a hash"),
        ({"narSize": -1}, "narSize is malformed"),
        ({"narSize": True}, "narSize is malformed"),
        ({"references": "x"}, "references is malformed"),
        ({"references": ["/elsewhere/x"]}, "references: not a store path"),
        ({"references": [1]}, "references: expected a text, not 1"),
        ({"deriver": f"{STORE_DIR}/{OTHER}"}, r"deriver: .* does not end in \.drv"),
        ({"ca": "fixed:git:sha1:" + "0" * 40}, "ca: .*the method 'git' with 'sha1'"),
        ({"ca": {"method": "git", "hash": HASH.sri}}, "ca: the method 'git' is not one that can be kept"),
        ({"ca": {"method": "text", "hash": "sha512-" + "A" * 86 + "=="}}, "ca: there are no content addresses by text:sha512"),
        ({"ca": {}}, "ca is malformed"),
        ({"signatures": ["x"]}, "signatures: not a signature"),
        ({"signatures": [{}]}, "signatures is malformed"),
    ],
)
def test_a_bad_value_is_refused_by_path_and_key(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidError, match=f"^{PATH}: ({reason})"):
        stated_path(PATH, {**OLD, **changed}, STORE_DIR)
