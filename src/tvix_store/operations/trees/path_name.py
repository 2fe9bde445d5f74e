"""PathName: what a person writes for a store path, and what to say where that is none, or is not the path that a store has."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.nixbase32 import decode
from tvix_store.model.store_path import StorePath

_HASH_CHARACTERS = 32
_ELSEWHERE = re.compile("(/.+)/[0-9a-z]{32}-[^/]+(?:/|$)")
"""A store path of some store directory."""
_OF_CONTENT = ("sha256-", "sha256:", "sha512-", "sha512:")
OF_NIX = "names a package for Nix; nix build makes it, and nix path-info prints its store path"
"""What to say of an installable."""
_LONGEST = 250
"""Characters of a text that a message shows."""


@dataclass(frozen=True, slots=True)
class PathName:
    """A store path, its base name, or its hash alone.

    text: As it was written.
    name: The name behind the hash. None where only the hash was written.
    """

    text: str
    output_hash: bytes
    name: str | None

    @classmethod
    def parse(cls, text: str, store_dir: str) -> PathName:
        """Read `<store_dir>/<hash>-<name>`, `<hash>-<name>` or `<hash>`.

        Raises:
            InvalidError: `text` is none of these. The message has a hint where it is, for example, a path on the disk.
        """
        return cls._read(text, store_dir, text)

    @classmethod
    def split(cls, text: str, store_dir: str) -> tuple[PathName, str]:
        """Read the same, with `/path/inside` behind it, or nothing: the name, and the path inside without the slash.

        Raises:
            InvalidError: as `parse`.
        """
        prefix = f"{store_dir}/" if text.startswith(f"{store_dir}/") else ""
        base, _, inner = text.removeprefix(prefix).partition("/")
        return cls._read(prefix + base, store_dir, text), inner

    @classmethod
    def _read(cls, text: str, store_dir: str, whole: str) -> PathName:
        base = text.removeprefix(store_dir + "/")
        try:
            if len(base) == _HASH_CHARACTERS:
                return cls(text, decode(base), None)
            path = StorePath.from_base_name(base)
        except InvalidError as error:
            raise InvalidError(_refusal(whole, store_dir, error)) from None
        return cls(text, path.output_hash, path.name)

    def check(self, found: StorePath | None, place: str) -> None:
        """See that the path that `place` has for the hash is the one that was meant.

        Raises:
            NotFoundError: there is none, or it has another name.
        """
        if found is None:
            raise NotFoundError("store path", self.text, place=place)
        if self.name not in (None, found.name):
            where = f"the store {place}".rstrip()
            message = f"store path {self.text} is not in {where}; the path with this hash is {found}"
            raise NotFoundError("store path", self.text, message=message)


def is_on_disk(text: str) -> bool:
    """Whether there is a file, a directory or a symlink at a path."""
    return bool(text) and "\0" not in text and os.path.lexists(text)


def is_installable(text: str) -> bool:
    """Whether a text is what Nix calls an installable: `nixpkgs#hello`, `.#`."""
    return "#" in text and not is_on_disk(text)


def _refusal(text: str, store_dir: str, error: InvalidError) -> str:
    base, _, inner = text.removeprefix(store_dir + "/").partition("/")
    what = f"not a store path: {text[:_LONGEST]!r}"
    elsewhere = _ELSEWHERE.match(text)
    if elsewhere is not None and elsewhere[1] != store_dir:
        return f"{what} (the paths of this store are in {store_dir})"
    if text.startswith(_OF_CONTENT):
        return f"{what} is the hash of some content; a store path begins with the {_HASH_CHARACTERS} characters before its name"
    if is_on_disk(text) and text.rstrip("/") != store_dir:
        return f"{what} is {_kind(text, store_dir)}"
    if is_installable(text):
        return f"{what} {OF_NIX}"
    if len(base) == _HASH_CHARACTERS or base[_HASH_CHARACTERS : _HASH_CHARACTERS + 1] == "-":
        return f"{what} is a path inside one; name the whole one, {base}" if inner else f"{what}: {error}"
    where = f"{store_dir}/" if text.startswith(store_dir) else ""
    return f"{what} (expected {where}<{_HASH_CHARACTERS} characters>-<name>)"


def _kind(text: str, store_dir: str) -> str:
    """What is at a path on the disk, and what to do."""
    target = os.readlink(text) if os.path.islink(text) else ""
    if target.startswith(store_dir + "/"):
        return f"a symlink on the disk; the store path that it leads to is {target}"
    kind = "a directory" if os.path.isdir(text) else "a file"
    return f"{kind} on the disk; tvix-store import {text} stores it, and prints its store path"
