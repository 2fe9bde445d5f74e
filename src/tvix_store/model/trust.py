"""Trust: whose signatures count, and which signatures a path keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvix_store.errors import InvalidError
from tvix_store.model.signature import MAX_SIGNATURES, PublicKey, Signature
from tvix_store.model.store_path import STORE_DIR

MAX_UNKNOWN = 16
"""Places that a path has for signatures by keys that are not trusted: whether these are any good, nobody can tell."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys that are trusted, and the store directory of the paths that they sign."""

    keys: tuple[PublicKey, ...] = ()
    store_dir: str = STORE_DIR

    def good(self, signatures: Sequence[Signature], message: bytes) -> list[Signature]:
        """Those of the signatures that a trusted key has made over `message`, in order. Each with a key's name takes some 50 µs."""
        return [signature for signature in signatures if any(key.verifies(signature, message) for key in self.keys)]

    def united(self, known: Sequence[Signature], more: Sequence[Signature], message: bytes) -> tuple[Signature, ...]:
        """The signatures that a path with the `known` ones keeps when `more` come. All claim to sign `message`.

        Where there are many, those by trusted keys come first, and always have a place. The others have few, by their age.

        Raises:
            InvalidError: there is no place for the new ones of `more`, and none of these is by a trusted key.
        """
        known = tuple(dict.fromkeys(known))
        new = [signature for signature in dict.fromkeys(more) if signature not in known]
        if not new or len(known) + len(new) <= MAX_UNKNOWN:
            return (*known, *new)
        trusted = self.good((*known, *new), message)
        old = [signature for signature in known if signature not in trusted]
        unknown = [signature for signature in new if signature not in trusted]
        places = max(0, MAX_UNKNOWN - len(old))
        if len(unknown) > places and len(unknown) == len(new):
            raise InvalidError(
                f"a path may have {MAX_UNKNOWN} signatures by keys that are not trusted here, not {len(old) + len(unknown)}"
            )
        return (*trusted, *old, *unknown[:places])[:MAX_SIGNATURES]


NOBODY = Trust()
"""Trust in no key."""
