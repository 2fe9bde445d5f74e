# What type checkers and editors know of the package: the names that `__init__.py` reads when they are used.
# ruff: noqa: I001 - it would give each name a statement

from tvix_store.config import open_store as open_store, verified as verified
from tvix_store.errors import (
    ConflictError as ConflictError,
    CorruptError as CorruptError,
    DeniedError as DeniedError,
    ExhaustedError as ExhaustedError,
    IncompleteError as IncompleteError,
    InvalidError as InvalidError,
    NotFoundError as NotFoundError,
    StoreError as StoreError,
    UnavailableError as UnavailableError,
    UnsupportedError as UnsupportedError,
)
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
from tvix_store.operations.trees.read_file import read_file as read_file
from tvix_store.operations.nars.render import render_nar as render_nar
from tvix_store.operations.export.tar import render_tar as render_tar
from tvix_store.operations.trees.resolve import Resolved as Resolved, resolve as resolve
from tvix_store.services import (
    BlobService as BlobService,
    BlobStat as BlobStat,
    Chunk as Chunk,
    DirectoryService as DirectoryService,
    NarService as NarService,
    PathInfoService as PathInfoService,
    Stats as Stats,
    Store as Store,
)

__version__: str
