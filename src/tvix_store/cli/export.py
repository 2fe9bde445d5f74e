"""`tvix-store export`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.input import FilePath
from tvix_store.cli.invocation import Invocation, command
from tvix_store.cli.progress import progress_bar


@command
@click.argument("path", shell_complete=store_paths)
@click.argument("destination", type=FilePath())
@click.option("--format", "form", type=click.Choice(("dir", "nar", "tar")), default="dir", show_default=True, help="What to write.")
async def export(invocation: Invocation, path: str, destination: Path, form: str) -> None:
    """Write the tree or file at PATH to DESTINATION, which must not exist yet and appears when it is complete.

    A NAR or tar goes to the standard output where DESTINATION is -.

    \b
        tvix-store export /nix/store/...-hello ./hello
        tvix-store export --format nar <hash> - | nix-store --restore ./hello
        tvix-store export --format tar b3:<digest> - | zstd > tree.tar.zst
    """
    to_standard_output = str(destination) == "-"
    if to_standard_output and form == "dir":
        raise click.UsageError("the standard output takes a NAR or a tar; add --format nar or --format tar")
    if to_standard_output and sys.stdout.isatty():
        raise click.UsageError(f"a {form} is not for reading on a terminal; redirect the output")
    from tvix_store.cli.counted_blobs import CountedBlobs
    from tvix_store.cli.output import print_bytes
    from tvix_store.operations.export.export_tree import export_tree, save_stream
    from tvix_store.operations.trees.resolve import resolve

    async with invocation.pool(wanted=form == "dir") as pool, await invocation.open_store() as store:
        found = await resolve(store, path)
        # A NAR adds little to the contents of a tree, and nothing else tells their size beforehand.
        size = found.path_info.nar.size if found.path_info and not found.inner else None
        with progress_bar(invocation, "export" if to_standard_output else destination.name, size) as bar:
            if form == "dir":
                await export_tree(store.blobs, found.tree, destination, pool=pool, progress=bar.add)
                return
            blobs = CountedBlobs(store.blobs, bar)
            pieces: AsyncIterator[bytes]
            if form == "nar":
                from tvix_store.operations.nars.render import render_nar

                pieces = render_nar(blobs, found.tree)
            else:
                from tvix_store.operations.export.tar import render_tar

                pieces = render_tar(blobs, found.tree, found.name)
            if to_standard_output:
                await print_bytes(pieces)
            else:
                await save_stream(pieces, destination)
