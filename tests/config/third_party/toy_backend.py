"""A backend of another package: everything in dicts, nothing optional. It uses what is public of tvix-store, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field

from tvix_store import BlobStat, Digest, Directory, InvalidError, NotFoundError, PathInfo, StorePath
from tvix_store.config import Address, Opening, Scheme
from tvix_store.config.composition.node import Leaf
from tvix_store.config.composition.parameter import TEXT, parameter
from tvix_store.errors import ExhaustedError
from tvix_store.model.directory_graph import LeavesToRoot
from tvix_store.model.nodes import Node
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services import SMALL_BLOB, Offer, StoredTree

_PIECE = 1 << 20


class ToyBlobs:
    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        return BlobStat(len(self._blobs[digest])) if digest in self._blobs else None

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return set(digests) - self._blobs.keys()

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        if digest not in self._blobs:
            raise NotFoundError("blob", digest)
        wanted = self._blobs[digest][start:stop]
        for at in range(0, len(wanted), _PIECE):
            yield wanted[at : at + _PIECE]

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        blob = b"".join([piece async for piece in data])
        self._blobs[Digest.of(blob)] = blob
        return Digest.of(blob)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        if any(len(blob) > SMALL_BLOB for blob in blobs):
            raise InvalidError(f"put_many takes blobs of at most {SMALL_BLOB} bytes")
        self._blobs |= {Digest.of(blob): blob for blob in blobs}
        return [Digest.of(blob) for blob in blobs]

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        blobs = [self._blobs.get(digest) for digest in digests]
        if any(blob is not None and len(blob) > SMALL_BLOB for blob in blobs):
            raise ExhaustedError(f"get_many gives out blobs of at most {SMALL_BLOB} bytes")
        return blobs


class ToyDirectories:
    def __init__(self) -> None:
        self._directories: dict[Digest, Directory] = {}

    async def get(self, digest: Digest) -> Directory | None:
        return self._directories.get(digest)

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        wanted = [digest]
        for each in wanted:
            if each not in self._directories:
                raise NotFoundError("directory", each)
            yield self._directories[each]
            wanted += dict.fromkeys(
                child.digest for _, child in self._directories[each].directories() if child.digest not in wanted
            )

    def tree(self, root: Node) -> StoredTree:
        return StoredTree(self, root)

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        order, graph = LeavesToRoot(), {}
        async for directory in directories:
            order.add(directory)
            graph[directory.digest] = directory
        root = order.finish()
        self._directories |= graph
        return root


class ToyPathInfos:
    def __init__(self) -> None:
        self._path_infos: dict[bytes, PathInfo] = {}

    async def get(self, output_hash: bytes) -> PathInfo | None:
        return self._path_infos.get(output_hash)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        return {each: self._path_infos[each] for each in output_hashes if each in self._path_infos}

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        return {each: self._path_infos[each].store_path for each in output_hashes if each in self._path_infos}

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        known = self._path_infos.get(path_info.store_path.output_hash)
        stored = known.merged(path_info, trust) if known else path_info
        self._path_infos[path_info.store_path.output_hash] = stored
        return stored

    async def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        for output_hash, path_info in sorted(self._path_infos.items()):
            if output_hash > after:
                yield path_info


async def open_address(address: Address, opening: Opening) -> Offer:
    """`toy:`, or `toy://?without=path_infos` and the like."""
    services = {"blobs": ToyBlobs(), "directories": ToyDirectories(), "path_infos": ToyPathInfos()}
    given = address.read_parameters({"without": services.pop})
    assert given.keys() <= {"without"}
    return Offer(**services)  # type: ignore[arg-type]  # each is under its own name


SCHEME = Scheme(open_address)


@dataclass(frozen=True)
class ToyType(Leaf):
    """The type `toy` of compositions."""

    without: str | None = field(default=None, metadata=parameter(TEXT))

    def address(self) -> str:
        return f"toy://?without={self.without}" if self.without else "toy:"


class Toy:
    """Neither a Scheme nor a type."""
