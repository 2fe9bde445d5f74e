"""A realisation is one of the output that was asked for."""

from __future__ import annotations

import json

import pytest

from tvix_store.errors import InvalidError
from tvix_store.model.realisation import Realisation

ONE, OTHER = (f"sha256:{digit * 64}!out" for digit in "01")
PATH = "1" * 32 + "-app"


def test_a_realisation_of_another_output_is_refused_whoever_signs_it() -> None:
    document = json.dumps({"id": ONE, "outPath": PATH}).encode()
    assert Realisation.parse(document, ONE).signatures == ()
    with pytest.raises(InvalidError, match=f"asked for the realisation {OTHER}, it describes '{ONE}'"):
        Realisation.parse(document, OTHER)
    with pytest.raises(InvalidError, match="it describes 'None'"):
        Realisation.parse(json.dumps({"outPath": PATH}).encode(), ONE)
