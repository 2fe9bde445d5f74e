"""NarInfo: the `.narinfo` text with which a binary cache describes one store path.

Lines of `Key: value`. Source: nix, src/libstore/nar-info.cc; `tests/vectors/nix.json` has output of the real `nix`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tvix_store.errors import ConflictError, InvalidError
from tvix_store.model.content_address import ContentAddress
from tvix_store.model.nix_hash import NixHash, UnknownAlgorithmError
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import Signature, check_count, fingerprint
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.model.wire import MAX_UINT64, check_size

MAX_NARINFO = 4 * 1024 * 1024
"""Longest text in bytes that is read: room for 17,000 references of the longest names."""
_KEYS = frozenset(
    ("StorePath", "URL", "Compression", "FileHash", "FileSize", "NarHash", "NarSize", "References", "Deriver", "System", "CA")
)
"""The keys that stand once at most; `Sig` may be repeated, others are ignored, as Nix does."""
_DRV = ".drv"


@dataclass(frozen=True, slots=True)
class NarInfo:
    """One store path in a binary cache: where its compressed NAR lies, and the facts of its PathInfo.

    `url` is relative to the cache. `compression` is Nix's name for it (`none`, `xz`, `zstd`, …). `file_hash` and `file_size`
    (bytes) are those of the compressed file. `deriver` is named without `.drv`, as in PathInfo. Only old versions of Nix write
    `system`.
    """

    store_path: StorePath
    url: str
    compression: str
    nar: NarFacts
    file_hash: NixHash | None = None
    file_size: int | None = None
    references: tuple[StorePath, ...] = ()
    deriver: StorePath | None = None
    system: str | None = None
    signatures: tuple[Signature, ...] = ()
    ca: ContentAddress | None = None

    def __post_init__(self) -> None:
        for key, value in (("URL", self.url), ("Compression", self.compression), ("System", self.system)):
            if value is not None and (not value or " " in value or not value.isprintable()):
                raise InvalidError(f"narinfo: {key} {value[:100]!r} is not one word of printable characters")
        if self.file_size is not None:
            check_size(self.file_size)
        if self.nar.size == 0:
            raise InvalidError("narinfo: NarSize is 0")
        if len(set(self.references)) != len(self.references):
            raise InvalidError("narinfo: a path stands twice in References")

    @classmethod
    def of(
        cls, path_info: PathInfo, url: str, compression: str, file_hash: NixHash | None = None, file_size: int | None = None
    ) -> NarInfo:
        """How a cache describes `path_info` that offers its NAR under `url`."""
        return cls(
            store_path=path_info.store_path,
            url=url,
            compression=compression,
            nar=path_info.nar,
            file_hash=file_hash,
            file_size=file_size,
            references=path_info.references,
            deriver=path_info.deriver,
            signatures=path_info.signatures,
            ca=path_info.ca,
        )

    def path_info(self, node: Node) -> PathInfo:
        """The path info of the path, whose NAR turned out to hold `node`."""
        return PathInfo(self.store_path, node, self.nar, self.references, self.signatures, self.deriver, self.ca)

    def fingerprint(self, store_dir: str = STORE_DIR) -> bytes:
        """The bytes that a signature of this path signs."""
        return fingerprint(self.store_path, self.nar.sha256, self.nar.size, self.references, store_dir)

    def merged(self, newer: NarInfo) -> NarInfo:
        """This narinfo after `newer` was put for the same path in the same cache: its file stays, and signatures are united.

        A deriver and a content address are added where there is none.

        Raises:
            ConflictError: `newer` differs in a part that signatures cover: the path, the NAR or the references.
            InvalidError: there is no place for its signatures.
        """
        for what, same in (
            ("another name", newer.store_path == self.store_path),
            ("another NAR", newer.nar == self.nar),
            ("other references", set(newer.references) == set(self.references)),
        ):
            if not same:
                raise ConflictError(f"{self.store_path} is in the cache with {what}; it is not overwritten")
        signatures = tuple(dict.fromkeys((*self.signatures, *newer.signatures)))
        check_count(signatures)
        deriver, ca = self.deriver or newer.deriver, self.ca or newer.ca
        if (signatures, deriver, ca) == (self.signatures, self.deriver, self.ca):
            return self
        return replace(self, signatures=signatures, deriver=deriver, ca=ca)

    @classmethod
    def parse(cls, data: bytes, store_dir: str = STORE_DIR) -> NarInfo:
        """Read the text of a `.narinfo`. Unknown keys are ignored; a missing `Compression` means bzip2, as Nix has it.

        Raises:
            InvalidError: the text breaks one of these rules. It has at most MAX_NARINFO bytes. Each line is `Key: value`, and only
                `Sig` is repeated. StorePath, URL, NarHash and NarSize are there. Values are well formed. There are at most
                MAX_SIGNATURES distinct signatures.
        """
        values, signatures = _lines(data)
        for key in ("StorePath", "URL", "NarHash", "NarSize"):
            if key not in values:
                raise InvalidError(f"narinfo: {key} is missing")
        if not values["StorePath"].startswith(store_dir + "/"):
            raise InvalidError(f"narinfo: StorePath {values['StorePath'][:250]!r} is not in {store_dir}")
        nar_hash = _hash("NarHash", values["NarHash"])
        if nar_hash.algorithm != "sha256":
            # It could be translated, but signatures cover it, and would be false of the translation. Nix 2.34 refuses it, too.
            raise InvalidError(f"narinfo: NarHash is {nar_hash.algorithm}, not sha256, which path infos and signatures have")
        return cls(
            store_path=StorePath.parse(values["StorePath"], store_dir),
            url=values["URL"],
            compression=values.get("Compression") or "bzip2",
            nar=NarFacts(_number("NarSize", values["NarSize"]), nar_hash.digest),
            file_hash=_file_hash(values.get("FileHash")),
            file_size=_number("FileSize", values["FileSize"]) if "FileSize" in values else None,
            references=tuple(map(StorePath.from_base_name, values.get("References", "").split())),
            deriver=_deriver(values.get("Deriver")),
            system=values.get("System") or None,
            signatures=tuple(dict.fromkeys(map(Signature.parse, signatures))),
            ca=ContentAddress.parse(values["CA"]) if values.get("CA") else None,
        )

    def format(self, store_dir: str = STORE_DIR) -> bytes:
        """The text of the `.narinfo`, with its lines in Nix's order."""
        lines = [f"StorePath: {self.store_path.absolute(store_dir)}", f"URL: {self.url}", f"Compression: {self.compression}"]
        if self.file_hash is not None:
            lines.append(f"FileHash: {self.file_hash}")
        if self.file_size is not None:
            lines.append(f"FileSize: {self.file_size}")
        lines.append(f"NarHash: {NixHash('sha256', self.nar.sha256)}")
        lines.append(f"NarSize: {self.nar.size}")
        lines.append(f"References: {' '.join(map(str, self.references))}")
        if self.deriver is not None:
            lines.append(f"Deriver: {self.deriver}{_DRV}")
        if self.system is not None:
            lines.append(f"System: {self.system}")
        lines.extend(f"Sig: {signature}" for signature in self.signatures)
        if self.ca is not None:
            lines.append(f"CA: {self.ca}")
        return "".join(f"{line}\n" for line in lines).encode()


def _lines(data: bytes) -> tuple[dict[str, str], Iterable[str]]:
    """The values of the single keys, and the distinct ones of `Sig`."""
    if len(data) > MAX_NARINFO:
        raise InvalidError(f"narinfo: {len(data)} bytes are more than {MAX_NARINFO}")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidError("narinfo: it is not UTF-8") from None
    if not text.endswith("\n"):
        raise InvalidError("narinfo: its last line is cut short")
    values: dict[str, str] = {}
    signatures: dict[str, None] = {}  # in order
    for number, line in enumerate(text[:-1].split("\n"), 1):
        key, separator, value = line.partition(":")
        if not key or not separator or value[:1] not in ("", " "):
            raise InvalidError(f"narinfo: line {number} is not `Key: value`")
        if key == "Sig":
            signatures[value[1:]] = None
        elif key in values:
            raise InvalidError(f"narinfo: {key} is there twice (line {number})")
        elif key in _KEYS:
            values[key] = value[1:]
    check_count(signatures)
    return values, signatures


def _file_hash(text: str | None) -> NixHash | None:
    """None also where the algorithm is not known here: the NAR has a hash of its own, which says more."""
    try:
        return _hash("FileHash", text) if text is not None else None
    except UnknownAlgorithmError:
        return None


def _hash(key: str, text: str) -> NixHash:
    try:
        return NixHash.parse(text)
    except InvalidError as error:
        raise type(error)(f"narinfo: {key}: {error}") from None


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= MAX_UINT64):
        raise InvalidError(f"narinfo: {key} {text[:80]!r} is not a number of 64 bits")
    return int(text)


def _deriver(text: str | None) -> StorePath | None:
    # Old caches write `unknown-deriver` where there is none.
    if not text or text == "unknown-deriver":
        return None
    if not text.endswith(_DRV):
        raise InvalidError(f"narinfo: Deriver {text[:250]!r} does not end with {_DRV}")
    return StorePath.from_base_name(text.removesuffix(_DRV))
