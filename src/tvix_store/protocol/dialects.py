"""The dialects: the protobuf package families in which the same services are offered."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """One family: the packages of its services, and the differences in its messages.

    `chunks_field` and `bao_field` are the numbers of the two fields in the answer to `Stat`; `whole_blobs` says whether its
    BlobService has the unary `Get`.
    """

    name: str
    castore: str
    store: str
    chunks_field: int
    bao_field: int
    whole_blobs: bool = False

    def blob(self, call: str) -> str:
        """The path of a call of this family's BlobService, as `:path` has it."""
        return f"/{self.castore}.BlobService/{call}"

    def directory(self, call: str) -> str:
        return f"/{self.castore}.DirectoryService/{call}"

    def path_info(self, call: str) -> str:
        return f"/{self.store}.PathInfoService/{call}"

    @property
    def services(self) -> tuple[str, str, str]:
        """The full names of the three services."""
        return f"{self.castore}.BlobService", f"{self.castore}.DirectoryService", f"{self.store}.PathInfoService"


SEED = Dialect("seed", castore="tvix.store.v1", store="tvix.store.v1", chunks_field=1, bao_field=2, whole_blobs=True)
TVIX = Dialect("tvix", castore="tvix.castore.v1", store="tvix.store.v1", chunks_field=2, bao_field=3)
SNIX = Dialect("snix", castore="snix.castore.v1", store="snix.store.v1", chunks_field=2, bao_field=3)

DIALECTS = (SEED, TVIX, SNIX)

BULK_SERVICE = "tvix_store.v1.BulkService"
"""Our own service for many small blobs in one call; offered beside all dialects."""
STATISTICS_SERVICE = "tvix_store.v1.StatisticsService"
"""Our own service that tells how much a store holds."""
SETTINGS_SERVICE = "tvix_store.v1.SettingsService"
"""Our own service that tells the settings of the store that its clients must follow."""
CHUNK_STORE_SERVICE = f"{SNIX.castore}.ChunkStoreService"
BLOB_STORE_SERVICE = f"{SNIX.castore}.BlobStoreService"
"""Services of snix since 2026, for single chunks and for blobs as lists of chunks."""
