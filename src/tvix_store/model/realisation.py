"""Realisation: the store path of an output of a content-addressed derivation, as Nix writes it into a binary cache.

Two forms are in use, both JSON. Until Nix 2.34, `realisations/<derivation hash>!<output>.doi` holds `id`, `outPath`,
`dependentRealisations` and `signatures`. From 2.35 on, `build-trace-v2/<derivation>/<output>.doi` holds `outPath` and
`signatures`, and the name alone says of which output. A signature is `name:base64`, or `{"keyName": name, "sig": base64}`.
It is made over JSON without spaces, with sorted keys, without the signatures; for the newer form, over `{"key": …, "value": …}`.
Recorded from Nix 2.8 in the tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvix_store.errors import InvalidError
from tvix_store.model.signature import PublicKey, Signature, check_count
from tvix_store.model.store_path import StorePath

OUTPUT_NAME = r"[0-9A-Za-z+\-._?=]{1,211}"
"""A regular expression for names of outputs."""
REALISATION = rf"sha(?:256:[0-9a-f]{{64}}|512:[0-9a-f]{{128}}|1:[0-9a-f]{{40}})!{OUTPUT_NAME}"
"""A regular expression for names of realisations: the hash of a derivation, and an output."""
_ID = re.compile(REALISATION)


@dataclass(frozen=True, slots=True)
class Realisation:
    """A realisation. It has only the parts that signatures cover. So another reader of JSON, which reads the text differently,
    gains nothing.

    what: The name of the output, for messages.
    document: The JSON of the realisation, made anew.
    fingerprint: The bytes that signatures sign.
    """

    what: str
    document: bytes
    fingerprint: bytes
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, text: bytes, output: str) -> Realisation:
        """Read the document at `realisations/<output>.doi`.

        Raises:
            InvalidError: it is malformed, or of another output.
        """
        told = _object(text, output)
        identity = told.get("id")
        if identity != output:
            raise InvalidError(f"asked for the realisation {output}, it describes {str(identity)[:300]!r}")
        depends = told.get("dependentRealisations", {})
        if not isinstance(depends, dict) or not all(map(_ID.fullmatch, depends)):
            raise InvalidError(f"the realisation {output}: dependentRealisations do not map realisations to paths")
        signed = {
            "dependentRealisations": {each: _path(path, output) for each, path in depends.items()},
            "id": output,
            "outPath": _path(told.get("outPath"), output),
        }
        return cls._made(output, told, signed, signed)

    @classmethod
    def parse_build_trace(cls, text: bytes, derivation: str, output: str) -> Realisation:
        """Read the document at `build-trace-v2/<derivation>/<output>.doi`.

        Raises:
            InvalidError: it is malformed.
        """
        what = f"{derivation}/{output}"
        told = _object(text, what)
        value = {"outPath": _path(told.get("outPath"), what)}
        return cls._made(what, told, value, {"key": {"drvPath": derivation, "outputName": output}, "value": value})

    @classmethod
    def _made(cls, what: str, told: dict[str, Any], value: dict[str, Any], signed: dict[str, Any]) -> Realisation:
        given = told.get("signatures", [])
        if not isinstance(given, list):
            raise InvalidError(f"the realisation {what}: its signatures are not a list")
        check_count(given)
        signatures = tuple(_signature(each, what) for each in given)
        return cls(what, _json({**value, "signatures": given}), _json(signed), signatures)

    def check_signatures(self, trusted: Sequence[PublicKey]) -> int:
        """How many of the signatures are by trusted keys, and good.

        Raises:
            InvalidError: a signature bears the name of a trusted key, and is not that key's.
        """
        names = {key.name for key in trusted}
        signatures = [signature for signature in self.signatures if signature.name in names]
        for signature in signatures:
            if not any(key.verifies(signature, self.fingerprint) for key in trusted):
                raise InvalidError(f"the realisation {self.what}: bad signature by {signature.name}")
        return len(signatures)


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise InvalidError(f"the realisation {what} is no JSON object")
    return told


def _path(text: object, what: str) -> str:
    """The base name of a store path."""
    if not isinstance(text, str) or "/" in text:
        raise InvalidError(f"the realisation {what}: {str(text)[:300]!r} is not the base name of a store path")
    StorePath.parse(text)
    return text


def _signature(given: object, what: str) -> Signature:
    match given:
        case str(text) if text.isascii():
            return Signature.parse(text)
        case {"keyName": str(name), "sig": str(data), **more} if not more and name.isascii() and data.isascii():
            return Signature.parse(f"{name}:{data}")
    raise InvalidError(f"the realisation {what}: {str(given)[:100]!r} is not a signature")


def _json(value: object) -> bytes:
    """As Nix writes it: without spaces, sorted by key."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
