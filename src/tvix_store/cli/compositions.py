"""Compositions of stores, as the program reads them: from a file of their own, or from the configuration."""

from __future__ import annotations

from tvix_store.cli.config_file import ConfigFile, ConfigurationError
from tvix_store.cli.masking import masked
from tvix_store.config import Composition, read_composition
from tvix_store.config.composition.reading import CompositionError


def composition_in(source: str | ConfigFile) -> Composition:
    """The composition in a file, or in a configuration.

    Raises:
        ConfigurationError: it is wrong.
        NotFoundError, DeniedError: the file cannot be read.
    """
    try:
        return read_composition(source)
    except CompositionError as error:
        first, *others = error.problems
        more = f" ({len(others)} more: tvix-store config check)" if others else ""
        raise ConfigurationError(f"{masked(first)}{more}") from None
