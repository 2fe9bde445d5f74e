"""BucketAddress: `objectstore+s3://bucket/prefix?option=value` and the like, taken apart."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from obstore.exceptions import BaseError
from obstore.store import MemoryStore, ObjectStore, from_url

from tvix_store.backends.objectstore.aws_profile import profile_options
from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.directory_bucket import DirectoryBucket
from tvix_store.backends.objectstore.options import CLIENT_OPTIONS, STORE_OPTIONS, option_name
from tvix_store.client_environment.authorities import authorities_file
from tvix_store.errors import InvalidError, NoStoreError, UnavailableError, of_disk
from tvix_store.model.address import Address, without_secrets

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

PREFIX = "objectstore+"
SCHEMES = ("file", "memory", "s3", "gs", "az", "http", "https")
"""What follows `objectstore+`."""
RETRIES: RetryConfig = {
    "max_retries": 12,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 4},
    "retry_timeout": timedelta(seconds=60),
}
"""Each pause is a random one between 0.1 s and four times the last one, so that it doubles on average. With a base of 2, ten took
1.7 s, too short for a server that throttles. After a minute we give up: clients wait, and have patience of their own."""
FEW_RETRIES: RetryConfig = {**RETRIES, "max_retries": 3}
"""For the first questions. The server may not be there, or answer 501, `not implemented`, which counts as an error to try again."""
_DEFAULTS = {"timeout": "60s", "connect_timeout": "10s"}
"""The default of `obstore` is 30 s a request, with its body: 16 MiB then need 0.5 MiB/s."""


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """The place of a bucket, the options of its client, and the parameters of the store in it.

    url: As `obstore` takes it.
    name: The address, for messages, without secrets.
    """

    scheme: str
    url: str = field(repr=False)
    path: str
    name: str
    store_options: Mapping[str, str] = field(repr=False)
    client_options: Mapping[str, str] = field(repr=False)
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, address: Address, own_parameters: frozenset[str]) -> BucketAddress:
        """Read `objectstore+SCHEME://…`. What is not among `own_parameters` is an option of the client.

        Raises:
            InvalidError: an option is unknown, or the address has no bucket.
        """
        scheme = address.scheme.removeprefix(PREFIX)
        name = without_secrets(address.text)
        if scheme in ("file", "memory"):
            if address.host:
                raise InvalidError(f"{name}: three slashes stand before a path: objectstore+{scheme}:///path")
        elif not address.host:
            raise InvalidError(f"{name}: it names no bucket; expected objectstore+{scheme}://bucket/prefix")
        own: dict[str, str] = {}
        store: dict[str, str] = {}
        client: dict[str, str] = {}
        options = STORE_OPTIONS.get(scheme, frozenset())
        client_names = CLIENT_OPTIONS if scheme not in ("file", "memory") else frozenset[str]()
        for given, value in address.parameters.items():
            option = option_name(scheme, given)
            if given in own_parameters:
                own[given] = value
            elif option in client_names:
                client[option] = value
            elif option in options:
                store[option] = value
            else:
                raise _unknown(name, given, option, own_parameters | client_names | options)
        if scheme == "s3":
            store, client = _as_nix_says(store, client)
        location = address.location.removeprefix(PREFIX)
        return cls(scheme, location, unquote(address.path), name, store, client, own)

    def open(self, *, create: bool, retries: RetryConfig = RETRIES) -> Bucket:
        """The bucket. Nothing is asked of a server yet. A directory is made where it is missing, if that is to be.

        Raises:
            InvalidError: an option has a value that cannot be.
            NoStoreError: the directory is not there.
        """
        match self.scheme:
            case "memory":
                return Bucket(MemoryStore(), self.name)
            case "file":
                return DirectoryBucket(self._directory(create=create), self.name)
            case _:
                return Bucket(self._remote(retries), self.name)

    def _remote(self, retries: RetryConfig) -> ObjectStore:
        client: dict[str, str] = {**_DEFAULTS, **self.client_options}
        authorities = authorities_file()
        if authorities is not None:
            client["root_certificate"] = _read(authorities)
        arguments: dict[str, object] = {"client_options": _typed(client), "retry_config": retries}
        if self.store_options:
            arguments["config"] = dict(self.store_options)
        try:
            return from_url(self.url, **arguments)  # type: ignore[call-overload, no-any-return]  # which depend on the scheme
        except (BaseError, ValueError, TypeError) as error:
            raise InvalidError(f"{self.name}: {str(error).partition(chr(10))[0]}") from None

    def _directory(self, *, create: bool) -> Path:
        path = Path(self.path)
        if not path.is_absolute():
            raise InvalidError(f"{self.name}: an absolute path is expected, as in objectstore+file:///path")
        try:
            if create:
                path.mkdir(parents=True, exist_ok=True)
            elif not path.is_dir():
                raise NoStoreError(f"there is no store in {path}: it is no directory")
        except OSError as error:
            raise of_disk(error, f"cannot make {path}: {error.strerror}", UnavailableError) from None
        return path


def _typed(client: Mapping[str, str]) -> ClientConfig:
    return dict(client)  # type: ignore[return-value]  # strings are read by `obstore`


def _unknown(name: str, given: str, option: str, known: frozenset[str]) -> InvalidError:
    near = difflib.get_close_matches(option, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
    return InvalidError(f"{name}: unknown option {given!r}{hint}")


def _as_nix_says(store: Mapping[str, str], client: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Options of S3 with those of Nix, `scheme=http`, `endpoint=host` and `profile=name`, as `obstore` takes them."""
    options, client = dict(store), dict(client)
    scheme = options.pop("scheme", "https")
    if scheme not in ("http", "https"):
        raise InvalidError(f"scheme is http or https, not {scheme!r}")
    profile = options.pop("profile", None)
    environment = not (os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"))
    if profile is not None or (environment and os.environ.get("AWS_PROFILE")):
        options = {**profile_options(profile or os.environ["AWS_PROFILE"]), **options}
    names = ("endpoint", "endpoint_url")
    for name in names:
        if name in options and "://" not in options[name]:
            options[name] = f"{scheme}://{options[name]}"
    if scheme == "http" or any(options.get(name, "").startswith("http://") for name in names):
        client.setdefault("allow_http", "true")
    return options, client


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"cannot read the trusted authorities in {file}: {error}") from None
