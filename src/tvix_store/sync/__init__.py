"""The library for synchronous code: the same verbs, which wait. Also in a notebook, whose thread runs an event loop already.

Work is done on an event loop in a thread of its own, as long as a store is open. An interrupt (Ctrl-C) cancels the work, and then
comes through.
"""

from tvix_store.sync.store import Blobs, Directories, PathInfos, Store
from tvix_store.sync.verbs import (
    copy_paths,
    export_tree,
    import_nar,
    import_tree,
    named_path_infos,
    open_store,
    read_bytes,
    read_file,
    read_text,
    render_nar,
    render_tar,
    resolve,
    verified,
    walk,
)

__all__ = [
    "Blobs",
    "Directories",
    "PathInfos",
    "Store",
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
    "verified",
    "walk",
]
