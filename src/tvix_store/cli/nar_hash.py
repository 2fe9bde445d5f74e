"""`tvix-store nar-hash`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command, json_option

if TYPE_CHECKING:
    from tvix_store.model.path_info import NarFacts


@command
@click.argument("path", shell_complete=store_paths)
@json_option
async def nar_hash(invocation: Invocation, path: str, as_json: bool) -> None:
    """Print the SHA-256 and the size (bytes) of the NAR of the node at PATH, as the store computes them from its content.

    PATH may also be a file, a directory or a symlink on the disk. Nothing is stored then, and no store is opened.

    \b
        tvix-store nar-hash /nix/store/...-hello
        tvix-store nar-hash b3:<digest of a directory>
        tvix-store nar-hash ./hello
    """
    from tvix_store.cli.output import print_json
    from tvix_store.model.nix_hash import NixHash

    facts = await _on_disk(invocation, path)
    if facts is None:
        from tvix_store.operations.trees.resolve import resolve

        async with await invocation.open_store() as store:
            facts = await store.nar.calculate((await resolve(store, path)).node)
    sha256 = NixHash("sha256", facts.sha256)
    if as_json:
        print_json({"narHash": sha256.sri, "narSize": facts.size})
    else:
        print(sha256, facts.size)


async def _on_disk(invocation: Invocation, path: str) -> NarFacts | None:
    """The facts of what is at a path on the disk. None where there is nothing, or where the path is one of the store."""
    from tvix_store.errors import InvalidError
    from tvix_store.model.store_path import STORE_DIR
    from tvix_store.operations.ingest.nar_of_tree import nar_of_tree
    from tvix_store.operations.trees.path_name import PathName, is_on_disk
    from tvix_store.operations.trees.resolve import names_digest

    if names_digest(path):
        return None
    try:
        PathName.split(path, invocation.value("store_dir") or STORE_DIR)
    except InvalidError:
        if is_on_disk(path) or path.startswith((".", "/")):  # what is not there is a file that is missing
            return await asyncio.to_thread(nar_of_tree, Path(path))
    return None
