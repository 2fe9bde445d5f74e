"""Logs, realisations, build traces and debug information: what Nix puts, it gets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import zstandard

from tests.http.daemon import Daemon
from tests.http.nix import PRELUDE, Nix
from tvix_store.testing import trees
from tvix_store.testing.content import noise

DERIVATION = "0" * 32 + "-hello-2.10.drv"
DRV_HASH = "sha256:" + "ab" * 32
BUILD_ID = "0123456789abcdef" * 2 + "01234567"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        (f"/log/{DERIVATION}", TEXT),
        (f"/realisations/{DRV_HASH}!out.doi", JSON),
        (f"/build-trace-v2/{DERIVATION}/out.doi", JSON),
        (f"/debuginfo/{BUILD_ID}.debug", JSON),
    ],
)
def test_what_was_put_last_is_given_back(shared_daemon: Daemon, path: str, media_type: str) -> None:
    for number in range(2):
        body = b'{"number": %d}' % number
        assert shared_daemon.put(path, body, Content_Type="text/html").status == 201
        got = shared_daemon.get(path)
        assert (got.status, got.body) == (200, body)
        assert got.headers["content-type"] == media_type
        assert got.headers["x-content-type-options"] == "nosniff"
        head = shared_daemon.head(path)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(body)))
        assert shared_daemon.get(path, If_None_Match=got.headers["etag"]).status == 304
    assert shared_daemon.is_well()


def test_the_names_of_realisations_may_be_percent_encoded(shared_daemon: Daemon) -> None:
    name = f"{DRV_HASH}!encoded.doi"
    assert shared_daemon.put(f"/realisations/{quote(name)}", b"[]").status == 201
    assert shared_daemon.get(f"/realisations/{name}").body == b"[]"
    assert shared_daemon.get(f"/realisations/{quote(name)}").body == b"[]"


@pytest.mark.parametrize("name", ["a?c=d", "?", "a=?b?c=d+e", "a??b", "?.drv"])
def test_a_name_may_have_question_marks_which_nix_does_not_encode(shared_daemon: Daemon, name: str) -> None:
    derivation = f"{'2' * 32}-{name}.drv"
    for path in (f"/log/{derivation}", f"/build-trace-v2/{derivation}/o?t.doi", f"/realisations/{DRV_HASH}!{name}.doi"):
        body = json.dumps(path).encode()
        assert shared_daemon.put(path, body).status == 201
        assert shared_daemon.get(path).body == body
        assert shared_daemon.get(quote(path)).body == body
        assert shared_daemon.head(quote(path, safe="/?")).status == 200
        assert shared_daemon.get(path.partition("?")[0]).status == 404
    assert shared_daemon.is_well()


def test_debug_information_is_found_with_and_without_its_suffix(shared_daemon: Daemon) -> None:
    assert shared_daemon.put("/debuginfo/abcd.debug", b'{"archive": "../nar/elsewhere", "member": "m"}').status == 201
    assert shared_daemon.get("/debuginfo/abcd").body == shared_daemon.get("/debuginfo/abcd.debug").body
    assert shared_daemon.put("/debuginfo/abce", b"{}").status == 201
    assert shared_daemon.get("/debuginfo/abce.debug").body == b"{}"


@pytest.mark.parametrize(
    "path",
    [
        "/log/hello.drv",
        f"/log/{DERIVATION[:-4]}",
        f"/log/{DERIVATION}/more",
        f"/log/{'e' * 32}-x.drv",
        f"/log/{'0' * 32}-.-x.drv",
        f"/log/{DERIVATION}?x=y",
        f"/log/{'0' * 32}-a?b/c.drv",
        f"/log/{'0' * 32}-a?b%00.drv",
        f"/log/{'0' * 32}-{'x' * 300}.drv",
        "/log/",
        "/log//x",
        f"/realisations/{DRV_HASH}.doi",
        f"/realisations/{DRV_HASH}!out",
        f"/realisations/{DRV_HASH}!a%20b.doi",
        f"/realisations/{DRV_HASH.upper()}!out.doi",
        "/realisations/sha256:ab!out.doi",
        f"/build-trace-v2/{DERIVATION}.doi",
        f"/build-trace-v2/{DERIVATION}/a/b.doi",
        "/debuginfo/ABCD",
        "/debuginfo/xyz",
        "/debuginfo/ab%0Acd",
        f"/debuginfo/{'a' * 200}",
        "/documents/x",
    ],
)
def test_other_names_are_refused(shared_daemon: Daemon, path: str) -> None:
    answer = shared_daemon.put(path, b"{}")
    assert answer.status == 404
    assert answer.line
    assert shared_daemon.get(path).status == 404
    assert shared_daemon.is_well()


def test_what_was_not_put_is_not_found(shared_daemon: Daemon) -> None:
    assert shared_daemon.get(f"/log/{'1' * 32}-never.drv").status == 404
    assert shared_daemon.head(f"/realisations/{DRV_HASH}!never.doi").status == 404


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "no JSON: Expecting value"),
        (b"{", "no JSON: Expecting property name"),
        (b"\xff", "no JSON: "),
        (b"[" * 100_000, "too many arrays and objects in each other"),
        (b"1 2", "no JSON: Extra data"),
        (b'{"a": NaN}', "no JSON: NaN is not a number"),
        (b"[-Infinity]", "no JSON: -Infinity is not a number"),
        (b"[%b]" % (b"7" * 50_000), "no JSON: a number of 50000 digits"),
    ],
)
def test_what_must_be_json_is_refused_if_it_is_none(shared_daemon: Daemon, body: bytes, line: str) -> None:
    path = f"/realisations/{DRV_HASH}!broken.doi"
    answer = shared_daemon.put(path, body)
    assert answer.status == 400
    assert line in answer.line
    assert shared_daemon.get(path).status == 404


def test_names_may_be_as_long_as_nix_has_them(shared_daemon: Daemon) -> None:
    for output in ("o" * 211, "o" * 210 + "p"):
        path = f"/build-trace-v2/{'0' * 32}-{'a' * 207}.drv/{output}.doi"
        body = json.dumps({"output": output}).encode()
        assert shared_daemon.get(path).status == 404
        assert shared_daemon.put(path, body).status == 201
        assert shared_daemon.get(path).body == body


@pytest.mark.parametrize("nested", [b'{"a":%b}', b"[%b]"])
@pytest.mark.parametrize("path", ["/debuginfo/abcf", f"/realisations/{DRV_HASH}!nested.doi"])
def test_json_that_is_taken_is_not_too_deep_to_be_given_back(shared_daemon: Daemon, nested: bytes, path: str) -> None:
    def document(depth: int) -> bytes:
        before, _, behind = nested.partition(b"%b")
        return before * depth + b"1" + behind * depth

    for depth in (101, 900, 950, 985, 995, 100_000):
        assert shared_daemon.put(path, document(depth)).status == 400
    assert shared_daemon.put(path, document(100)).status == 201
    assert shared_daemon.get(path).body == document(100)
    assert shared_daemon.is_well()


def test_json_may_be_of_one_mebibyte(shared_daemon: Daemon) -> None:
    path = f"/build-trace-v2/{DERIVATION}/large.doi"
    largest = b'"' + b"x" * ((1 << 20) - 2) + b'"'
    assert shared_daemon.put(path, largest).status == 201
    assert shared_daemon.get(path).body == largest
    assert shared_daemon.put(path, largest + b" ").status == 413
    assert shared_daemon.put(path, iter([largest, b" "])).status == 413
    assert shared_daemon.put(path, gzip.compress(largest + b" "), Content_Encoding="gzip").status == 413
    assert shared_daemon.get(path).body == largest


def test_a_log_is_a_stream_and_read_in_part(shared_daemon: Daemon) -> None:
    path = f"/log/{'0' * 32}-large.drv"
    log = noise(20 << 20)
    assert shared_daemon.put(path, (log[at : at + 70_000] for at in range(0, len(log), 70_000))).status == 201
    assert shared_daemon.get(path).body == log
    part = shared_daemon.get(path, Range="bytes=-1000")
    assert (part.status, part.body) == (206, log[-1000:])


@pytest.mark.parametrize(("encoding", "encoded"), [("gzip", gzip.compress), ("zstd", zstandard.compress), ("identity", bytes)])
def test_an_encoding_is_undone(shared_daemon: Daemon, encoding: str, encoded: Callable[[bytes], bytes]) -> None:
    path = f"/log/{'0' * 32}-{encoding}.drv"
    log = b"building\n" * 100_000
    assert shared_daemon.put(path, encoded(log), Content_Encoding=encoding).status == 201
    got = shared_daemon.get(path)
    assert got.body == log
    assert "content-encoding" not in got.headers
    assert shared_daemon.put(path, encoded(log)[:-1] if encoding != "identity" else b"", Content_Encoding=encoding).status in (
        201,
        400,
    )
    refused = shared_daemon.put(path, b"x", Content_Encoding="deflate")
    assert refused.status == 415
    assert "'deflate' is not known here (known: identity, gzip, x-gzip, zstd, br, xz, bzip2)" in refused.line
    assert shared_daemon.put(path, b"x", Content_Encoding="").status == 201


def test_a_log_that_is_larger_than_allowed_when_it_is_decompressed_is_refused(shared_daemon: Daemon) -> None:
    path = f"/log/{'0' * 32}-bomb.drv"
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes((1 << 30) + 1))
    assert shared_daemon.put(path, bomb, Content_Encoding="zstd").status == 413
    assert shared_daemon.get(path).status == 404


def test_a_reader_gives_nothing_away_and_takes_nothing(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon("--read-only")
    assert daemon.put(f"/log/{DERIVATION}", b"x").status == 403


def test_a_store_without_a_place_for_documents_says_so(daemon: Daemon, start_daemon: Callable[..., Daemon]) -> None:
    front = start_daemon("--store", f"grpc+http://127.0.0.1:{daemon.port}", name="front")
    answer = front.put(f"/log/{DERIVATION}", b"x")
    assert answer.status == 403
    assert "push to one that has" in answer.line
    assert front.get(f"/log/{DERIVATION}").status == 404


def test_documents_survive_a_restart(daemon: Daemon) -> None:
    assert daemon.put(f"/log/{DERIVATION}", b"built").status == 201
    daemon.kill()
    daemon.start()
    assert daemon.get(f"/log/{DERIVATION}").body == b"built"


@pytest.mark.parametrize("name", ["talks", "patch?id=1"])
def test_nix_shows_a_log_that_was_copied(daemon: Daemon, nix: Nix, other_nix: Callable[..., Nix], name: str) -> None:
    [path] = nix.build(f'sh "{name}" "echo this is said while building; echo > $out"')
    derivation = nix("nix-store", "-q", "--deriver", path)
    nix("nix", "store", "copy-log", "--to", daemon.url, path)
    assert daemon.get(f"/log/{quote(Path(derivation).name)}").body == b"this is said while building\n"
    nix.copy_to(daemon.url, path)
    other = other_nix()
    assert other("nix", "log", "--store", daemon.url, path) == "this is said while building"


FLOATING = """sh' "floating" "echo contents > $out" {
    __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
}"""


def test_a_content_addressed_derivation_is_substituted(daemon: Daemon, nix: Nix, other_nix: Callable[..., Nix]) -> None:
    [path] = nix.build(FLOATING)
    nix("nix", "copy", "--to", daemon.url, "--impure", "--expr", PRELUDE + FLOATING)
    [told] = json.loads(nix("nix", "realisation", "info", "--json", "--impure", "--expr", PRELUDE + FLOATING))
    realisation = json.loads(daemon.get(f"/realisations/{quote(told['id'])}.doi").body)
    assert realisation["id"] == told["id"]
    assert realisation["outPath"] == Path(path).name
    other = other_nix(f"require-sigs = false\nsubstituters = {daemon.url}\nmax-jobs = 0")
    assert other.build(FLOATING) == [path]
    assert other.real(path).read_text() == "contents\n"


def test_debug_information_leads_to_an_archive_that_is_here(daemon: Daemon, nix: Nix) -> None:
    member = f"lib/debug/.build-id/{BUILD_ID[:2]}/{BUILD_ID[2:]}.debug"
    [path] = nix.build(f'sh "debug" "mkdir -p $out/{Path(member).parent}; echo symbols > $out/{member}"')
    nix.copy_to(f"{daemon.url}?index-debug-info=true&write-nar-listing=true", path)
    told = json.loads(daemon.get(f"/debuginfo/{BUILD_ID}").body)
    assert told["member"] == member
    archive = daemon.get(str(Path("/debuginfo", told["archive"])).replace("/debuginfo/..", ""))
    assert archive.status == 200
    assert archive.body == trees.nar(trees.read(nix.real(path)))
    etag = daemon.get(f"/debuginfo/{BUILD_ID}").headers["etag"]
    assert daemon.get(f"/debuginfo/{BUILD_ID}", If_None_Match=etag).status == 304
