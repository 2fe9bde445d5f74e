"""tvix-store: a granular content-addressed store for Nix.

The names for users of the library are here. Each is read from its module when it is first used; docs/library.md shows it at work.
"""

from __future__ import annotations

try:
    from tvix_store._version import __version__
except ImportError:  # a source tree that was never built: the build writes this module
    __version__ = "0+unknown"

_NAMES = {
    "config": ("verified",),
    "errors": (
        "ClosedError",
        "ConflictError",
        "CorruptError",
        "DeniedError",
        "ExhaustedError",
        "IncompleteError",
        "InvalidError",
        "NoStoreError",
        "NotFoundError",
        "StoreError",
        "UnavailableError",
        "UnsupportedError",
    ),
    "library": ("Store", "import_nar", "open_store"),
    "model.content_address": ("ContentAddress",),
    "model.digest": ("Digest",),
    "model.directory": ("Directory", "SizeRule"),
    "model.nix_hash": ("NixHash",),
    "model.nodes": ("DirectoryNode", "FileNode", "Node", "SymlinkNode"),
    "model.path_info": ("NarFacts", "PathInfo"),
    "model.signature": ("PublicKey", "SecretKey", "Signature"),
    "model.store_path": ("StorePath",),
    "operations.export.export_tree": ("export_tree",),
    "operations.granular.account": ("Account",),
    "operations.ingest.import_tree": ("Imported", "import_tree"),
    "operations.paths.copy": ("copy_paths", "named_path_infos"),
    "operations.paths.path_copies": ("Copied",),
    "operations.trees.read_file": ("read_bytes", "read_file", "read_text"),
    "operations.nars.render": ("render_nar",),
    "operations.export.tar": ("render_tar",),
    "operations.trees.resolve": ("Resolved", "resolve"),
    "operations.trees.walk_path": ("Entry", "walk"),
    "services": (
        "BlobService",
        "BlobStat",
        "Chunk",
        "DirectoryService",
        "NarService",
        "PathInfoService",
        "Stats",
    ),
}
"""The names of the library, by module. `__init__.pyi` says the same to type checkers."""
_SUBMODULES = ("sync",)

_MODULES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}


__all__ = ["__version__", *_SUBMODULES, *_MODULES]  # noqa: PLE0604 - they are names


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # found there from now on
    return value


def __dir__() -> list[str]:
    return __all__
