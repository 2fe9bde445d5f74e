"""`tvix-store import --nar` and `--tar`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tvix_store.cli.import_paths import check_default_name
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.progress import progress_bar
from tvix_store.errors import ExhaustedError, InvalidError

if TYPE_CHECKING:
    from tvix_store.model.directory import SizeRule
    from tvix_store.operations.ingest.account import ImportAccount
    from tvix_store.operations.ingest.import_tree import Imported
    from tvix_store.services.store import Store


async def import_archive_file(
    invocation: Invocation,
    store: Store,
    path: Path,
    is_tar: bool,
    name: str | None,
    path_info: bool,
    rule: SizeRule | None,
    account: ImportAccount,
) -> Imported:
    """Import the archive in the file `path`, or of the standard input where that is `-`. Its errors name it."""
    from tvix_store.operations.ingest.import_archive import archive_name, import_archive

    from_standard_input = str(path) == "-"
    if name is None:
        name = archive_name(path.name)
        check_default_name(path, name)
    label = "the standard input" if from_standard_input else str(path)
    with nullcontext(sys.stdin.buffer) if from_standard_input else path.open("rb") as file, progress_bar(invocation, name) as bar:
        try:
            return await import_archive(
                store,
                file,
                "tar" if is_tar else "nar",
                name=name,
                suffix=path.suffix,
                path_info=path_info,
                size_rule=rule,
                progress=bar.add,
                account=account,
            )
        except (InvalidError, ExhaustedError) as error:
            raise type(error)(f"{label}: {error}") from None
