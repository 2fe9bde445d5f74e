"""`tvix-store daemon`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvix_store.cli.collecting import CollectionOptions, collection_options, collection_terms
from tvix_store.cli.completing import cache_names
from tvix_store.cli.credentials import SecretText
from tvix_store.cli.daemon_checks import (
    check_keys,
    check_tls,
    check_workers,
    checked_substituters,
    warn_of_keys,
    warn_of_no_tokens,
    warn_of_passwords,
    warn_of_signing,
)
from tvix_store.cli.identity_rules import IdentityRuleType
from tvix_store.cli.input import ByteSize, SecretPath
from tvix_store.cli.invocation import Invocation, shared_options
from tvix_store.cli.log_options import log_options
from tvix_store.cli.named_caches import NamedCacheOption, NamedCacheType
from tvix_store.cli.scrubbing import checked_scrub_days, scrub_days_option
from tvix_store.cli.sections import SectionedCommand, section
from tvix_store.cli.served_stores import ServedStore, named_cache_config, waits_for_nars
from tvix_store.cli.token_files import default_token_file, token_file_option, warn_of_writers

if TYPE_CHECKING:
    from tvix_store.access.identity_rule import IdentityRule


@click.command(cls=SectionedCommand)
@section("Listening")
@click.option(
    "-l",
    "--listen-address",
    "listen",
    multiple=True,
    metavar="ADDRESS",
    help="host:port, a socket's path, or sd-listen; repeatable. Default: localhost:8000.",
)
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Let other machines read and write the store. Not needed where a push token exists.",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Answer to this name too, beside localhost and that in --listen-address; repeatable.",
)
@click.option(
    "--allow-origin",
    "allow_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of https://example.org, say, write; repeatable. Default: none.",
)
@click.option("--tls-certificate", type=SecretPath(), help="Serve TLS with this certificate chain (PEM) ...")
@click.option("--tls-key", type=SecretPath(), help="... and this private key (PEM). Both are read again when they change.")
@click.option("--tls-client-ca", type=SecretPath(), help="Let in only clients with a certificate of one of these authorities.")
@click.option(
    "--tls-client-auth",
    type=click.Choice(("required", "optional")),
    help="Whether clients must show a certificate, with --tls-client-ca. Default: required.",
)
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes that serve. Default: one a core.")
@click.option(
    "--shutdown-timeout", type=click.FloatRange(0), metavar="SECONDS", help="What running calls get to finish. Default: 30."
)
@section("Access")
@click.option("--read-only", is_flag=True, help="Refuse every write; other machines may then be let in.")
@click.option("--private", is_flag=True, help="Let only those read who show a token. By default everybody may read.")
@token_file_option
@click.option(
    "--oidc-rule",
    "oidc_rules",
    multiple=True,
    type=IdentityRuleType(),
    metavar="RULE",
    help="Let jobs of a CI system in: issuer=URL audience=NAME scope=pull|push CLAIM=GLOB ...; repeatable.",
)
@click.option(
    "--cache",
    "caches",
    multiple=True,
    type=NamedCacheType(),
    metavar="CACHE",
    help="Serve a cache of its own at /NAME/: NAME [private] [quota=50G] [SETTING=VALUE ...]; repeatable.",
)
@click.option(
    "--default-cache", metavar="NAME", shell_complete=cache_names, help="The named cache for strangers whose URL names none."
)
@section("The binary cache")
@click.option(
    "--priority", type=click.IntRange(0), metavar="N", help="Its rank among a client's caches: the lowest comes first. Default: 40."
)
@click.option("--no-mass-query", is_flag=True, help="Tell clients not to ask this cache for many paths at once.")
@click.option("--nar-compression", type=click.Choice(("zstd", "none")), help="What narinfos offer. Default: zstd.")
@section("Signing")
@click.option(
    "--signing-key-file",
    "signing_key_files",
    multiple=True,
    type=SecretPath(),
    metavar="FILE",
    help="Sign narinfos with this key, also what anybody pushes; repeatable.",
)
@click.option(
    "--trusted-public-keys",
    multiple=True,
    metavar="KEYS",
    help="Keys (name:base64) whose signatures are checked in a put; repeatable.",
)
@click.option(
    "--require-signatures",
    is_flag=True,
    help="Take only paths that a trusted key has signed, or whose content proves them.",
)
@click.option(
    "--require-references/--no-require-references",
    default=True,
    help="Take only paths whose references are here. Default: yes.",
)
@section("Upstreams")
@click.option(
    "--substituters",
    multiple=True,
    metavar="URLS",
    type=SecretText(),
    envvar="TVIX_STORE_SUBSTITUTERS",
    help="Binary caches to fetch missing paths from, with spaces between; repeatable.",
)
@click.option(
    "--substituter-public-keys",
    multiple=True,
    metavar="KEYS",
    help="Their keys (name:base64); repeatable. That of cache.nixos.org is built in.",
)
@click.option(
    "--upstream-narinfos",
    type=click.Choice(("at-once", "fetched")),
    help="When to answer for paths of substituters. Default: fetched where we sign, else at-once.",
)
@section("Limits")
@click.option("--limit-requests", type=click.IntRange(1), metavar="N", help="Requests at once of one client, at a worker.")
@click.option(
    "--limit-uploads", type=click.IntRange(1), metavar="N", help="Requests at once of one client that write, at a worker."
)
@click.option(
    "--limit-rate",
    type=ByteSize(64 << 10),
    metavar="SIZE",
    help="Bytes a second to a client from a worker, and as many from it, as in 20M.",
)
@click.option(
    "--trust-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Believe X-Forwarded-For of this proxy: an IP address, a network or unix; repeatable.",
)
@click.option("--max-nar-size", type=ByteSize(1), metavar="SIZE", help="Largest NAR taken over HTTP, as in 50G. Default: 1T.")
@click.option(
    "--max-nar-entries",
    type=click.IntRange(1),
    metavar="N",
    help="Most nodes (files, symlinks, directories) in a NAR over HTTP. Default: 1000000.",
)
@click.option("--max-message-size", type=ByteSize(1), metavar="SIZE", help="Largest gRPC message that is taken, as in 64M.")
@click.option(
    "--body-timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Time for a client to send 256 bytes more of a body. Default: 30.",
)
@click.option(
    "--send-timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="How long a client may take nothing of an answer. Default: 600.",
)
@click.option(
    "--transfer-memory",
    type=ByteSize(16 << 20),
    metavar="SIZE",
    help="Memory of a worker for what clients send, and for answers. Default: 256M.",
)
@section("Collecting and scrubbing")
@collection_options
@scrub_days_option
@section("Observing")
@log_options
@click.pass_obj
def daemon(
    invocation: Invocation,
    listen: tuple[str, ...],
    allow_remote: bool,
    allow_hosts: tuple[str, ...],
    allow_origins: tuple[str, ...],
    workers: int | None,
    max_message_size: int | None,
    shutdown_timeout: float | None,
    body_timeout: float | None,
    send_timeout: float | None,
    transfer_memory: int | None,
    limit_requests: int | None,
    limit_uploads: int | None,
    limit_rate: int | None,
    trusted_proxies: tuple[str, ...],
    max_nar_size: int | None,
    max_nar_entries: int | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    tls_client_auth: str | None,
    priority: int | None,
    no_mass_query: bool,
    nar_compression: str | None,
    signing_key_files: tuple[Path, ...],
    trusted_public_keys: tuple[str, ...],
    require_signatures: bool,
    require_references: bool,
    private: bool,
    token_file: Path | None,
    oidc_rules: tuple[IdentityRule, ...],
    caches: tuple[NamedCacheOption, ...],
    default_cache: str | None,
    read_only: bool,
    substituters: tuple[str, ...],
    substituter_public_keys: tuple[str, ...],
    upstream_narinfos: str | None,
    scrub_days: float | None,
    collection: CollectionOptions,
    log_level: str,
    log_format: str,
    access_log: bool,
) -> None:
    """Serve the store over gRPC, and as a binary cache for Nix over HTTP; to this machine only unless told otherwise.

    SIGTERM or Ctrl-C ends it when running calls are done; a second one at once. SIGHUP reloads the TLS certificate, and
    says which options have changed in the configuration. Tokens are read again when they change.

    \b
        tvix-store daemon
        nix copy --to 'http://localhost:8000?compression=zstd' ./result
        tvix-store daemon -l localhost:9000 -l /run/tvix-store.sock --store /srv/store
        tvix-store daemon -l 0.0.0.0:8000 --read-only --signing-key-file /etc/nix/cache.key
        tvix-store token create --scope push && tvix-store daemon -l 0.0.0.0:8443 --tls-certificate FILE --tls-key FILE
        tvix-store daemon --cache "team-a private quota=50G" --cache public --default-cache public
    """
    check_tls(tls_certificate, tls_key, tls_client_ca, tls_client_auth)
    from dataclasses import replace
    from functools import partial

    from tvix_store.access.settings import AccessSettings
    from tvix_store.cli.greeting import greeting
    from tvix_store.cli.key_files import read_public_keys
    from tvix_store.cli.reread import Reread
    from tvix_store.config import is_in_memory, local_directories, prepare_for_pool, private_places
    from tvix_store.config.secret_key import read_secret_key
    from tvix_store.http.settings import CacheSettings
    from tvix_store.observe import logs, traces
    from tvix_store.server import ServerConfig, serve
    from tvix_store.server.limits import Limits
    from tvix_store.server.settings import TlsFiles

    composition = invocation.composition()
    in_memory = is_in_memory(composition)
    check_workers(workers, in_memory=in_memory)
    directories = local_directories(composition)
    logs.set_up(log_level, log_format)
    urls = checked_substituters(invocation, substituters, require_signatures=require_signatures)
    warn_of_passwords([*urls, *composition.upstreams(), *composition.leaves()])
    signing_keys = tuple(map(read_secret_key, signing_key_files))
    # A signature in the name of our own keys must be right as well: it would be served beside ours.
    trusted_keys = read_public_keys(trusted_public_keys)
    checked_keys = (*trusted_keys, *(key.public for key in signing_keys))
    check_keys(checked_keys, require_signatures=require_signatures)

    served = ServedStore(
        invocation,
        substituters=urls,
        substituter_public_keys=read_public_keys(substituter_public_keys),
        checked_keys=checked_keys,
        require_signatures=require_signatures,
        require_references=require_references,
        signs=bool(signing_keys),
        read_only=read_only,
        scrub_days=checked_scrub_days(scrub_days, directories),
        collection=collection_terms(collection, directories),
    )
    cache_options: dict[str, Any] = {"priority": priority, "nar_compression": nar_compression, "body_timeout": body_timeout}
    cache_options |= {"max_nar_size": max_nar_size, "max_nar_entries": max_nar_entries}
    cache = CacheSettings(
        want_mass_query=not no_mass_query,
        waits_for_nars=waits_for_nars(upstream_narinfos, signs=bool(signing_keys)),
        signing_keys=signing_keys,
        trusted_keys=trusted_keys,
        read_only=read_only,
        private_places=private_places(composition),
        **{name: value for name, value in cache_options.items() if value is not None},
    )
    given: dict[str, Any] = {
        "listen": listen or None,
        "workers": 1 if in_memory else workers,
        "grace": shutdown_timeout,
        "max_message": max_message_size,
        "send_timeout": send_timeout,
        "memory": transfer_memory,
        "traces": traces.are_wanted(),
        "access_log": log_format if access_log else None,
    }
    if tls_certificate and tls_key:
        given["tls"] = TlsFiles(tls_certificate, tls_key, tls_client_ca, tls_client_auth != "optional")
    of_caches = [file for each in caches for file in each.signing_key_files]
    of_caches += map(Path, composition.secret_files())
    warn_of_keys([*signing_key_files, *of_caches, *([tls_key] if tls_key else [])])
    signs_all = bool(signing_keys) or any(each.signing_key_file and not each.require_signatures for each in caches)
    if signs_all and not require_signatures and not read_only:
        warn_of_signing()
    access = AccessSettings(token_file or default_token_file(invocation), oidc_rules, private)
    if access.token_file is not None:
        warn_of_writers(access.token_file)
    closed = access.is_closed()
    if token_file is not None and not token_file.exists():
        # Who names a file means to ask for tokens. A mistyped name must not let strangers write.
        closed = True
        warn_of_no_tokens(token_file)
    config = ServerConfig(
        access=replace(access, closed=closed),
        caches=tuple(named_cache_config(served, cache, each, upstream_narinfos) for each in caches),
        default_cache=default_cache,
        # Strangers are kept out, by what they may do.
        allow_remote=allow_remote or read_only or bool(caches) or closed,
        allow_hosts=allow_hosts,
        allow_origins=allow_origins,
        limits=Limits(limit_requests, limit_uploads, limit_rate),
        trusted_proxies=trusted_proxies,
        cache=cache,
        reread=partial(Reread(click.get_current_context()).changes, ()),
        directories=directories,
        **{name: value for name, value in given.items() if value is not None},
    )
    is_new = bool(invocation.missing_stores())
    prepare_for_pool(composition)  # what the supervisor imports, its workers share
    serve(
        config, served.open, None if invocation.quiet else greeting(invocation.addresses(), config, upstreams=urls, is_new=is_new)
    )


daemon.params += shared_options()
