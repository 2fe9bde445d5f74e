"""Hypothesis strategies for the values of the model: all of them valid, the odd ones among them often.

They need the package `hypothesis`, which tvix-store itself does not.
"""

from __future__ import annotations

import string
from random import Random
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.names import MAX_NAME, MAX_TARGET
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import SIZES, NixHash
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import SecretKey, Signature
from tvix_store.model.store_path import OUTPUT_HASH_SIZE, StorePath
from tvix_store.model.wire import MAX_UINT64
from tvix_store.testing.trees import Tree, TreeFile

T = TypeVar("T")
_SMALLEST_NAR = 96
"""Bytes of the smallest NAR there is, that of an empty directory."""


def names() -> SearchStrategy[bytes]:
    """Names of children: short text for the most part, but also any bytes, and the longest that are allowed."""
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).map(str.encode)
    dots = st.sampled_from((b"...", b".a", b"a.", b"-", b" "))
    raw = st.binary(min_size=1, max_size=12)
    longest = st.binary(min_size=MAX_NAME - 1, max_size=MAX_NAME)
    spoilt = bytes.maketrans(b"/\0", b"__")
    return (
        st.one_of(text, dots, raw, longest).map(lambda name: name.translate(spoilt)).filter(lambda name: name not in (b".", b".."))
    )


def targets() -> SearchStrategy[bytes]:
    """Targets of symlinks."""
    some = st.one_of(
        st.binary(min_size=1, max_size=20), st.sampled_from((b".", b"..", b"/", b"../a", b"/nix/store", b"x" * MAX_TARGET))
    )
    return some.map(lambda target: target.replace(b"\0", b"_"))


def digests() -> SearchStrategy[Digest]:
    """BLAKE3 digests, of nothing in particular."""
    return st.just(EMPTY) | st.binary(min_size=32, max_size=32).map(Digest)


def size_rules() -> SearchStrategy[SizeRule]:
    """The size rules."""
    return st.sampled_from(SizeRule)


def file_nodes() -> SearchStrategy[FileNode]:
    """Regular files of any size."""
    return st.builds(FileNode, digests(), st.integers(0, MAX_UINT64), st.booleans())


def directory_nodes() -> SearchStrategy[DirectoryNode]:
    """Directories that need not exist, of sizes that do not overflow when some are added."""
    return st.builds(DirectoryNode, digests(), st.integers(0, 1 << 48))


def symlink_nodes() -> SearchStrategy[SymlinkNode]:
    """Symlinks."""
    return st.builds(SymlinkNode, targets())


def nodes() -> SearchStrategy[Node]:
    """Nodes of all kinds."""
    return st.one_of(file_nodes(), directory_nodes(), symlink_nodes())


def directories(max_entries: int = 8) -> SearchStrategy[Directory]:
    """Directories whose children need not exist."""
    return st.dictionaries(names(), nodes(), max_size=max_entries).map(Directory)


def trees(max_leaves: int = 12) -> SearchStrategy[Tree]:
    """Whole trees with their contents: see `tvix_store.testing.trees` for what can be made of them."""
    contents = st.one_of(st.binary(max_size=40), st.sampled_from((b"", b"same", b"x" * 5000)))
    leaves: SearchStrategy[Tree] = st.builds(TreeFile, contents, st.booleans()) | symlink_nodes()
    return st.recursive(leaves, lambda children: st.dictionaries(names(), children, max_size=5), max_leaves=max_leaves)


def store_path_names() -> SearchStrategy[str]:
    """Names of store paths."""
    characters = string.ascii_letters + string.digits + "+-._?="
    short = st.text(characters, min_size=1, max_size=10)
    longest = st.text(characters, min_size=210, max_size=211)
    dotted = st.text(".-a", min_size=1, max_size=4)
    return st.one_of(short, longest, dotted).filter(lambda name: name.partition("-")[0] not in (".", ".."))


def store_paths() -> SearchStrategy[StorePath]:
    """Store paths."""
    return st.builds(StorePath, st.binary(min_size=OUTPUT_HASH_SIZE, max_size=OUTPUT_HASH_SIZE), store_path_names())


def nix_hashes(*algorithms: str) -> SearchStrategy[NixHash]:
    """Hashes of `algorithms` (default: all that Nix knows)."""

    def of(algorithm: str) -> SearchStrategy[NixHash]:
        digest = st.binary(min_size=SIZES[algorithm], max_size=SIZES[algorithm])
        return digest.map(lambda raw: NixHash(algorithm, raw))

    return st.sampled_from(algorithms or tuple(SIZES)).flatmap(of)


def content_addresses() -> SearchStrategy[ContentAddress]:
    """Content addresses of all kinds."""
    return st.one_of(
        st.builds(ContentAddress, st.sampled_from((Method.NAR, Method.FLAT)), nix_hashes()),
        st.builds(ContentAddress, st.just(Method.TEXT), nix_hashes("sha256")),
    )


def key_names() -> SearchStrategy[str]:
    """Names of signing keys."""
    printable = st.characters(min_codepoint=ord("!"), max_codepoint=ord("~"), exclude_characters=":")
    return st.sampled_from(("cache.example.org-1", "k", "k" * 256)) | st.text(printable, min_size=1, max_size=12)


def signatures() -> SearchStrategy[Signature]:
    """Signatures, of nothing in particular."""
    return st.builds(Signature, key_names(), st.binary(min_size=64, max_size=64))


def secret_keys() -> SearchStrategy[SecretKey]:
    """Keys that sign, always the same for the same example."""
    return st.builds(SecretKey.from_seed, key_names(), st.binary(min_size=32, max_size=32))


def nar_facts() -> SearchStrategy[NarFacts]:
    """Sizes and hashes of NARs, of nothing in particular."""
    return st.builds(NarFacts, st.integers(_SMALLEST_NAR, MAX_UINT64), st.binary(min_size=32, max_size=32))


def path_infos() -> SearchStrategy[PathInfo]:
    """Path infos of any content; what they say of it is not true."""
    return st.builds(
        PathInfo,
        store_path=store_paths(),
        node=nodes(),
        nar=nar_facts(),
        references=_tuples(store_paths()),
        signatures=_tuples(signatures()),
        deriver=st.none() | store_paths(),
        ca=st.none() | content_addresses(),
    )


def narinfos() -> SearchStrategy[NarInfo]:
    """What a binary cache may say of a path."""
    word = st.text(st.characters(codec="ascii", exclude_categories=("C", "Z")), min_size=1, max_size=20)
    return st.builds(
        NarInfo,
        store_path=store_paths(),
        url=word,
        compression=st.sampled_from(("none", "xz", "zstd", "bzip2")) | word,
        nar=nar_facts(),
        file_hash=st.none() | nix_hashes(),
        file_size=st.none() | st.integers(0, MAX_UINT64),
        references=_tuples(store_paths()),
        deriver=st.none() | store_paths(),
        system=st.none() | word,
        signatures=_tuples(signatures()),
        ca=st.none() | content_addresses(),
    )


def cut(data: bytes) -> SearchStrategy[list[bytes]]:
    """`data` cut into pieces anywhere, some of them empty: what a parser of streams may be fed."""
    positions = st.lists(st.integers(0, len(data)), max_size=20).map(sorted)
    return positions.map(lambda at: [data[start:stop] for start, stop in zip([0, *at], [*at, len(data)], strict=True)])


def damaged(valid: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """What `valid` gives, with some damage: see `damage`."""
    return st.builds(damage, valid, st.randoms(use_true_random=False))


def damage(data: bytes, random: Random) -> bytes:
    """`data` with up to three places overwritten, taken out, put in or doubled: nearly right, as hostile input is."""
    for _ in range(random.randint(0, 3)):
        start, elsewhere = random.randint(0, len(data)), random.randint(0, len(data))
        stop = start + random.choice((0, 1, 2, 8, 16))
        byte, length = random.randrange(256), 1 << random.randrange(64)
        piece = random.choice((b"", bytes([byte]), length.to_bytes(8, "little"), data[elsewhere : elsewhere + 32]))
        data = data[:start] + piece + data[stop:]
    return data


def _tuples(values: SearchStrategy[T]) -> SearchStrategy[tuple[T, ...]]:
    return st.lists(values, max_size=4, unique=True).map(tuple)
