"""Which signatures and which deriver a path keeps: those of trusted keys have a place, the others few."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tvix_store.errors import InvalidError
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import MAX_SIGNATURES, SecretKey, Signature
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import MAX_UNKNOWN, NOBODY, Trust

KEY, SECOND = SecretKey.from_seed("trusted-1", b"k" * 32), SecretKey.from_seed("trusted-2", b"l" * 32)
TRUST = Trust((KEY.public, SECOND.public))
PLAIN = PathInfo(StorePath(bytes(20), "path"), SymlinkNode(b"x"), NarFacts(112, bytes(32)))
GOOD, ALSO_GOOD = (key.sign(PLAIN.fingerprint()) for key in (KEY, SECOND))
FORGED = Signature(KEY.name, bytes(64))
OWN, OTHER = StorePath(b"d" * 20, "deriver"), StorePath(b"e" * 20, "other-deriver")


def junk(count: int, start: int = 0) -> tuple[Signature, ...]:
    return tuple(Signature(f"junk-{number}", bytes(64)) for number in range(start, start + count))


def signed(*signatures: Signature, deriver: StorePath | None = None) -> PathInfo:
    return replace(PLAIN, signatures=signatures, deriver=deriver)


@pytest.mark.parametrize("count", [1, MAX_UNKNOWN, 63, MAX_SIGNATURES])
def test_junk_does_not_push_out_the_signature_of_a_trusted_key(count: int) -> None:
    for merged in (signed(*junk(count)).merged(signed(GOOD), TRUST), signed(GOOD).merged(signed(*junk(MAX_UNKNOWN)), TRUST)):
        assert GOOD in merged.signatures
        assert ALSO_GOOD in merged.merged(signed(ALSO_GOOD), TRUST).signatures


def test_trusted_signatures_come_first_where_there_are_many() -> None:
    merged = signed(*junk(63)).merged(signed(GOOD), TRUST).merged(signed(ALSO_GOOD), TRUST)
    assert merged.signatures == (GOOD, ALSO_GOOD, *junk(62))


def test_where_all_places_are_taken_no_more_signatures_by_unknown_keys_are() -> None:
    for trust in (NOBODY, TRUST):
        full = signed(*junk(MAX_UNKNOWN - 2)).merged(signed(*junk(2, start=100)), trust)
        assert len(full.signatures) == MAX_UNKNOWN
        with pytest.raises(InvalidError, match="16 signatures by keys that are not trusted here, not 17"):
            full.merged(signed(*junk(1, start=200)), trust)
        assert full.merged(signed(*junk(3)), trust) is full


def test_what_comes_beside_a_trusted_signature_is_kept_while_there_is_a_place() -> None:
    merged = signed(*junk(MAX_UNKNOWN - 1)).merged(signed(*junk(3, start=100), GOOD), TRUST)
    assert merged.signatures == (GOOD, *junk(MAX_UNKNOWN - 1), *junk(1, start=100))


def test_the_name_of_a_trusted_key_gives_no_place() -> None:
    with pytest.raises(InvalidError, match="not trusted here"):
        signed(*junk(MAX_UNKNOWN)).merged(signed(FORGED), TRUST)
    elsewhere = Trust(TRUST.keys, "/gnu/store")
    with pytest.raises(InvalidError, match="not trusted here"):
        signed(*junk(MAX_UNKNOWN)).merged(signed(GOOD), elsewhere)


@pytest.mark.parametrize(
    ("known", "newer", "kept"),
    [
        (signed(), signed(deriver=OWN), OWN),
        (signed(deriver=OWN), signed(deriver=OTHER), OWN),
        (signed(deriver=OWN), signed(), OWN),
        # Signed, by whomever: what comes unsigned is not added to it.
        (signed(GOOD), signed(deriver=OTHER), None),
        (signed(*junk(1)), signed(deriver=OTHER), None),
        (signed(GOOD), signed(*junk(1), deriver=OTHER), None),
        (signed(GOOD), signed(FORGED, deriver=OTHER), None),
        # Trusted keys have the last word.
        (signed(deriver=OTHER), signed(GOOD, deriver=OWN), OWN),
        (signed(GOOD, deriver=OTHER), signed(GOOD, deriver=OWN), OWN),
        (signed(GOOD, deriver=OWN), signed(GOOD), OWN),
        (signed(deriver=OWN), signed(*junk(1), deriver=OTHER), OWN),
    ],
)
def test_an_unsigned_deriver_does_not_stay_with_a_signed_path(known: PathInfo, newer: PathInfo, kept: StorePath | None) -> None:
    assert known.merged(newer, TRUST).deriver == kept
