"""`tvix-store copy`."""

from __future__ import annotations

from typing import IO

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.input import InputFile, complete_directories
from tvix_store.cli.invocation import Invocation, command, json_option, nix_store_option


@command
@click.argument("paths", metavar="[PATH...]", nargs=-1, shell_complete=store_paths)
@click.option(
    "--from",
    "source",
    metavar="ADDRESS",
    shell_complete=complete_directories,
    help="Copy from this store, or binary cache (nix+https://..., file:///...).",
)
@click.option(
    "--to",
    "target",
    metavar="ADDRESS",
    shell_complete=complete_directories,
    help="Copy to this store, or binary cache (nix+https://..., file:///...). Default for both: the store of --store.",
)
@click.option("--all", "everything", is_flag=True, help="Copy all paths of the store.")
@click.option("--closure", is_flag=True, help="Copy also all that the paths refer to.")
@click.option("--from-nix", is_flag=True, help="Ask Nix for the paths and for all they refer to.")
@click.option(
    "--from-json",
    "document",
    metavar="FILE",
    type=InputFile("rb"),
    help="Copy all paths in this JSON: of nix path-info --json, or of exportReferencesGraph.",
)
@nix_store_option
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 256), metavar="N", help="Paths that are copied at a time. Default: 4 from Nix, else 64."
)
@click.option(
    "--directory-size-rule",
    type=click.Choice(("documented", "snix")),
    help="How sizes of directories are counted that come from Nix. Default: the store's rule.",
)
@click.option("--keep-going/--no-keep-going", default=True, help="Go on with other paths when one fails. Default: yes.")
@click.option(
    "--delta/--no-delta",
    default=None,
    help="Send files as differences from other versions that both stores have. Default: where the link is slow.",
)
@click.option(
    "--trusted-public-keys",
    multiple=True,
    metavar="KEYS",
    help="Keys (name:base64, separated by spaces) whose signatures are checked; repeatable.",
)
@click.option(
    "--require-signatures",
    is_flag=True,
    help="Take only paths that a trusted key has signed, or whose content proves them.",
)
@json_option
async def copy(
    invocation: Invocation,
    paths: tuple[str, ...],
    source: str | None,
    target: str | None,
    everything: bool,
    closure: bool,
    from_nix: bool,
    document: IO[bytes] | None,
    nix_store: str | None,
    jobs: int | None,
    directory_size_rule: str | None,
    keep_going: bool,
    delta: bool | None,
    trusted_public_keys: tuple[str, ...],
    require_signatures: bool,
    as_json: bool,
) -> None:
    """Copy the store paths PATH between stores, or from a store of Nix on this machine. Print the new ones.

    Between stores, only directories, files and chunks move that the target lacks. Nothing that the source says is believed: content
    is held against its digests, and the target computes the NAR hash of each path.

    A binary cache, nix+https://host or file:///path, gets NARs and narinfos, as nix copy writes them.

    From Nix, PATH may also be a symlink to a store path, such as ./result. All that the paths refer to comes along. Contents are
    checked against the NAR hashes that Nix has recorded.

    References, signatures, derivers and content addresses come along. If a path cannot be copied, the paths that refer to it are
    left out too, and all others are copied. A copy that was interrupted goes on when it is repeated: what has arrived is not sent
    again.

    \b
        tvix-store copy --to grpc+http://cache:8000 --closure /nix/store/...-hello
        tvix-store copy --from nix+https://cache.example.org?trusted-public-keys=... /nix/store/...-hello
        tvix-store copy --from /mnt/old --to /mnt/new --all
        tvix-store copy --to file:///mnt/cache?secret-key=cache.key --closure /nix/store/...-hello
        tvix-store copy --from-nix ./result
        tvix-store copy --from-json ./closure.json
    """
    from tvix_store.cli.copy_outcomes import Outcomes

    outcomes = Outcomes(keep_going=keep_going)
    if from_nix or document is not None:
        if source or target or everything or closure or require_signatures or trusted_public_keys or delta is not None:
            raise click.UsageError("--from-nix and --from-json go with none of the options for other stores")
        if from_nix and document is not None:
            raise click.UsageError("say either --from-nix or --from-json FILE")
        if from_nix != bool(paths):
            raise click.UsageError("name some PATHs" if from_nix else "the PATHs are in the FILE of --from-json")
        from tvix_store.cli.copy_from_nix import copy_from_nix

        await copy_from_nix(invocation, outcomes, paths, document, nix_store, jobs, directory_size_rule, as_json=as_json)
        return
    if not source and not target:
        raise click.UsageError("say where from and where to: --from ADDRESS, --to ADDRESS, --from-nix, or --from-json FILE")
    if directory_size_rule:
        raise click.UsageError("--directory-size-rule goes with --from-nix and --from-json: other stores have counted already")
    if everything == bool(paths):
        raise click.UsageError("name some PATHs, or say --all")
    from tvix_store.cli.copy_stores import copy_stores
    from tvix_store.cli.key_files import read_public_keys

    keys = read_public_keys(trusted_public_keys)
    if require_signatures and not keys:
        raise click.UsageError("--require-signatures needs --trusted-public-keys")
    await copy_stores(
        invocation,
        outcomes,
        source,
        target,
        None if everything else paths,
        jobs,
        keys,
        delta,
        closure=closure,
        require_signatures=require_signatures,
        as_json=as_json,
    )
