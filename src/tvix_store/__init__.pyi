# What type checkers and editors know of the package: the names that `__init__.py` reads when they are used.
# ruff: noqa: I001 - it would give each name a statement

from tvix_store import sync as sync
from tvix_store.config import verified as verified
from tvix_store.errors import (
    ClosedError as ClosedError,
    ConflictError as ConflictError,
    CorruptError as CorruptError,
    DeniedError as DeniedError,
    ExhaustedError as ExhaustedError,
    IncompleteError as IncompleteError,
    InvalidError as InvalidError,
    NoStoreError as NoStoreError,
    NotFoundError as NotFoundError,
    StoreError as StoreError,
    UnavailableError as UnavailableError,
    UnsupportedError as UnsupportedError,
)
from tvix_store.library import Store as Store, import_nar as import_nar, open_store as open_store
from tvix_store.model.content_address import ContentAddress as ContentAddress
from tvix_store.model.digest import Digest as Digest
from tvix_store.model.directory import Directory as Directory, SizeRule as SizeRule
from tvix_store.model.nix_hash import NixHash as NixHash
from tvix_store.model.nodes import DirectoryNode as DirectoryNode, FileNode as FileNode, Node as Node, SymlinkNode as SymlinkNode
from tvix_store.model.path_info import NarFacts as NarFacts, PathInfo as PathInfo
from tvix_store.model.signature import PublicKey as PublicKey, SecretKey as SecretKey, Signature as Signature
from tvix_store.model.store_path import StorePath as StorePath
from tvix_store.operations.export.export_tree import export_tree as export_tree
from tvix_store.operations.granular.account import Account as Account
from tvix_store.operations.ingest.import_tree import Imported as Imported, import_tree as import_tree
from tvix_store.operations.paths.copy import copy_paths as copy_paths, named_path_infos as named_path_infos
from tvix_store.operations.paths.path_copies import Copied as Copied
from tvix_store.operations.trees.read_file import read_bytes as read_bytes, read_file as read_file, read_text as read_text
from tvix_store.operations.nars.render import render_nar as render_nar
from tvix_store.operations.export.tar import render_tar as render_tar
from tvix_store.operations.trees.resolve import Resolved as Resolved, resolve as resolve
from tvix_store.operations.trees.walk_path import Entry as Entry, walk as walk
from tvix_store.services import (
    BlobService as BlobService,
    BlobStat as BlobStat,
    Chunk as Chunk,
    DirectoryService as DirectoryService,
    NarService as NarService,
    PathInfoService as PathInfoService,
    Stats as Stats,
)

__version__: str

__all__ = [
    "Account",
    "BlobService",
    "BlobStat",
    "Chunk",
    "ClosedError",
    "ConflictError",
    "ContentAddress",
    "Copied",
    "CorruptError",
    "DeniedError",
    "Digest",
    "Directory",
    "DirectoryNode",
    "DirectoryService",
    "Entry",
    "ExhaustedError",
    "FileNode",
    "Imported",
    "IncompleteError",
    "InvalidError",
    "NarFacts",
    "NarService",
    "NixHash",
    "NoStoreError",
    "Node",
    "NotFoundError",
    "PathInfo",
    "PathInfoService",
    "PublicKey",
    "Resolved",
    "SecretKey",
    "Signature",
    "SizeRule",
    "Stats",
    "Store",
    "StoreError",
    "StorePath",
    "SymlinkNode",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
    "copy_paths",
    "export_tree",
    "import_nar",
    "import_tree",
    "named_path_infos",
    "open_store",
    "read_bytes",
    "read_file",
    "read_text",
    "render_nar",
    "render_tar",
    "resolve",
    "sync",
    "verified",
    "walk",
]
