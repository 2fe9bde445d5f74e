"""The addresses of buckets."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from obstore.exceptions import GenericError
from obstore.store import from_url

from tests.backends.objectstore.versitygw import KEY, SECRET, Versitygw
from tests.ports import free_port
from tvix_store.backends.objectstore.address import RETRIES, BucketAddress
from tvix_store.backends.objectstore.options import CLIENT_OPTIONS, OF_NIX, STORE_OPTIONS
from tvix_store.config import open_store
from tvix_store.errors import CorruptError, InvalidError, NoStoreError, UnavailableError, UnsupportedError
from tvix_store.model.address import Address

OWN = frozenset(("layout",))


def parsed(text: str) -> BucketAddress:
    return BucketAddress.parse(Address.parse(text), OWN)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "text",
    [
        "objectstore+s3://bucket/some/prefix?aws_region=eu-west-1&aws-endpoint=https://s3.example.org&timeout=2min&layout=snix",
        "objectstore+gs://bucket?google_skip_signature=true&allow_http=true",
        "objectstore+az://container/prefix?account_name=account&azure_storage_use_emulator=true&azure_tenant_id=x&connect_timeout=1s",
        "objectstore+https://host/path?read_timeout=3s",
        "objectstore+http://host:8080/path",
        "objectstore+memory:///",
        "objectstore+memory:",
    ],
)
def test_an_address_opens_without_a_question_to_the_server(text: str) -> None:
    address = parsed(text)
    assert address.open(create=False).name == text.partition("?")[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("objectstore+s3:///path", "it names no bucket; expected objectstore\\+s3://bucket/prefix"),
        ("objectstore+file://host/path", "three slashes stand before a path"),
        ("objectstore+s3://bucket?regoin=x", "unknown option 'regoin'; did you mean region"),
        ("objectstore+s3://bucket?aws_secret=hush", "unknown option 'aws_secret'"),
        ("objectstore+gs://bucket?region=x", "unknown option 'region'"),
        ("objectstore+file:///x?timeout=3s", "unknown option 'timeout'"),
        ("objectstore+s3://bucket?timeout=soon", 'failed to parse "soon" as Duration'),
        ("objectstore+s3://bucket?scheme=ftp", "scheme is http or https"),
    ],
)
def test_a_wrong_address_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason) as caught:
        parsed(text).open(create=False)
    assert "hush" not in str(caught.value)


async def test_no_error_names_a_password() -> None:
    port = free_port()
    address = parsed(f"objectstore+http://user:hush@127.0.0.1:{port}/path?allow_http=true")
    assert "hush" not in repr(address)
    bucket = address.open(create=False, retries={**RETRIES, "max_retries": 0})
    for call in (bucket.get("key"), bucket.put("key", b""), bucket.folders()):
        with pytest.raises(UnavailableError, match=f"http://127.0.0.1:{port}") as caught:
            await call
        assert "hush" not in str(caught.value)


def test_parameters_of_nix_are_understood() -> None:
    address = parsed("objectstore+s3://cache?endpoint=minio.example.org:9000&scheme=http&region=eu-west-1")
    assert address.store_options == {"endpoint": "http://minio.example.org:9000", "region": "eu-west-1"}
    assert address.client_options == {"allow_http": "true"}
    assert parsed("objectstore+s3://cache?endpoint=s3.example.org").store_options == {"endpoint": "https://s3.example.org"}


def test_a_profile_is_read_from_the_files_of_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[team]\naws_access_key_id = key\naws_secret_access_key = secret\n")
    (tmp_path / "config").write_text("[profile team]\nregion = eu-west-1\noutput = json\n[profile sso]\nregion = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    expected = {"access_key_id": "key", "secret_access_key": "secret", "region": "eu-west-1"}
    address = parsed("objectstore+s3://bucket?profile=team")
    assert address.store_options == expected
    assert "secret" not in repr(address)
    assert parsed("objectstore+s3://bucket?profile=team&region=other").store_options == {**expected, "region": "other"}
    monkeypatch.setenv("AWS_PROFILE", "team")
    assert parsed("objectstore+s3://bucket").store_options == expected
    with pytest.raises(InvalidError, match="'sso' has no aws_access_key_id"):
        parsed("objectstore+s3://bucket?profile=sso")


async def test_credentials_come_from_the_environment(s3: Versitygw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    address = f"objectstore+s3://{s3.new_bucket()}?scheme=http&endpoint=127.0.0.1:{s3.port}&region=us-east-1"
    async with await open_store(address) as store:
        await store.check()


async def test_without_obstore_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("obstore", "tvix_store.backends.objectstore"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'tvix-store\[objectstore\]'"):
        await open_store("objectstore+memory:///")


async def test_a_store_keeps_the_settings_that_it_was_made_with(memory_path: Path) -> None:
    address = f"objectstore+file://{memory_path}/bucket"
    with pytest.raises(NoStoreError):
        await open_store(address, create=False)
    async with await open_store(f"{address}?layout=snix&size_rule=snix&chunk_average=65536", store_dir="/gnu/store"):
        pass
    async with await open_store(address) as store:
        assert (store.store_dir, store.size_rule.name) == ("/gnu/store", "SNIX")
    for wrong in (f"{address}?chunk_average=4096", f"{address}?size_rule=documented"):
        with pytest.raises(InvalidError, match="was made with"):
            await open_store(wrong)
    with pytest.raises(InvalidError, match="was made with store_dir=/gnu/store"):
        await open_store(address, store_dir="/nix/store")
    for wrong in ("chunk_average=1", "chunk_average=many", "size_rule=other", "layout=unknown"):
        with pytest.raises(InvalidError):
            await open_store(f"objectstore+memory:///?{wrong}")


async def test_settings_of_a_newer_version_or_damaged_ones_are_refused(memory_path: Path) -> None:
    address, file = f"objectstore+file://{memory_path}", memory_path / "tvix-store.json"
    async with await open_store(address):
        pass
    said = json.loads(file.read_bytes())
    file.write_text(json.dumps({**said, "format": 99}))
    with pytest.raises(InvalidError, match="format 99, of a newer tvix-store"):
        await open_store(address)
    for damaged in ("{", "[]", json.dumps({"format": 1}), json.dumps({**said, "chunk_average": "large"})):
        file.write_text(damaged)
        with pytest.raises(CorruptError, match=r"tvix-store.json is damaged"):
            await open_store(address)


@pytest.mark.parametrize("scheme", STORE_OPTIONS)
def test_obstore_knows_all_options(scheme: str) -> None:
    """It may not like a value."""
    opened: Callable[..., object] = from_url
    for name in STORE_OPTIONS[scheme] - OF_NIX:
        with suppress(GenericError):
            opened(f"{scheme}://bucket", config={name: "true"})
    for name in CLIENT_OPTIONS:
        with suppress(GenericError):
            opened("https://host", client_options={name: "true"})
