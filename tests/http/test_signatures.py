"""Signatures by trusted keys among many others, and what the daemon says of its own key, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.http.daemon import Answer, Daemon, nar_name
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import NarFacts
from tvix_store.model.signature import SecretKey, Signature
from tvix_store.model.store_path import StorePath
from tvix_store.testing import trees
from tvix_store.testing.content import file_nar
from tvix_store.testing.trees import TreeFile

CACHE, BUILDER = SecretKey.from_seed("cache-1", b"c" * 32), SecretKey.from_seed("builder-1", b"b" * 32)
CONTENTS = b"signed by many"
NAR = trees.nar(TreeFile(CONTENTS))
FACTS: NarFacts = file_nar(CONTENTS)
REQUIRED = ("--trusted-public-keys", str(BUILDER.public), "--require-signatures")


def narinfo(daemon: Daemon, *others: Signature, signed: bool = False, number: int = 0, deriver: StorePath | None = None) -> NarInfo:
    """Of one of the paths: where it is `signed`, by the builder before the others."""
    info = NarInfo(StorePath(bytes([number]) * 20, "signed"), "nar/x.nar", "none", FACTS, deriver=deriver)
    good = [BUILDER.sign(info.fingerprint(daemon.store_dir))] if signed else []
    return replace(info, signatures=(*good, *others))


def put(daemon: Daemon, info: NarInfo) -> Answer:
    daemon.put(nar_name(NAR), NAR)
    return daemon.put(f"/{nixbase32.encode(info.store_path.output_hash)}.narinfo", info.format(daemon.store_dir))


def served(daemon: Daemon, info: NarInfo) -> NarInfo:
    return NarInfo.parse(daemon.narinfo(info.store_path.absolute(daemon.store_dir)), daemon.store_dir)


def junk(count: int, start: int = 0) -> list[Signature]:
    return [Signature(f"junk-{number}", bytes(64)) for number in range(start, start + count)]


def key_file(directory: Path, mode: int = 0o600) -> Path:
    file = directory / "key"
    file.write_text(str(CACHE))
    file.chmod(mode)
    return file


def test_sixty_three_junk_signatures_do_not_push_out_the_honest_one(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon("--signing-key-file", key_file(tmp_path), *REQUIRED[:2])
    assert put(daemon, narinfo(daemon, *junk(63))).status == 400
    assert put(daemon, narinfo(daemon, *junk(16))).status == 201
    refused = put(daemon, narinfo(daemon, *junk(1, start=100)))
    assert (refused.status, refused.line) == (400, "a path may have 16 signatures by keys that are not trusted here, not 17")
    assert put(daemon, narinfo(daemon, signed=True)).status == 201
    info = narinfo(daemon, *junk(16), signed=True)
    own = CACHE.sign(info.fingerprint(daemon.store_dir))
    assert served(daemon, info).signatures == (own, *info.signatures)


def test_a_deriver_that_comes_unsigned_does_not_stay_with_a_signed_path(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(*REQUIRED[:2])
    forged, true = StorePath(b"f" * 20, "forged"), StorePath(b"t" * 20, "true")
    assert put(daemon, narinfo(daemon, signed=True)).status == 201
    assert put(daemon, narinfo(daemon, deriver=forged)).status == 201
    assert served(daemon, narinfo(daemon)).deriver is None
    for info, told in (
        (narinfo(daemon, number=1, deriver=forged), forged),
        (narinfo(daemon, signed=True, number=1, deriver=true), true),
        (narinfo(daemon, number=1, deriver=forged), true),
    ):
        assert put(daemon, info).status == 201
        assert served(daemon, info).deriver == told


def test_a_daemon_that_signs_whatever_is_pushed_says_so(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    options = ("--signing-key-file", key_file(tmp_path, 0o644))
    careless = start_daemon(*options)
    assert "whatever is pushed, or fetched unsigned, is signed" in careless.log
    assert f"{tmp_path / 'key'} has mode 644" in careless.log
    for more in (REQUIRED, ("--read-only",)):
        assert "whatever is pushed, or fetched unsigned, is signed" not in start_daemon(*options, *more, name=more[0]).log
