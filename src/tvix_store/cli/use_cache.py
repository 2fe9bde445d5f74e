"""What `tvix-store use` changes: Nix's configuration, and its file of passwords."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tvix_store.cli.file_changes import Change, FileChange, read_file
from tvix_store.cli.nix_users import untrusted_user
from tvix_store.client_environment import netrc_text, nix_conf, nix_files
from tvix_store.client_environment.authorities import trusted_authorities
from tvix_store.client_environment.credentials import find_credentials
from tvix_store.client_environment.introduction import Introduction, ask_cache
from tvix_store.errors import ConflictError, InvalidError
from tvix_store.model import well_known_caches
from tvix_store.model.signature import PublicKey
from tvix_store.model.store_path import STORE_DIR

_URL = re.compile(r"https?://[^\s#\"'\\@?]+(\?[^\s#\"'\\@]*)?")
"""A URL that can stand in nix.conf: no comment begins in it, and it has no password, since all users read that file."""
_KEY_NAME = re.compile(r"[A-Za-z0-9._+-]+")
_TOKEN = re.compile(r"[!-~]+")
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for."""

    url: str
    system: bool
    token: str | None
    public_keys: tuple[str, ...]
    store_dir: str | None

    @property
    def machine(self) -> str:
        """The host, as netrc names it."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class _Files:
    """Nix's files. `managed` where something else writes nix.conf: NixOS, or home-manager."""

    nix_conf: Path
    text: str
    netrc: Path
    default_netrc: bool
    managed: bool


async def use_cache(wish: Wish) -> Change:
    """The change that makes Nix use a cache.

    Raises:
        InvalidError: the URL, the token or a key is malformed; there is no cache, or one for another store directory.
        ConflictError: the cache has another key than before.
        StoreError: the cache cannot be asked.
    """
    _check(wish)
    files = _files(wish)
    told = await asyncio.to_thread(ask_cache, wish.url, wish.token or _known_token(wish), await trusted_authorities())
    store_dir = wish.store_dir or STORE_DIR
    if told.store_dir != store_dir:
        raise InvalidError(f"{wish.url} holds paths of {told.store_dir}, not of {store_dir}")
    keys = _keys(wish, told)
    old = nix_conf.block(files.text, wish.url)
    _check_same_keys(wish, keys, old)
    lines = [f"extra-substituters = {wish.url}"]
    lines += [f"extra-trusted-public-keys = {' '.join(keys)}"] if keys else []
    netrc_line = f"netrc-file = {files.netrc}"
    if not files.default_netrc and (wish.token or netrc_line in (old or ())):
        lines.append(netrc_line)
    text = nix_conf.with_block(files.text, wish.url, lines)
    changes = [FileChange(files.nix_conf, files.text, text, lines, managed=files.managed)]
    if wish.token:
        passwords = read_file(files.netrc)
        text = netrc_text.with_password(passwords, wish.machine, wish.token)
        shown = f"machine {wish.machine} login {netrc_text.USER} password ***"
        changes.append(FileChange(files.netrc.resolve(), passwords, text, [shown], secret=True))
    return Change(wish.url, keys, changes, _notes(wish, keys))


def remove_cache(wish: Wish) -> Change:
    """The change that takes a cache away.

    Raises:
        InvalidError: the URL is malformed.
    """
    _check(wish)
    files = _files(wish)
    text = nix_conf.without_block(files.text, wish.url)
    lines = nix_conf.block(files.text, wish.url) or []
    changes = [FileChange(files.nix_conf, files.text, text, [], managed=files.managed, removed=lines)]
    passwords = read_file(files.netrc)
    if f"://{wish.machine}" not in text and (left := netrc_text.without_password(passwords, wish.machine)) != passwords:
        shown = f"machine {wish.machine} login {netrc_text.USER} password ***"
        changes.append(FileChange(files.netrc.resolve(), passwords, left, [], secret=True, removed=[shown]))
    return Change(wish.url, (), changes, [])


def _check(wish: Wish) -> None:
    if not _URL.fullmatch(wish.url) or not wish.machine:
        shown = "" if "@" in wish.url else f": {wish.url!r}"
        hint = "; --token-file takes the token" if "@" in wish.url else ""
        raise InvalidError(
            f"not the URL of a binary cache{shown} (expected https://host, https://host:port or https://host/cache{hint})"
        )
    if wish.token is not None and not _TOKEN.fullmatch(wish.token):
        raise InvalidError("the token is malformed: a netrc file takes no space and no line end in it")


def _known_token(wish: Wish) -> str | None:
    """The token that was written before, or by hand."""
    found = find_credentials(wish.machine)
    return found.password if found is not None else None


def _keys(wish: Wish, told: Introduction) -> tuple[str, ...]:
    keys = wish.public_keys or told.public_keys
    if keys is None and wish.machine in well_known_caches.KEYS:
        keys = (well_known_caches.KEYS[wish.machine],)
    if keys is None:
        raise InvalidError(f"{wish.url} does not tell its public key; ask whoever runs it, and give --public-key NAME:BASE64")
    for key in keys:
        if not _KEY_NAME.fullmatch(PublicKey.parse(key).name):
            raise InvalidError(f"not the name of a key: {key[:100]!r}")
    return tuple(str(PublicKey.parse(key)) for key in keys)


def _check_same_keys(wish: Wish, keys: tuple[str, ...], old: list[str] | None) -> None:
    """A cache that comes with another key may be somebody else."""
    before = nix_conf.values("\n".join(old or ()), "trusted-public-keys")
    if before and not wish.public_keys and not set(before) & set(keys):
        raise ConflictError(
            f"{wish.url} has another key than before: {' '.join(keys) or 'none'}, not {' '.join(before)}; "
            "if that is right, say so with --public-key, or with --remove first"
        )


def _notes(wish: Wish, keys: tuple[str, ...]) -> list[str]:
    notes = []
    if not keys:
        notes.append(
            "the cache signs nothing: Nix takes from it only paths that a trusted key has signed, or that prove themselves"
        )
    if wish.url.startswith("http://") and wish.machine not in _LOCAL:
        notes.append("http:// is not protected: others on the way can read the token, and put in another key")
    if not wish.system and untrusted_user():
        notes.append(
            "Nix's daemon ignores these lines, since it does not trust this user: let root run tvix-store use --system, "
            "or add the user to trusted-users in /etc/nix/nix.conf"
        )
    if wish.system:
        notes.append("Nix's daemon reads its configuration when it starts: systemctl restart nix-daemon")
    return notes


def _files(wish: Wish) -> _Files:
    path = nix_files.system_file() if wish.system else nix_files.user_file()
    text = whole = read_file(path)
    if wish.system and nix_conf.includes_custom_file(text):
        path = path.with_name("nix.custom.conf")
        text = read_file(path)
        whole += f"\n{text}"
    real = path.resolve()
    managed = real.is_relative_to(STORE_DIR) or (wish.system and Path("/etc/NIXOS").exists())
    own = path.with_name("netrc")
    given = nix_conf.values(nix_conf.without_block(whole, wish.url), "netrc-file")
    return _Files(real, text, Path(given[0]) if given else own, bool(given) or wish.system, managed)
