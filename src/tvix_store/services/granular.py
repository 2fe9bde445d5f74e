"""Granular: an optional power of a backend, to give out and take single directories and chunks, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame

MAX_CHUNK = 4 << 20
"""Bytes of the largest chunk that is taken alone; ours have at most 512 KiB, as those of snix."""
MAX_STORED = 1 << 20
"""Bytes of stored chunks that a caller asks for, or puts, in one call: so many, or one chunk."""
MAX_DIRECTORIES = 64 << 20
"""Bytes of the directories that a caller takes in one call: some 1,000,000 files. Most directories have less than a KiB, but one
may have 16 MiB."""
FREE_CHUNKS = 64
SMALLEST_AVERAGE = 128
"""A list of chunks has up to FREE_CHUNKS, and one more for as many bytes."""


class StoredChunk(NamedTuple):
    """A chunk with its content: its digest (32 bytes), its length (bytes), and its stored bytes.

    `stored` is one zstd frame where it is shorter than `length`, and the chunk itself where it is as long.
    """

    digest: bytes
    length: int
    stored: bytes | memoryview


class Parts(Protocol):
    """Parts of content, to be read.

    The caller bounds each call: to thousands of digests, and to MAX_STORED bytes of stored chunks.
    """

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        """Some directories, in order.

        Raises:
            NotFoundError: one is not there.
            CorruptError: the stored bytes of one do not match its digest.
            ExhaustedError: they have more than MAX_DIRECTORIES bytes, and come from a stranger.
        """
        ...

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[Sequence[Frame]]:
        """The chunks of each blob, in order. A blob that is its own only chunk is listed as that, with the size that is stated.

        A backend that does not know how much is stored of a chunk says its length. No long list is made before the blob's size
        was checked. So the stated sizes bound the memory of a call, whoever states them.

        Raises:
            InvalidError: a blob has another size than is stated.
            NotFoundError: a blob is not there.
            CorruptError: a chunk of one is not.
        """
        ...

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        """The content of some chunks, in order, each of at most MAX_CHUNK bytes. It is not verified: who takes it does that.

        The stated lengths bound what is read; how much is stored need not be stated.

        Raises:
            InvalidError: one has another length than is stated.
            NotFoundError: one is not there.
            CorruptError: the bytes of one are not there.
        """
        ...


class Granular(Parts, Protocol):
    """The parts of a store's content. Who copies between stores asks which parts are missing, and moves these alone.

    It knows the same content as the blob and the directory service. `BlobService.missing` tells which blobs are missing.
    The caller bounds each call, as for `Parts`.
    """

    async def missing_directories(self, digests: Sequence[Digest]) -> set[Digest]:
        """The directories that the store lacks. All directories below one that it has are there too."""
        ...

    async def put_directories(self, directories: Sequence[Directory]) -> None:
        """Store directories. Each comes after those that it refers to, unless the store has these. All become visible, or none.

        Raises:
            InvalidError: one refers to a directory that is neither there nor before it, or states a wrong size for it.
            ExhaustedError: the disk, or a limit, is full.
        """
        ...

    async def missing_chunks(self, digests: Sequence[Digest]) -> set[Digest]:
        """The digests of which the store has neither a chunk nor a blob that is its own only chunk."""
        ...

    async def put_chunks(self, chunks: Sequence[StoredChunk]) -> None:
        """Store chunks, each as a blob of its own. They are decompressed and checked first. An acknowledged chunk survives a killed
        process.

        Raises:
            InvalidError: one is not what its digest says, or is larger than MAX_CHUNK. None was stored.
            ExhaustedError: the disk is full; some may have been stored.
        """
        ...

    async def assemble(self, digest: Digest, chunks: Sequence[Chunk]) -> None:
        """Make a blob of chunks that the store has, as `Assembling.assemble`.

        Raises:
            InvalidError, CorruptError, ExhaustedError: as `Assembling.assemble`.
            IncompleteError: a chunk is not there.
        """
        ...


def check_directories(size: int) -> None:
    """See that directories of `size` bytes may come in one call.

    Raises:
        ExhaustedError: they are too many.
    """
    if size > MAX_DIRECTORIES:
        raise ExhaustedError(f"directories of more than {MAX_DIRECTORIES} bytes came in one call")


def wrong_size(kind: str, digest: Digest, stated: int) -> InvalidError:
    """`kind` says what it is."""
    return InvalidError(f"{kind} {digest} has not {stated} bytes, as is stated")


def check_list(blob: Digest, chunks: int, size: int) -> None:
    """See that a list of `chunks` chunks, of `size` bytes in all, is not much longer than stores make them.

    So the size of a blob tells how much memory its list takes. A store cuts chunks of 256 bytes on average, or more.

    Raises:
        InvalidError: it has no chunks, or too many.
    """
    if not chunks:
        raise InvalidError(f"no chunks are listed for blob {blob}; put the empty blob as a chunk")
    if chunks > FREE_CHUNKS + size // SMALLEST_AVERAGE:
        raise InvalidError(f"blob {blob} of {size} bytes is listed as {chunks} chunks; they are too small")
