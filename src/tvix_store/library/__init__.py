"""The library's own face: stores as `tvix_store.open_store` opens them. They take what users have at hand, and tell of mistakes.

Backends, layers and the program know nothing of it. A store of this room is a `services.Store`, so all operations take it.
"""

from tvix_store.library.data import Data
from tvix_store.library.import_nar import import_nar
from tvix_store.library.opening import StoreOpening, open_store
from tvix_store.library.services import Blobs, Directories, PathInfos
from tvix_store.library.store import Store, opened

__all__ = ["Blobs", "Data", "Directories", "PathInfos", "Store", "StoreOpening", "import_nar", "open_store", "opened"]
