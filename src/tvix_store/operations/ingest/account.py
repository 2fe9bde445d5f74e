"""ImportAccount: what imports have done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ImportAccount:
    """Of one import, or of several.

    files: The files that were imported.
    size: Their bytes.
    new: The bytes that the store lacked, each chunk once. None where a store does not tell: one without stages.
    """

    files: int = 0
    size: int = 0
    new: int | None = 0

    @property
    def known(self) -> int | None:
        """The bytes that need not be kept: the store has them, or the tree has them twice."""
        return None if self.new is None else max(self.size - self.new, 0)

    def count(self, files: int, size: int) -> None:
        """Count more files, and bytes of them; negative numbers take some back."""
        self.files += files
        self.size += size

    def add_new(self, size: int | None) -> None:
        """Count more new bytes. None: nobody knows how many."""
        self.new = None if size is None or self.new is None else self.new + size
