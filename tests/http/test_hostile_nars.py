"""Uploads of NARs that are none, or too much: each refused with a line that says why, and nothing is there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.compression.samples import compress
from tests.compression.test_bounds import HUGE
from tests.http.daemon import Daemon, nar_name
from tvix_store.compression import COMPRESSIONS
from tvix_store.nar import tokens
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import Tree, TreeFile

MAX_SIZE = 64 << 20
MAX_ENTRIES = 1000
MEMORY = 150 << 20
"""What a worker may take, whatever comes."""

S = tokens.string
MAGIC = tokens.MAGIC
DIRECTORY = MAGIC + tokens.DIRECTORY_START
NAME = DIRECTORY + tokens.ENTRY_HEAD
LINK = tokens.symlink(b"target") + tokens.ENTRY_END
END = tokens.DIRECTORY_END
SYMLINK = MAGIC + tokens.SYMLINK_HEAD
FILE = MAGIC + tokens.file_start(3, executable=False)
GOOD = trees.nar({b"file": TreeFile(noise(3000, "hostile")), b"link": TreeFile(b"", executable=True)})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    options = ("--max-nar-size", str(MAX_SIZE), "--max-nar-entries", str(MAX_ENTRIES), "--body-timeout", "2")
    daemon = Daemon(tmp_path_factory.mktemp("hostile"), *options)
    daemon.start()
    yield daemon
    # None of it has left anything, nor kept the daemon from taking what is good, nor was anything of it taken for that.
    assert daemon.content_bytes() < 4096
    assert daemon.head(nar_name(GOOD)).status == 404
    assert daemon.put(nar_name(GOOD), GOOD).status == 201
    assert daemon.head(nar_name(GOOD)).status == 200
    assert daemon.paths() == []
    daemon.stop()


@pytest.fixture
def daemon(served: Daemon) -> Iterator[Daemon]:
    yield served
    assert served.is_well()
    assert served.most_memory() < MEMORY


def refused(daemon: Daemon, body: bytes, suffix: str = "", name: str = "", **headers: str) -> tuple[int, str]:
    """Put a NAR that has to be refused; the status and line of the answer."""
    name = name or nar_name(body, suffix)
    answer = daemon.put(name, body, **headers)
    assert 400 <= answer.status < 500, answer
    assert answer.headers["content-type"].startswith("text/plain")
    assert daemon.head(name).status == 404
    assert daemon.get(name).status == 404
    return answer.status, answer.line


def nested(depth: int) -> Tree:
    tree: Tree = TreeFile(b"")
    for _ in range(depth - 1):
        tree = {b"d": tree}
    return tree


def size(number: int) -> bytes:
    return number.to_bytes(8, "little")


class Nar(NamedTuple):
    """What is wrong with an archive, its bytes, and what the answer says of it."""

    wrong: str
    nar: bytes
    line: str
    status: int = 400


MALFORMED = [
    Nar("nothing", b"", "cut short"),
    Nar("a single byte", b"\x0d", "cut short"),
    Nar("only the magic", MAGIC, "cut short"),
    Nar("another magic", S(b"nix-archive-2") + GOOD[24:], "expected 'nix-archive-1'"),
    Nar("a zip file", b"PK\x03\x04" + bytes(100), "neither a NAR nor a known compression"),
    Nar("a tar file", b"file".ljust(512, b"\0") * 4, "neither a NAR nor a known compression"),
    Nar("a magic of enormous length", size(13 | 1 << 63) + GOOD[8:], "neither a NAR"),
    Nar("no parenthesis", MAGIC + S(b"type"), r"expected '('"),
    Nar("no type", MAGIC + S(b"(") + S(b"kind"), "expected 'type'"),
    Nar("a fifo", MAGIC + S(b"(") + S(b"type") + S(b"fifo"), "expected 'directory' or 'regular' or 'symlink'"),
    Nar("a file without contents", MAGIC + S(b"(") + S(b"type") + S(b"regular") + S(b")"), "expected 'contents' or 'executable'"),
    Nar("a file executable twice", MAGIC + tokens.EXECUTABLE_HEAD[:-16] + S(b"executable"), "expected 'contents'"),
    Nar("a value for executable", MAGIC + S(b"(") + S(b"type") + S(b"regular") + S(b"executable") + S(b"1"), "expected ''"),
    Nar("a file shorter than declared", FILE[:-8] + size(1000) + bytes(500), "cut short"),
    Nar("a file longer than declared", FILE[:-8] + size(3) + b"abcdefgh" + tokens.CLOSE, "padding"),
    Nar("a file of 2^64-1 bytes", FILE[:-8] + size((1 << 64) - 1) + bytes(1000), "cut short"),
    Nar("a file of 2^63 bytes", FILE[:-8] + size(1 << 63) + bytes(1000), "cut short"),
    Nar("a small file that is cut", FILE + b"ab", "cut short"),
    Nar("a file without its end", FILE + b"abc" + bytes(5), "cut short"),
    Nar("a file's padding that is not zero", FILE + b"abc\0\0\1\0\0" + tokens.CLOSE, "padding"),
    Nar("a word's padding that is not zero", MAGIC + S(b"(")[:-1] + b"\1" + S(b"type"), "padding"),
    Nar("a name's padding that is not zero", NAME + S(b"a")[:-1] + b"\1" + tokens.ENTRY_NODE + LINK + END, "padding"),
    Nar("a target's padding that is not zero", SYMLINK + S(b"target")[:-1] + b"\1" + tokens.CLOSE, "padding"),
    Nar("a symlink to nothing", SYMLINK + S(b"") + tokens.CLOSE, "target is empty"),
    Nar("a symlink with a NUL", SYMLINK + S(b"a\0b") + tokens.CLOSE, "NUL"),
    Nar("a symlink that is too long", SYMLINK + S(b"t" * 4096) + tokens.CLOSE, "more than 4095"),
    Nar("a symlink of enormous length", SYMLINK + size(1 << 62) + bytes(1000), "more than 4095"),
    Nar("a symlink with contents", MAGIC + S(b"(") + S(b"type") + S(b"symlink") + S(b"contents"), "expected 'target'"),
    Nar("a directory without its end", DIRECTORY, "cut short"),
    Nar("an entry without a node", NAME + S(b"a") + tokens.CLOSE + END, "expected 'node'"),
    Nar("an entry without a name", DIRECTORY + S(b"entry") + S(b"(") + S(b"node"), "expected 'name'"),
    Nar("an entry without its end", NAME + S(b"a") + tokens.ENTRY_NODE + tokens.symlink(b"t") + S(b"("), "expected ')'"),
    Nar("an empty name", NAME + S(b"") + tokens.ENTRY_NODE + LINK + END, "name is empty"),
    Nar("the name .", NAME + S(b".") + tokens.ENTRY_NODE + LINK + END, "reserved"),
    Nar("the name ..", NAME + S(b"..") + tokens.ENTRY_NODE + LINK + END, "reserved"),
    Nar("the name /", NAME + S(b"/") + tokens.ENTRY_NODE + LINK + END, "slash"),
    Nar("a name with a slash", NAME + S(b"../../etc/passwd") + tokens.ENTRY_NODE + LINK + END, "slash"),
    Nar("a name with a NUL", NAME + S(b"a\0b") + tokens.ENTRY_NODE + LINK + END, "NUL"),
    Nar("a name that is too long", NAME + S(b"n" * 256) + tokens.ENTRY_NODE + LINK + END, "more than 255"),
    Nar("a name of enormous length", NAME + size((1 << 64) - 1) + bytes(1000), "more than 255"),
    Nar("names not sorted", DIRECTORY + tokens.entry_start(b"b") + LINK + tokens.entry_start(b"a") + LINK + END, "not sorted"),
    Nar(
        "names sorted without case",
        DIRECTORY + tokens.entry_start(b"a") + LINK + tokens.entry_start(b"B") + LINK + END,
        "not sorted",
    ),
    Nar("a name twice", DIRECTORY + tokens.entry_start(b"a") + LINK + tokens.entry_start(b"a") + LINK + END, "there twice"),
    Nar("directories too deep", trees.nar(nested(65)), "more than 64 nodes"),
    Nar("directories far too deep", MAGIC + (tokens.DIRECTORY_START + tokens.entry_start(b"d")) * 50_000, "more than 64 nodes"),
    Nar(
        "too many entries",
        trees.nar({b"%d" % n: TreeFile(b"") for n in range(MAX_ENTRIES + 1)}),
        f"more than {MAX_ENTRIES} entries",
    ),
    Nar(
        "too many entries in directories",
        trees.nar({b"%d" % n: {b"d": {}} for n in range(501)}),
        f"more than {MAX_ENTRIES} entries",
    ),
    Nar("a zero behind the end", GOOD + b"\0", "bytes follow behind the end"),
    Nar("another archive behind the end", GOOD + GOOD, "bytes follow behind the end"),
    Nar("a second node", GOOD + GOOD[len(MAGIC) :], "bytes follow behind the end"),
    Nar("a byte changed", GOOD[:40] + b"?" + GOOD[41:], "expected"),
    Nar("too many bytes", FILE[:-8] + size(MAX_SIZE) + bytes(MAX_SIZE) + tokens.CLOSE, f"more than {MAX_SIZE} bytes", 413),
]


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.wrong)
def test_an_archive_that_breaks_a_rule_is_refused(daemon: Daemon, case: Nar) -> None:
    status, line = refused(daemon, case.nar)
    assert status == case.status
    assert case.line in line


@pytest.mark.parametrize("case", MALFORMED[:-1], ids=lambda case: case.wrong)
def test_it_is_refused_compressed_too(daemon: Daemon, case: Nar) -> None:
    # Which compression does not matter to the archive; all of them get their turn.
    names = [name for name in COMPRESSIONS if name != "none"]
    name = names[len(case.nar) % len(names)]
    refused(daemon, compress(name, case.nar), COMPRESSIONS[name].suffix)


BROKEN = {
    "cut in the middle": lambda file: file[: len(file) // 2],
    "without its last byte": lambda file: file[:-1],
    "with a byte behind it": lambda file: file + b"x",
    "with zeros behind it": lambda file: file + bytes(63),  # xz may have any multiple of 4
    "twice": lambda file: file + file,
    "with another archive behind it": lambda file: file + GOOD,
    "without its first byte": lambda file: file[1:],
    "only its first bytes": lambda file: file[:9],
}


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_compressed_file_that_is_broken_is_refused(daemon: Daemon, name: str, broken: str) -> None:
    refused(daemon, BROKEN[broken](compress(name, GOOD)), COMPRESSIONS[name].suffix)


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd", "lz4", "lzip"])
def test_a_compressed_file_with_a_wrong_checksum_is_refused(daemon: Daemon, name: str) -> None:
    file = bytearray(compress(name, GOOD))
    file[len(file) // 2] ^= 1
    refused(daemon, bytes(file), COMPRESSIONS[name].suffix)


@pytest.mark.parametrize("suffix", [".bz2", ".xz", ".zst", ".br", ".lz4", ".lzip", ".gz"])
def test_a_suffix_that_says_something_else_is_refused(daemon: Daemon, suffix: str) -> None:
    for name in COMPRESSIONS:
        if (COMPRESSIONS[name].suffix or (".gz" if name == "gzip" else "")) != suffix:
            refused(daemon, compress(name, GOOD), suffix)


@pytest.mark.parametrize("suffix", [".lzo", ".grz", ".lrz", ".Z", ".7z", ".zip", ".xz.zst", ".XZ", ".", ".nar", "..", "x", " "])
def test_a_suffix_that_nobody_knows_is_refused(daemon: Daemon, suffix: str) -> None:
    status, _ = refused(daemon, GOOD, suffix.replace(" ", "%20"))
    assert status in (404, 415)


@pytest.mark.parametrize("head", [b"\x1f\x9d\x90", b"GRZipII\0", b"LRZI\0\6", b"\x89LZO\0\r\n\x1a\n"])
def test_a_compression_of_nix_that_is_left_out_is_named(daemon: Daemon, head: bytes) -> None:
    status, line = refused(daemon, head + bytes(100))
    assert status == 415
    assert "is not supported (known: none, gzip, " in line


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_file_that_has_another_hash_than_its_name_is_refused(daemon: Daemon, name: str) -> None:
    suffix = COMPRESSIONS[name].suffix
    status, line = refused(daemon, compress(name, GOOD), suffix, nar_name(b"something else", suffix))
    assert status in (400, 422)
    assert "has SHA-256" in line


@pytest.mark.parametrize(
    "name",
    ["0" * 51, "0" * 53, "e" * 52, "A" * 52, "0" * 64, "", "0" * 31 + "%00" + "0" * 20, "..", "z" * 52, "sha256:" + "0" * 52],
)
def test_a_name_that_is_no_hash_is_refused(daemon: Daemon, name: str) -> None:
    for method in ("PUT", "HEAD", "GET"):
        assert daemon.request(method, f"/nar/{name}.nar", GOOD if method == "PUT" else None).status in (400, 404)


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd", "lz4", "lzip"])
def test_a_bomb_is_refused_in_bounded_memory(daemon: Daemon, name: str) -> None:
    head = compress(name, FILE[:-8] + size(1 << 39))
    bomb = head + compress(name, bytes(16 << 20)) * 256
    status, line = refused(daemon, bomb, COMPRESSIONS[name].suffix)
    assert status == 413
    assert str(MAX_SIZE) in line


@pytest.mark.parametrize("name", ["br", "lzma"])
def test_a_bomb_of_one_frame_is_refused_in_bounded_memory(daemon: Daemon, name: str) -> None:
    assert refused(daemon, compress(name, FILE[:-8] + size(1 << 39) + bytes(MAX_SIZE)), COMPRESSIONS[name].suffix)[0] == 413


@pytest.mark.parametrize("name", HUGE)
def test_a_window_that_is_too_large_is_refused(daemon: Daemon, name: str) -> None:
    assert refused(daemon, HUGE[name], COMPRESSIONS[name].suffix)[0] in (400, 413)


def test_bombs_at_once_stay_in_bounded_memory(daemon: Daemon) -> None:
    head = compress("zstd", FILE[:-8] + size(1 << 39))
    bombs = [head + compress("zstd", bytes(8 << 20) + b"%d" % n) * 512 for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        assert {status for status, _ in pool.map(lambda bomb: refused(daemon, bomb, ".zst"), bombs)} == {413}


def test_a_large_archive_that_is_refused_at_its_end_leaves_nothing(daemon: Daemon) -> None:
    nar = trees.nar({b"%d" % n: TreeFile(noise(4_000_000, f"refused {n}")) for n in range(8)})
    refused(daemon, nar, name=nar_name(b"something else"))
    assert daemon.content_bytes() < 4096


def test_an_archive_in_an_archive_is_refused(daemon: Daemon) -> None:
    assert refused(daemon, compress("zstd", compress("zstd", GOOD)), ".zst")[0] == 400
