"""A backend: each blob is a file in one directory, named by its digest. The address `files:///path` opens it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from tvix_store import BlobStat, CorruptError, Digest, InvalidError, NotFoundError
from tvix_store.config import Address, Opening, Scheme
from tvix_store.errors import ExhaustedError
from tvix_store.services import SMALL_BLOB, Offer


class FileBlobs:
    """A BlobService. It holds one blob at a time in memory; a backend for large files would read and write in pieces."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def _load(self, digest: Digest) -> bytes | None:
        path = self._directory / digest.hex
        if not path.exists():
            return None
        if Digest.of(blob := path.read_bytes()) != digest:
            raise CorruptError(f"{path} is damaged: its bytes are another blob")
        return blob

    def _save(self, blob: bytes) -> Digest:
        digest = Digest.of(blob)
        with NamedTemporaryFile(dir=self._directory, delete=False) as file:
            file.write(blob)
        Path(file.name).rename(self._directory / digest.hex)  # whole, or not there
        return digest

    async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
        blob = await asyncio.to_thread(self._load, digest)
        return None if blob is None else BlobStat(len(blob))

    async def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        return {digest for digest in digests if await self.stat(digest) is None}

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        blob = await asyncio.to_thread(self._load, digest)
        if blob is None:
            raise NotFoundError("blob", digest)
        wanted = blob[start:stop]
        for at in range(0, len(wanted), 1 << 20):
            yield wanted[at : at + (1 << 20)]

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        return await asyncio.to_thread(self._save, b"".join([piece async for piece in data]))

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        if any(len(blob) > SMALL_BLOB for blob in blobs):
            raise InvalidError(f"put_many takes blobs of at most {SMALL_BLOB} bytes")
        return [await asyncio.to_thread(self._save, blob) for blob in blobs]

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        blobs = [await asyncio.to_thread(self._load, digest) for digest in digests]
        if any(blob is not None and len(blob) > SMALL_BLOB for blob in blobs):
            raise ExhaustedError(f"get_many gives out blobs of at most {SMALL_BLOB} bytes")
        return blobs


async def open_address(address: Address, opening: Opening) -> Offer:
    return Offer(blobs=FileBlobs(Path(address.path)))


SCHEME = Scheme(open_address)
