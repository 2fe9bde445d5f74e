#!/usr/bin/env python3
"""Records in tests/vectors/nix.json what the real `nix` says of hashes, trees, store paths and signatures.

    python3 tools/record_nix_vectors.py

Needs `nix` on the PATH (Debian: apt-get install nix-bin). Everything happens in a store of its own in a temporary directory.
Run again, it writes the same file unless Nix changed its mind: the signing key is kept.

A tree is {"file": base64, "executable": bool} | {"symlink": base64} | {"directory": {base64 name: tree}}.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parent.parent / "tests/vectors/nix.json"
SIZES = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}
Tree = dict[str, Any]


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def file(data: bytes, *, executable: bool = False) -> Tree:
    return {"file": base64_text(data), "executable": executable}


def symlink(target: bytes) -> Tree:
    return {"symlink": base64_text(target)}


def directory(entries: Mapping[bytes, Tree]) -> Tree:
    return {"directory": {base64_text(name): entries[name] for name in sorted(entries)}}


def nested(depth: int) -> Tree:
    return directory({b"below": nested(depth - 1)}) if depth else file(b"at the bottom\n")


TREES: dict[str, Tree] = {
    "empty-file": file(b""),
    "empty-executable": file(b"", executable=True),
    "script": file(b"#!/bin/sh\necho hi\n", executable=True),
    "link": symlink(b"../elsewhere/\xff"),
    "longest-link": symlink(b"/".join([b"x" * 127] * 32)[:4095]),
    "empty-directory": directory({}),
    "every-padding": directory({b"%d" % size: file(bytes(range(size))) for size in range(18)}),
    "every-name-length": directory({b"n" * size: file(b"") for size in (*range(1, 18), 254, 255)}),
    "odd-names": directory(
        {name: file(name) for name in (b" ", b"...", b"-", b"\n", b"\x01", b"\xff\xfe", "é".encode(), b"a b", b"\\", b'"', b"con")}
    ),
    "sorted-by-bytes": directory(
        {
            b"a": directory({b"z": file(b"1")}),
            b"a-": file(b"2"),
            b"a.b": symlink(b"a"),
            b"a0": file(b"3", executable=True),
            b"B": directory({}),
            b"\xc3\xa9": file(b"4"),
            b"_": symlink(b"."),
        }
    ),
    "nested-62-deep": nested(62),
    "larger-than-a-pipe": file(hashlib.sha512(b"seed").digest() * 1100),
    "+-._0=Az": file(b"every kind of character that a name may have\n"),
    "n" * 211: file(b"the longest name\n"),
}

NAMES = (
    "a",
    "A-Z+_?=.9",
    "-",
    "=",
    "?",
    "...",
    ".hidden",
    "n" * 211,
    "n" * 212,
    "a b",
    "a~",
    "a:b",
    "a%",
    "a@b",
    "é",
    "a\n",
    "a,b",
)

FLAT: dict[str, bytes] = {
    "empty": b"",
    "hello.txt": b"Hello World!\n",
    "odd.-+_=name": bytes(range(256)),
}


def materialise(tree: Tree, path: bytes) -> None:
    if "directory" in tree:
        os.mkdir(path)
        for name, child in tree["directory"].items():
            materialise(child, path + b"/" + base64.b64decode(name))
    elif "symlink" in tree:
        os.symlink(base64.b64decode(tree["symlink"]), path)
    else:
        Path(os.fsdecode(path)).write_bytes(base64.b64decode(tree["file"]))
        os.chmod(path, 0o755 if tree["executable"] else 0o644)


def read(path: Path) -> Tree:
    if path.is_symlink():
        return symlink(os.fsencode(os.readlink(path)))
    if path.is_dir():
        return directory({os.fsencode(child.name): read(child) for child in path.iterdir()})
    return file(path.read_bytes(), executable=bool(path.stat().st_mode & 0o100))


class Nix:
    """The real Nix, on a private store below `room`."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.store = room / "store"
        (room / "inputs").mkdir()

    def run(self, *command: str | Path, stdin: bytes = b"") -> bytes:
        if command[0] == "nix":
            command = ("nix", "--extra-experimental-features", "nix-command", *command[1:])
        return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, check=True).stdout

    def say(self, *command: str | Path, stdin: bytes = b"") -> str:
        return self.run(*command, stdin=stdin).decode().strip()

    def input(self, name: str, tree: Tree) -> Path:
        path = self.room / "inputs" / name
        materialise(tree, os.fsencode(path))
        return path

    def add(self, path: Path) -> str:
        return self.say("nix-store", "--store", self.store, "--add", path)

    def add_fixed(self, algorithm: str, path: Path) -> str:
        return self.say("nix-store", "--store", self.store, "--add-fixed", algorithm, path)


def hashes(nix: Nix) -> list[dict[str, str]]:
    recorded = []
    for algorithm, size in SIZES.items():
        digests = [bytes(size), b"\xff" * size, b"\x01" + bytes(size - 1), bytes(size - 1) + b"\x80", bytes(range(size))]
        digests += [hashlib.new(algorithm, text, usedforsecurity=False).digest() for text in (b"", b"abc")]
        recorded += [
            {
                "algorithm": algorithm,
                "hex": digest.hex(),
                "nixbase32": nix.say("nix-hash", "--type", algorithm, "--to-base32", digest.hex()),
                "sri": nix.say("nix", "hash", "to-sri", "--type", algorithm, digest.hex()),
            }
            for digest in digests
        ]
    return recorded


def trees(nix: Nix) -> list[dict[str, Any]]:
    recorded = []
    for name, tree in TREES.items():
        path = nix.input(name, tree)
        nar_hash = nix.say("nix-hash", "--type", "sha256", path)
        nar_size = len(nix.run("nix-store", "--dump", path))
        recorded.append({"name": name, "tree": tree, "store_path": nix.add(path), "nar_size": nar_size, "nar_sha256": nar_hash})
    return recorded


def names(nix: Nix) -> list[dict[str, Any]]:
    """Which names a store path may have."""
    recorded = []
    for name in NAMES:
        path = nix.input(name, file(b"named\n"))
        command = ("nix-store", "--store", nix.store, "--add", path)
        accepted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        recorded.append({"name": name, "accepted": accepted})
        path.unlink()
    return recorded


def flat_files(nix: Nix) -> list[dict[str, str]]:
    recorded = []
    for name, contents in FLAT.items():
        path = nix.input(name, file(contents))
        for algorithm in SIZES:
            store_path = nix.add_fixed(algorithm, path)
            recorded.append({"name": name, "file": base64_text(contents), "algorithm": algorithm, "store_path": store_path})
    return recorded


def content_addressed(nix: Nix) -> list[dict[str, Any]]:
    """Paths whose names follow from their content, by every method: all that Nix knows of them, and their trees."""
    expression = """
        let
          alone = builtins.toFile "alone" "A text without references.";
          one = builtins.toFile "one" "I refer to ${alone}.";
          two = builtins.toFile "two" "I refer to ${one} and ${alone}.";
        in [ alone one two
          (derivation { name = "drv"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ two one ]; }).drvPath ]
    """
    command = ("nix-instantiate", "--store", nix.store, "--eval", "--strict", "--read-write-mode", "--json", "--expr", expression)
    texts = json.loads(nix.say(*command))
    plain = nix.input("fixed", file(b"A file with a fixed hash.\n"))
    tree = nix.input("fixed-tree", directory({b"file": file(b"x", executable=True), b"link": symlink(b"file")}))
    fixed = [nix.add_fixed(algorithm, plain) for algorithm in SIZES]
    recursive = [
        nix.say("nix-store", "--store", nix.store, "--add-fixed", "--recursive", algorithm, path)
        for algorithm in SIZES
        for path in (plain, tree)
    ]
    itself = f"/nix/store/{'0' * 31}d-itself"
    _register(nix, itself, directory({b"self": symlink(itself.encode()), b"text": symlink(texts[2].encode())}), [itself, texts[2]])
    often = f"/nix/store/{'0' * 31}c-often"
    _register(nix, often, file(f"{often}{often[11:43]}: {often} and {often}\n".encode()), [often, itself])
    chosen = (itself, often, texts[2])
    rewritten = json.loads(nix.say("nix", "store", "make-content-addressed", "--store", nix.store, "--json", *chosen))["rewrites"]
    paths = sorted({*texts, *fixed, *recursive, *rewritten.values()})
    # All, and then a choice: asked for a derivation, Nix tells of its outputs.
    infos = json.loads(nix.say("nix", "path-info", "--store", nix.store, "--json", "--all"))
    return [
        {
            **{key: info[key] for key in ("path", "ca", "narSize", "narHash")},
            "references": sorted(info["references"]),
            "tree": read(nix.store / info["path"][1:]),
        }
        for info in sorted(infos, key=lambda info: str(info["path"]))
        if info["path"] in paths
    ]


def signatures(nix: Nix, secret_key: str | None) -> dict[str, Any]:
    """NARInfos of three paths that Nix signed: one without references, a text with one, and one with a deriver and itself."""
    secret_key = secret_key or nix.say("nix", "key", "generate-secret", "--key-name", "vectors.example-1")
    key_file = nix.room / "secret-key"
    key_file.write_text(secret_key)
    alone = nix.add(nix.input("alone", file(b"I refer to nothing.\n")))
    text = json.loads(
        nix.say(
            *("nix-instantiate", "--store", nix.store, "--eval", "--read-write-mode", "--json", "--expr"),
            'builtins.toFile "text" "I refer to ${builtins.toFile "other" "another text"}."',
        )
    )
    paths = [alone, text, _with_itself_and_deriver(nix, [alone, text])]
    for path in paths:
        nix.run("nix", "store", "sign", "--store", nix.store, "--key-file", key_file, path)
    cache = nix.room / "cache"
    nix.run("nix", "copy", "--no-check-sigs", "--from", nix.store, "--to", f"file://{cache}?compression=xz", *paths)
    narinfos = [(cache / f"{Path(path).name[:32]}.narinfo").read_text() for path in paths]
    public_key = nix.say("nix", "key", "convert-secret-to-public", stdin=secret_key.encode())
    return {"secret_key": secret_key, "public_key": public_key, "narinfos": narinfos}


def _with_itself_and_deriver(nix: Nix, references: list[str]) -> str:
    """Register a path as if a derivation had built it; a build would need the sandbox's namespaces."""
    path = f"/nix/store/{'0' * 31}a-built"
    deriver = f"/nix/store/{'0' * 31}b-built.drv"
    tree = directory({b"self": symlink(path.encode()), b"bin": directory({b"run": file(b"#!/bin/sh\n", executable=True)})})
    _register(nix, path, tree, [path, *references], deriver)
    return path


def _register(nix: Nix, path: str, tree: Tree, references: list[str], deriver: str = "") -> None:
    place = nix.store / path[1:]
    materialise(tree, os.fsencode(place))
    nar_hash = nix.say("nix-hash", "--type", "sha256", place)
    nar_size = len(nix.run("nix-store", "--dump", place))
    record = [path, nar_hash, str(nar_size), deriver, str(len(references)), *references]
    nix.run("nix-store", "--store", nix.store, "--load-db", stdin="".join(f"{line}\n" for line in record).encode())


def main() -> None:
    known = json.loads(VECTORS.read_text()) if VECTORS.exists() else {}
    with tempfile.TemporaryDirectory(prefix="nix-vectors-") as room:
        nix = Nix(Path(room))
        vectors = {
            "about": "What the real Nix says; recorded by tools/record_nix_vectors.py, which also explains the form of a tree.",
            "nix": nix.say("nix", "--version"),
            "hashes": hashes(nix),
            "trees": trees(nix),
            "names": names(nix),
            "flat_files": flat_files(nix),
            "content_addressed": content_addressed(nix),
            "signatures": signatures(nix, known.get("signatures", {}).get("secret_key")),
        }
        subprocess.run(["chmod", "-R", "u+w", room], check=True)
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n")
    print(f"recorded {VECTORS}")


if __name__ == "__main__":
    main()
