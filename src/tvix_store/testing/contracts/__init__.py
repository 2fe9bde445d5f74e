"""What every backend and layer must do, as pytest classes: a subclass gives the fixture and is the whole test of a backend.

class TestMyStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await my_backend.open_store() as store:
            yield store
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "assembling",
            "blobs",
            "deltas",
            "small_blobs",
            "directories",
            "frames",
            "granular",
            "known_nars",
            "lone_files",
            "path_infos",
            "nar",
            "records",
            "removal",
            "staging",
            "statistics",
            "store",
        )
    )
)

from tvix_store.testing.contracts.assembling import AssemblingContract  # noqa: E402
from tvix_store.testing.contracts.blobs import BlobServiceContract  # noqa: E402
from tvix_store.testing.contracts.deltas import DeltasContract  # noqa: E402
from tvix_store.testing.contracts.directories import DirectoryServiceContract  # noqa: E402
from tvix_store.testing.contracts.frames import StoredFramesContract  # noqa: E402
from tvix_store.testing.contracts.granular import GranularContract  # noqa: E402
from tvix_store.testing.contracts.known_nars import KnownNarsContract  # noqa: E402
from tvix_store.testing.contracts.lone_files import LoneFilesContract  # noqa: E402
from tvix_store.testing.contracts.nar import NarServiceContract  # noqa: E402
from tvix_store.testing.contracts.path_infos import PathInfoServiceContract  # noqa: E402
from tvix_store.testing.contracts.records import RecordServiceContract  # noqa: E402
from tvix_store.testing.contracts.removal import RemovalContract  # noqa: E402
from tvix_store.testing.contracts.staging import StagingContract  # noqa: E402
from tvix_store.testing.contracts.statistics import StatisticsContract  # noqa: E402
from tvix_store.testing.contracts.store import PowersContract, StoreContract, StoreWithRecordsContract  # noqa: E402

__all__ = [
    "AssemblingContract",
    "BlobServiceContract",
    "DeltasContract",
    "DirectoryServiceContract",
    "GranularContract",
    "KnownNarsContract",
    "LoneFilesContract",
    "NarServiceContract",
    "PathInfoServiceContract",
    "PowersContract",
    "RecordServiceContract",
    "RemovalContract",
    "StagingContract",
    "StatisticsContract",
    "StoreContract",
    "StoreWithRecordsContract",
    "StoredFramesContract",
]
