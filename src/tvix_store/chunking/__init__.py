"""Content-defined chunking: where a blob is cut, so that equal stretches of different blobs become equal chunks. Pure."""

from tvix_store.chunking.assembler import BlobAssembler, CutChunk, cut_blob
from tvix_store.chunking.cutter import Cutter, cut
from tvix_store.chunking.sizes import DEFAULT_SIZES, ChunkSizes

__all__ = ["DEFAULT_SIZES", "BlobAssembler", "ChunkSizes", "CutChunk", "Cutter", "cut", "cut_blob"]
