"""`tvix-store import`."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tvix_store.cli.input import FilePath
from tvix_store.cli.invocation import Invocation, command, json_option
from tvix_store.cli.output import warn
from tvix_store.cli.progress import Bar, progress_bar
from tvix_store.cli.sizes import counted, human

if TYPE_CHECKING:
    from tvix_store.model.nodes import Node
    from tvix_store.operations.ingest.account import ImportAccount
    from tvix_store.operations.ingest.import_tree import Imported
    from tvix_store.services.store import Store


@command
@click.argument("paths", metavar="[PATH...]", nargs=-1, type=FilePath())
@click.option("--nar", metavar="FILE", type=FilePath(), help="Take the tree in a NAR, in place of PATH; - is the standard input.")
@click.option("--tar", metavar="FILE", type=FilePath(), help="The same of a tar.")
@click.option("--name", help="Name of the store path. Default: the file's name, of an archive without .tar.gz and the like.")
@click.option("--flat", is_flag=True, help="Address a file by the hash of its contents alone, as nix-store --add-fixed does.")
@click.option("--no-path-info", is_flag=True, help="Store the content only, and print its digest.")
@click.option(
    "--directory-size-rule",
    type=click.Choice(("documented", "snix")),
    help="How sizes of directories are counted. Default: the store's rule.",
)
@click.option("--reread", is_flag=True, help="Read all files, also those that look unchanged since they were imported last.")
@json_option
async def import_paths(
    invocation: Invocation,
    paths: tuple[Path, ...],
    nar: Path | None,
    tar: Path | None,
    name: str | None,
    flat: bool,
    no_path_info: bool,
    directory_size_rule: str | None,
    reread: bool,
    as_json: bool,
) -> None:
    """Put the directories, files and symlinks at PATH into the store, and print their store paths.

    The store path is the one that nix-store --add gives the same tree. Of a tree that was imported before, only those files
    are read whose inode, size or times have changed since.

    A NAR or tar may be compressed. A tar with a single entry at its top is that entry; export writes such ones.

    \b
        tvix-store import ./result-of-my-build
        tvix-store import --name hello-2.12 ./out
        tvix-store import --flat ./hello-2.12.tar.gz
        tvix-store import --tar ./hello-2.12.tar.gz
        nix-store --dump ./out | tvix-store import --nar - --name hello-2.12
    """
    archive = nar or tar
    if sum((bool(paths), nar is not None, tar is not None)) != 1:
        raise click.UsageError("give PATHs, or one of --nar and --tar" if archive else "give a PATH, --nar or --tar")
    if archive is not None and (flat or reread):
        raise click.UsageError(f"{'--flat' if flat else '--reread'} does not go with an archive")
    if name is None and str(archive) == "-":
        raise click.UsageError("the standard input has no name; choose one with --name")
    if name is not None and len(paths) > 1:
        raise click.UsageError("--name needs a single PATH")
    from tvix_store.config.user_directories import cache_directory
    from tvix_store.model.directory import SizeRule
    from tvix_store.operations.ingest.account import ImportAccount
    from tvix_store.operations.ingest.files_cache import FilesCache
    from tvix_store.operations.ingest.import_tree import import_tree

    account = ImportAccount()
    began = time.monotonic()

    caches = cache_directory()
    rule = SizeRule[directory_size_rule.upper()] if directory_size_rule else None

    async def imported(store: Store) -> AsyncIterator[Imported]:
        if archive is not None:
            from tvix_store.cli.import_archive import import_archive_file

            done = await import_archive_file(invocation, store, archive, nar is None, name, not no_path_info, rule, account)
            _warn_of_depth(archive, done)
            yield done
        for path in paths:
            if name is None:
                check_default_name(path)
            with progress_bar(invocation, path.name) as bar:
                if bar.visible:
                    asyncio.get_running_loop().run_in_executor(None, _expect_tree, bar, path)
                done = await import_tree(
                    store,
                    path,
                    name=name,
                    flat=flat,
                    path_info=not no_path_info,
                    size_rule=rule,
                    cache=FilesCache(caches / "files", path, lookup=not reread) if caches else None,
                    progress=bar.add,
                    account=account,
                )
            _warn_of_depth(path, done)
            yield done

    first = archive or paths[0]
    if str(archive) != "-" and invocation.missing_stores():  # none is made for nothing
        if archive is None and name is None:
            check_default_name(first)
        first.lstat()
    async with await invocation.open_or_make_store() as store:
        if as_json:
            from tvix_store.cli.json_forms import node_to_json, path_info_to_json
            from tvix_store.cli.output import print_json_array

            await print_json_array(
                path_info_to_json(each.path_info, store.store_dir) if each.path_info else node_to_json(each.node)
                async for each in imported(store)
            )
            return
        async for each in imported(store):
            print(each.store_path.absolute(store.store_dir) if each.path_info else _content(each.node), flush=True)
    if not invocation.quiet:
        print(_summary(account, time.monotonic() - began), file=sys.stderr)


def _summary(account: ImportAccount, seconds: float) -> str:
    files = counted(account.files, "file")
    if account.new is None or account.known is None:
        return f"{human(account.size)} ({files}); {seconds:.1f} s"
    return f"{human(account.new)} new, {human(account.known)} were there ({files}); {seconds:.1f} s"


def check_default_name(path: Path, name: str | None = None) -> None:
    """Name a way out if a store path may not have `name`, which follows from that of the file at `path`: by default, it is that."""
    from tvix_store.errors import InvalidError
    from tvix_store.model.store_path import check_store_path_name

    try:
        check_store_path_name(os.path.basename(os.path.abspath(path)) if name is None else name)
    except InvalidError as error:
        raise InvalidError(f"{path}: {error}; choose a name with --name") from None


def _warn_of_depth(path: Path, done: Imported) -> None:
    from tvix_store.nar import MAX_DEPTH

    if done.depth > MAX_DEPTH:
        warn(f"{path} has {done.depth} nodes inside each other; Nix reads at most {MAX_DEPTH}, and cannot fetch the path")


def _content(node: Node) -> str:
    """The text by which a node without a store path is found."""
    from tvix_store.cli.output import shown
    from tvix_store.model.nodes import SymlinkNode

    return f"-> {shown(node.target)}" if isinstance(node, SymlinkNode) else str(node.digest)


def _expect_tree(bar: Bar, path: Path) -> None:
    """Tell the bar the size of all files, as far as they can be seen. The import reports the others."""
    with suppress(OSError):
        status = path.lstat()
        bar.expect(_size_of_files(path) if stat.S_ISDIR(status.st_mode) else status.st_size)


def _size_of_files(root: Path) -> int:
    size = 0
    left = [os.fspath(root)]  # not os.walk, which recurses until Python 3.12
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    size += entry.stat(follow_symlinks=False).st_size
    return size
