"""`/serve/<hash>-<name>/…`: the files of a path in a browser."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes, urljoin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.daemon import Answer, Daemon
from tests.http.nix import Nix
from tests.http.page_reader import PageReader
from tvix_store.http.browse import format_index
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import SymlinkNode
from tvix_store.testing.content import collect, noise
from tvix_store.testing.strategies import directories
from tvix_store.testing.trees import Tree, TreeFile, write

HOSTILE = b"<script>alert('1')</script>&\"><img src=x onerror=alert(2)>"
OTHER: Tree = {b"file": TreeFile(b"in the other"), b"deep": {b"up": SymlinkNode(b"../file")}}
TREE: Tree = {
    b"bin": {b"run": TreeFile(b"#!/bin/sh\n", executable=True), b"also": SymlinkNode(b"run"), b"up": SymlinkNode(b"../text.txt")},
    b"data.json": TreeFile(b"{}"),
    b"large.bin": TreeFile(noise(2 << 20)),
    b"page.html": TreeFile(b"<script>alert(1)</script>"),
    b"picture.svg": TreeFile(b"<svg/>"),
    b"text.txt": TreeFile("schön\n".encode()),
    b"binary": TreeFile(b"\x7fELF\0\0"),
    b"latin": TreeFile(b"\xe9t\xe9"),
    b"source.tar.gz": TreeFile(gzip.compress(b"tar")),
    b"README": TreeFile(("ü" * 1000).encode()),
    b"nothing": TreeFile(b""),
    b"lib": SymlinkNode(b"bin"),
    b"%41 ?#;": TreeFile(b"odd"),
    b"\xff\xfe": TreeFile(b"not UTF-8"),
    HOSTILE.replace(b"/", b"_"): TreeFile(b"h"),
    b"absolute": SymlinkNode(b"/etc/passwd"),
    b"out": SymlinkNode(b"../../../etc/passwd"),
    b"store": SymlinkNode(b".."),
    b"round": SymlinkNode(b"round"),
    b"dangling": SymlinkNode(b"nowhere"),
    b"gone": SymlinkNode(b"../" + b"0" * 32 + b"-gone/file"),
}


class Served:
    """Two paths on a daemon, the first of which has symlinks into the second."""

    def __init__(self, daemon: Daemon, directory: Path) -> None:
        self.daemon = daemon
        write(OTHER, directory / "other")
        other = daemon.program("import", directory / "other")
        more: Mapping[bytes, Tree] = {
            b"into": SymlinkNode(f"{other}/file".encode()),
            b"beside": SymlinkNode(f"../{Path(other).name}/deep/up".encode()),
            b"whole": SymlinkNode(other.encode()),
        }
        assert isinstance(TREE, dict)
        write({**TREE, **more}, directory / "tree")
        self.name = Path(daemon.program("import", directory / "tree")).name

    def get(self, path: str | bytes, **fields: str) -> Answer:
        quoted = path if isinstance(path, str) else quote_from_bytes(path)
        return self.daemon.get(f"/serve/{self.name}/{quoted}", **fields)


@pytest.fixture(scope="module")
def served(shared_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(shared_daemon, tmp_path_factory.mktemp("browse"))


@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [
        ("text.txt", "text/plain; charset=utf-8", "schön\n".encode()),
        ("bin/run", "text/plain; charset=utf-8", b"#!/bin/sh\n"),
        ("README", "text/plain; charset=utf-8", ("ü" * 1000).encode()),
        ("nothing", "text/plain; charset=utf-8", b""),
        ("page.html", "text/html; charset=utf-8", b"<script>alert(1)</script>"),
        ("picture.svg", "image/svg+xml", b"<svg/>"),
        ("data.json", "application/json", b"{}"),
        ("binary", "application/octet-stream", b"\x7fELF\0\0"),
        ("latin", "application/octet-stream", b"\xe9t\xe9"),
        (b"\xff\xfe", "text/plain; charset=utf-8", b"not UTF-8"),
        (b"%41 ?#;", "text/plain; charset=utf-8", b"odd"),
    ],
)
def test_a_file_is_shown_as_what_it_is_and_cannot_run_scripts(
    served: Served, path: str | bytes, media_type: str, body: bytes
) -> None:
    answer = served.get(path)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["content-length"] == str(len(body))


def test_what_is_packed_is_given_as_it_is(served: Served) -> None:
    answer = served.get("source.tar.gz")
    assert answer.headers["content-type"] == "application/gzip"
    assert "content-encoding" not in answer.headers
    assert gzip.decompress(answer.body) == b"tar"


def test_ranges_and_conditions(served: Served) -> None:
    part = served.get("large.bin", Range="bytes=1000000-1999999")
    assert (part.status, part.body) == (206, noise(2_000_000)[1_000_000:])
    assert served.get("large.bin", If_None_Match=part.headers["etag"]).status == 304
    assert served.get("large.bin", Range="bytes=9999999-").status == 416
    head = served.daemon.head(f"/serve/{served.name}/large.bin")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(2 << 20), b"")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("bin/also", b"#!/bin/sh\n"),
        ("lib/also", b"#!/bin/sh\n"),
        ("lib/up", "schön\n".encode()),
        ("into", b"in the other"),
        ("beside", b"in the other"),
        ("whole/file", b"in the other"),
        ("whole/deep/up", b"in the other"),
    ],
)
def test_symlinks_are_followed_in_the_store(served: Served, path: str, body: bytes) -> None:
    answer = served.get(path)
    assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize(
    "path",
    [
        "absolute",
        "out",
        "store",
        "store/",
        "round",
        "dangling",
        "gone",
        "none",
        "bin/none",
        "bin/run/",
        "bin/run/x",
        "bin//run",
    ],
)
def test_what_is_not_in_the_store_is_not_found(served: Served, path: str) -> None:
    answer = served.get(path)
    assert answer.status == 404
    assert answer.line
    assert served.daemon.is_well()


def test_a_symlink_that_leads_to_and_fro_costs_little(shared_daemon: Daemon, tmp_path: Path) -> None:
    many: Mapping[bytes, Tree] = {b"%05d" % n: SymlinkNode(b"%d" % n) for n in range(20_000)}
    write({**many, b"d": {b"a": TreeFile(b"found")}, b"hop": SymlinkNode(b"d/../" * 800 + b"d/a")}, tmp_path / "tree")
    name = Path(shared_daemon.program("import", tmp_path / "tree")).name
    began = time.monotonic()
    assert shared_daemon.get(f"/serve/{name}/hop").body == b"found"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["../x", "bin/../text.txt", "%2e%2e/x", "bin/%2e", "bin%2frun", "a%00b"])
def test_tricks_with_paths_are_refused(served: Served, path: str) -> None:
    assert served.get(path).status == 400


@pytest.mark.parametrize("name", ["x", "0" * 32, "0" * 32 + "-x", "%ff", "e" * 32 + "-x"])
def test_what_is_no_path_that_is_here_is_not_found(shared_daemon: Daemon, name: str) -> None:
    assert shared_daemon.get(f"/serve/{name}").status == 404
    assert shared_daemon.get(f"/serve/{name}/").status == 404


def test_a_path_has_one_name(served: Served) -> None:
    assert served.daemon.get(f"/serve/{served.name}x/").status == 404


def test_a_directory_is_redirected_to_its_slash(served: Served) -> None:
    for path in ("", "/bin", "/lib", "/whole/deep"):
        url = f"/serve/{served.name}{path}"
        answer = served.daemon.get(url)
        assert answer.status == 302
        assert urljoin(url, answer.headers["location"]) == url + "/"
        assert served.daemon.get(url + "/").status == 200


def test_a_path_may_be_a_file(shared_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_bytes(b"alone")
    name = Path(shared_daemon.program("import", tmp_path / "note.txt")).name
    assert shared_daemon.get(f"/serve/{name}").body == b"alone"
    assert shared_daemon.get(f"/serve/{name}/").status == 404


TAGS = {
    *(
        "html",
        "head",
        "meta",
        "link",
        "title",
        "style",
        "body",
        "nav",
        "main",
        "h1",
        "table",
        "tr",
        "th",
        "td",
        "a",
        "span",
        "footer",
    )
}


def entries_of(index: PageReader) -> list[str]:
    """The links to the entries of a directory."""
    return [link for link in index.links if link.startswith("./")]


def test_an_index_leads_to_everything_in_the_directory(served: Served) -> None:
    answer = served.get("")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    links = entries_of(PageReader(answer.body))
    assert isinstance(TREE, dict)
    for name, link in zip(sorted({*TREE, b"into", b"beside", b"whole"}), links, strict=True):
        url = urljoin(f"/serve/{served.name}/", link)
        assert served.daemon.get(url).body == served.get(name + b"/" if name == b"bin" else name).body
    assert served.get("", If_None_Match=answer.headers["etag"]).status == 304
    head = served.daemon.head(f"/serve/{served.name}/")
    assert (head.status, head.body) == (200, b"")


def test_an_index_below_leads_up(served: Served) -> None:
    index = PageReader(served.get("bin/").body)
    assert index.links == ["../../../", "../../", "../", "../", "./also", "./run", "./up"]
    assert "run\n executable" in index.text
    assert "also\n → run" in index.text


@settings(max_examples=100)
@given(directories(), st.binary(min_size=1, max_size=20))
def test_no_name_or_target_becomes_a_tag(directory: Directory, name: bytes) -> None:
    index = PageReader(asyncio.run(collect(format_index([b"base", name], directory))))
    assert index.tags <= TAGS
    assert [unquote_to_bytes(link.removeprefix("./").rstrip("/")) for link in entries_of(index)] == list(directory.entries)


def test_what_nix_has_pushed_is_browsed(start_daemon: Callable[..., Daemon], nix: Nix) -> None:
    daemon = start_daemon()
    [path] = nix.build("""
      let library = sh "library" "mkdir $out; echo text > $out/file"; in sh "program" "mkdir $out; ln -s ${library}/file $out/link"
    """)
    nix.copy_to(daemon.url, path)
    assert daemon.get(f"/serve/{Path(path).name}/link").body == b"text\n"
