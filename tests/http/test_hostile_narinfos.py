"""Narinfos that are malformed, or lie: each refused with a line that says why, and the path is not there afterwards."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator

import pytest

from tests.compression.samples import compress
from tests.http.daemon import Answer, Daemon, nar_name
from tvix_store.model import nixbase32
from tvix_store.model.content_address import ContentAddress
from tvix_store.model.narinfo import MAX_NARINFO, NarInfo
from tvix_store.model.nix_hash import SIZES, NixHash
from tvix_store.model.path_info import NarFacts
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.testing import trees
from tvix_store.testing.content import file_nar
from tvix_store.testing.trees import TreeFile

NAR = trees.nar(TreeFile(b"content of a hostile path"))
FACTS = file_nar(b"content of a hostile path")
OTHER_NAR = trees.nar({b"other": TreeFile(b"content")})
KEY = SecretKey.generate("trusted-1")
STRANGER = SecretKey.generate("stranger-1")
PATH = StorePath(b"hostile path, 20 b. ", "hostile")
OTHER = StorePath(b"another path, 20 b. ", "other")
HASH = nixbase32.encode(PATH.output_hash)
GOOD = NarInfo(PATH, "nar/x.nar", "none", FACTS, references=(PATH,)).format()
FIELDS = dict(line.split(": ", 1) for line in GOOD.decode().splitlines())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("hostile"), "--trusted-public-keys", str(KEY.public))
    daemon.start()
    for nar in (NAR, OTHER_NAR):
        assert daemon.put(nar_name(nar), nar).status == 201
    yield daemon
    # What is good is taken, and nothing before it was.
    assert [path for path in daemon.paths() if not path.endswith("-url")] == []
    assert put(daemon, GOOD).status == 201
    assert daemon.get(f"/{HASH}.narinfo").status == 200
    daemon.stop()


@pytest.fixture
def daemon(served: Daemon) -> Iterator[Daemon]:
    yield served
    assert served.is_well()
    assert served.get(f"/{HASH}.narinfo").status == 404


def put(daemon: Daemon, narinfo: bytes, **headers: str) -> Answer:
    return daemon.put(f"/{HASH}.narinfo", narinfo, **headers)


def edited(**fields: str | None) -> bytes:
    """The good narinfo with other values, or without a field."""
    return "".join(f"{key}: {value}\n" for key, value in {**FIELDS, **fields}.items() if value is not None).encode()


def more(*lines: str) -> bytes:
    return GOOD + "".join(line + "\n" for line in lines).encode()


def signed(key: SecretKey, path: StorePath = PATH, nar: NarFacts = FACTS, references: tuple[StorePath, ...] = (PATH,)) -> str:
    return str(key.sign(NarInfo(path, "x", "none", nar, references=references).fingerprint()))


def hashed(algorithm: str) -> str:
    """A hash of the right form that is not the NAR's."""
    return str(NixHash(algorithm, bytes(SIZES[algorithm])))


ABSOLUTE = PATH.absolute()
FIXED = ContentAddress.parse(f"fixed:r:{NixHash('sha256', FACTS.sha256)}")
DIGEST = FIELDS["NarHash"].removeprefix("sha256:")
SIGNATURE = signed(KEY)

LIES: dict[str, tuple[bytes, str]] = {
    # The path
    "the path of another hash": (edited(StorePath=OTHER.absolute(), References=""), "does not belong"),
    "a path in another store": (edited(StorePath=f"/gnu/store/{PATH}"), "is not in /nix/store"),
    "a path without a directory": (edited(StorePath=str(PATH)), "is not in /nix/store"),
    "a path with dots": (edited(StorePath=f"/nix/store/../store/{PATH}"), "not a store path"),
    "a path in a path": (edited(StorePath=f"{ABSOLUTE}/bin/sh"), ""),
    "a path with a slash behind it": (edited(StorePath=f"{ABSOLUTE}/"), ""),
    "a path twice": (edited(StorePath=f"{ABSOLUTE} {ABSOLUTE}"), ""),
    "a path without a name": (edited(StorePath=f"/nix/store/{HASH}"), ""),
    "a path with an empty name": (edited(StorePath=f"/nix/store/{HASH}-"), ""),
    "a path with a long name": (edited(StorePath=f"/nix/store/{HASH}-" + "n" * 212), ""),
    "a path with a letter that is in no hash": (edited(StorePath=f"/nix/store/{'e' * 32}-hostile"), ""),
    "a path in capitals": (edited(StorePath=ABSOLUTE.upper()), ""),
    "a path called by two dots": (edited(StorePath=f"/nix/store/{HASH}-..-hostile"), "not a store path name"),
    "a path with a NUL": (edited(StorePath=f"{ABSOLUTE}\0"), ""),
    "a path with a quote": (edited(StorePath=f'{ABSOLUTE}"'), ""),
    "a path that is not ASCII": (edited(StorePath=f"{ABSOLUTE}é"), ""),
    "no path": (edited(StorePath=None), "StorePath is missing"),
    "an empty path": (edited(StorePath=""), "StorePath"),
    # The NAR
    "no hash": (edited(NarHash=None), "NarHash is missing"),
    "an empty hash": (edited(NarHash=""), "not a hash"),
    "a hash without its algorithm": (edited(NarHash=DIGEST), "not a hash"),
    "a hash of an unknown algorithm": (edited(NarHash=f"sha3:{DIGEST}"), "unknown hash algorithm 'sha3'"),
    "a hash of a new algorithm": (edited(NarHash=f"blake3:{DIGEST}"), "NarHash is blake3, not sha256"),
    "a hash of another algorithm": (edited(NarHash=hashed("sha1")), "NarHash is sha1"),
    "a longer hash": (edited(NarHash=hashed("sha512")), "NarHash is sha512"),
    "a hash that is too short": (edited(NarHash=FIELDS["NarHash"][:-1]), ""),
    "a hash that is too long": (edited(NarHash=FIELDS["NarHash"] + "0"), ""),
    "a hash of a wrong alphabet": (edited(NarHash="sha256:" + "e" * 52), ""),
    "a hash in hex that is not": (edited(NarHash="sha256:" + "g" * 64), ""),
    "a hash in base64 that is not": (edited(NarHash="sha256-!!!"), ""),
    "the hash of a NAR that nobody has sent": (edited(NarHash=hashed("sha256")), "put it first"),
    "the hash of another NAR": (edited(NarHash=str(NixHash("sha256", file_nar(b"unknown").sha256))), "put it first"),
    "no size": (edited(NarSize=None), "NarSize is missing"),
    "an empty size": (edited(NarSize=""), "NarSize"),
    "the size 0": (edited(NarSize="0"), "NarSize is 0"),
    "a wrong size": (edited(NarSize=str(FACTS.size + 1)), f"has {FACTS.size} bytes"),
    "a negative size": (edited(NarSize="-1"), "NarSize"),
    "a size with a sign": (edited(NarSize=f"+{FACTS.size}"), "NarSize"),
    "a size in hex": (edited(NarSize="0x80"), "NarSize"),
    "a size of 65 bits": (edited(NarSize=str(1 << 64)), "NarSize"),
    "a size of a million digits": (edited(NarSize="1" * 1_000_000), "NarSize"),
    "a size with a fraction": (edited(NarSize=f"{FACTS.size}.0"), "NarSize"),
    "a size in other digits": (edited(NarSize="\u0661\u0662\u0668"), "NarSize"),
    "a size and more": (edited(NarSize=f"{FACTS.size} bytes"), "NarSize"),
    "no URL": (edited(URL=None), "URL is missing"),
    "an empty URL": (edited(URL=""), "URL"),
    "a URL of two words": (edited(URL="nar/x.nar nar/y.nar"), "URL"),
    "a URL with a control character": (edited(URL="nar/\x1b[31mx.nar"), "URL"),
    "a compression of two words": (edited(Compression="xz zstd"), "Compression"),
    "a malformed file hash": (more("FileHash: sha256:xyz"), "not a hash"),
    "the file hash of another NAR": (more(f"FileHash: {NixHash('sha256', hashlib.sha256(OTHER_NAR).digest())}"), "another NAR"),
    "a file hash of nothing": (more("FileHash: "), "not a hash"),
    "a malformed file size": (more("FileSize: many"), "FileSize"),
    # References
    "a reference that is not there": (edited(References=f"{OTHER}"), "refers to"),
    "many references that are not there": (
        edited(References=" ".join(str(StorePath(n.to_bytes(20, "little"), "r")) for n in range(1, 5000))),
        "and 4998 more",
    ),
    "a reference of another name": (edited(References=f"{HASH}-other"), "refers to"),
    "a malformed reference": (edited(References="hello"), ""),
    "a reference with its directory": (edited(References=ABSOLUTE), ""),
    "a reference with dots": (edited(References=f"../{PATH}"), ""),
    "a reference twice": (edited(References=f"{PATH} {PATH}"), "twice"),
    # Deriver
    "a deriver that is no derivation": (more(f"Deriver: {OTHER}"), "Deriver"),
    "a malformed deriver": (more("Deriver: hello.drv"), ""),
    "a deriver with its directory": (more(f"Deriver: {OTHER.absolute()}.drv"), ""),
    "two derivers": (more(f"Deriver: {OTHER}.drv {PATH}.drv"), ""),
    # Signatures
    "an empty signature": (more("Sig: "), "not a signature"),
    "a signature without a name": (more(f"Sig: {SIGNATURE.partition(':')[2]}"), "not a signature"),
    "a signature with an empty name": (more(f"Sig: :{SIGNATURE.partition(':')[2]}"), "not a key name"),
    "a signature with a name of two words": (more(f"Sig: two words:{SIGNATURE.partition(':')[2]}"), "not a key name"),
    "a signature that is not base64": (more("Sig: trusted-1:!!!"), "not base64"),
    "a signature that is too short": (more("Sig: trusted-1:AAAA"), "expected 64"),
    "a signature that is too long": (more(f"Sig: trusted-1:{'AAAA' * 30}"), "expected 64"),
    "a good signature and a malformed one": (more(f"Sig: {SIGNATURE}", "Sig: trusted-1:AAAA"), "expected 64"),
    "a signature of zeros": (more(f"Sig: trusted-1:{'A' * 86}=="), "bad signature by trusted-1"),
    "a signature of another path": (more(f"Sig: {signed(KEY, path=OTHER)}"), "bad signature by trusted-1"),
    "a signature of another NAR": (more(f"Sig: {signed(KEY, nar=file_nar(b'other'))}"), "bad signature by trusted-1"),
    "a signature of other references": (more(f"Sig: {signed(KEY, references=())}"), "bad signature by trusted-1"),
    "a signature by another key of that name": (
        more(f"Sig: {signed(SecretKey.generate('trusted-1'))}"),
        "bad signature by trusted-1",
    ),
    "a good signature and a bad one": (more(f"Sig: {SIGNATURE}", f"Sig: trusted-1:{'A' * 86}=="), "bad signature by trusted-1"),
    # Content address
    "a malformed content address": (more("CA: hello"), "not a content address"),
    "a content address without a hash": (more("CA: fixed:r:"), "not a hash"),
    "a content address by a method that does not exist": (
        more(f"CA: text:{hashed('sha512')}"),
        "no content addresses by text:sha512",
    ),
    "a content address that gives another path": (more(f"CA: {FIXED}"), "by its content address"),
    "a flat content address that gives another path": (more(f"CA: fixed:{hashed('sha256')}"), "content addressed by"),
    "a text's content address that gives another path": (more(f"CA: text:{hashed('sha256')}"), "content address"),
    # The text
    "nothing": (b"", "cut short"),
    "a line feed": (b"\n", "line 1"),
    "no line feed at the end": (GOOD[:-1], "cut short"),
    "lines of Windows": (GOOD.replace(b"\n", b"\r\n"), ""),
    "a line without a colon": (more("hello"), "is not `Key: value`"),
    "a line without a key": (more(": hello"), "is not `Key: value`"),
    "an empty line": (GOOD.replace(b"URL", b"\nURL"), "is not `Key: value`"),
    "no space behind the colon": (more("CA:hello"), "is not `Key: value`"),
    "a space before the key": (GOOD.replace(b"URL", b" URL"), ""),
    "what is not UTF-8": (more("System: x").replace(b"x\n", b"\xff\xfe\n"), "not UTF-8"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, ""),
    "JSON": (b'{"StorePath": "x"}\n', ""),
    "a NAR": (NAR, ""),
    "more than a narinfo may have": (GOOD + b"Sig: x\n" * (MAX_NARINFO // 7), ""),
    **{f"{key} twice": (more(f"{key}: {value}"), f"{key} is there twice") for key, value in FIELDS.items()},
    "CA twice": (more("CA: ", "CA: "), "CA is there twice"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_narinfo_that_is_not_right_is_refused(daemon: Daemon, lie: str) -> None:
    narinfo, line = LIES[lie]
    answer = put(daemon, narinfo)
    assert 400 <= answer.status < 500
    assert line in answer.line
    assert len(answer.line) < 1000


ADDRESSED: dict[str, Callable[[], tuple[str, tuple[StorePath, ...]]]] = {
    "of another NAR": lambda: (f"fixed:r:{hashed('sha256')}", ()),
    "of another NAR, by SHA-1": lambda: (f"fixed:r:{hashed('sha1')}", ()),
    "of another file": lambda: (f"fixed:{hashed('sha256')}", ()),
    "of another NAR, by BLAKE3": lambda: (f"fixed:r:{hashed('blake3')}", ()),
    "of another file, by BLAKE3": lambda: (f"fixed:{hashed('blake3')}", ()),
    "of another file, by MD5": lambda: (f"fixed:{hashed('md5')}", ()),
    "of another text": lambda: (f"text:{hashed('sha256')}", ()),
    "of a text with references": lambda: (f"text:{hashed('sha256')}", (OTHER,)),
}


@pytest.mark.parametrize("what", ADDRESSED)
def test_a_content_address_that_its_path_follows_from_but_not_its_content_is_refused(daemon: Daemon, what: str) -> None:
    text, references = ADDRESSED[what]()
    ca = ContentAddress.parse(text)
    path = ca.store_path("hostile", references)
    narinfo = NarInfo(path, "nar/x.nar", "none", FACTS, references=references, ca=ca).format()
    name = f"/{nixbase32.encode(path.output_hash)}.narinfo"
    answer = daemon.put(name, narinfo)
    assert 400 <= answer.status < 500
    assert "content" in answer.line or (references and "refers to" in answer.line)
    assert daemon.get(name).status == 404


@pytest.mark.parametrize("algorithm", SIZES)
def test_a_flat_content_address_of_a_directory_is_refused(daemon: Daemon, algorithm: str) -> None:
    ca = ContentAddress.parse(f"fixed:{hashed(algorithm)}")
    path = ca.store_path("hostile")
    nar = NarInfo(path, "nar/x.nar", "none", NarFacts(len(OTHER_NAR), _sha256(OTHER_NAR)), ca=ca)
    answer = daemon.put(f"/{nixbase32.encode(path.output_hash)}.narinfo", nar.format())
    assert answer.status == 400
    assert "not executable" in answer.line


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("zstd", lambda: GOOD),
        ("zstd", lambda: compress("zstd", GOOD)[:-1]),
        ("zstd", lambda: compress("zstd", GOOD) + b"x"),
        ("zstd", lambda: compress("zstd", bytes(300 << 20))),
        ("gzip", lambda: gzip.compress(GOOD)[:-1]),
        ("br", lambda: compress("br", b"A: b\n" * 10_000_000)),
        ("xz", lambda: compress("gzip", GOOD)),
        ("compress", lambda: GOOD),
        ("gzip, zstd", lambda: GOOD),
        ("hello", lambda: GOOD),
    ],
)
def test_a_content_encoding_that_is_not_right_is_refused(daemon: Daemon, encoding: str, body: Callable[[], bytes]) -> None:
    answer = put(daemon, body(), Content_Encoding=encoding)
    assert answer.status in (400, 413, 415)
    assert len(answer.line) < 300
    assert daemon.most_memory() < 100 << 20


@pytest.mark.parametrize("name", ["0" * 31, "0" * 33, "e" * 32, "A" * 32, HASH + "-hostile", HASH.upper(), ""])
def test_a_narinfo_under_a_name_that_is_no_hash_is_refused(daemon: Daemon, name: str) -> None:
    assert daemon.put(f"/{name}.narinfo", GOOD).status == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"URL": "../../../../etc/passwd"},
        {"URL": "file:///etc/passwd"},
        {"URL": "http://elsewhere/nar/x.nar"},
        {"Compression": "hello"},
        {"URL": "nar/<script>alert(1)</script>"},
        {"FileHash": hashed("sha256")},
        {"FileHash": hashed("blake3")},
        {"FileHash": f"sha3:{DIGEST}"},
        {"FileSize": "1"},
        {"System": "pdp11-unix"},
        {"Unknown": "../.."},
    ],
    ids=str,
)
def test_what_a_narinfo_says_of_its_file_is_not_told_to_others(daemon: Daemon, fields: dict[str, str]) -> None:
    """The NAR was taken apart: where it lay, and how it was compressed, is of no more interest."""
    path = StorePath(_sha256(str(fields).encode())[:20], "url")
    name = f"/{nixbase32.encode(path.output_hash)}.narinfo"
    narinfo = edited(**{"StorePath": path.absolute(), "References": "", **fields})
    status = daemon.put(name, narinfo).status
    assert status in (201, 400)
    if status == 201:
        told = NarInfo.parse(daemon.get(name).body)
        assert told.url.startswith("nar/")
        assert daemon.get("/" + told.url).status == 200
        assert not any(value in str(told) for value in fields.values() if len(value) > 1)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
