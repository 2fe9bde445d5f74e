"""Reflection: what clients learn that bring no schema; `grpcurl` is one, and `evans` asks in the same way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from tests import programs
from tests.rpc.client import Client
from tests.rpc.schema import message
from tvix_store.protocol.dialects import DIALECTS
from tvix_store.rpc.reflection import Schema

VERSIONS = ["v1", "v1alpha"]
EVERY_SERVICE = {
    *(service for dialect in DIALECTS for service in dialect.services),
    "tvix_store.v1.BulkService",
    "tvix_store.v1.SettingsService",
    "snix.castore.v1.BlobStoreService",
    "snix.castore.v1.ChunkStoreService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


async def ask(client: Client, version: str, *requests: dict[str, Any]) -> list[Any]:
    kind = message(f"grpc.reflection.{version}.ServerReflectionRequest")
    call: Any = client.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        lambda request: request.SerializeToString(),
        message(f"grpc.reflection.{version}.ServerReflectionResponse").FromString,
    )
    return [answer async for answer in call(iter([kind(host="here", **request) for request in requests]))]


def files(answer: Any) -> list[Any]:
    return [descriptor_pb2.FileDescriptorProto.FromString(body) for body in answer.file_descriptor_response.file_descriptor_proto]


async def test_v1_lists_every_service(client: Client) -> None:
    (answer,) = await ask(client, "v1", {"list_services": ""})
    listed = [service.name for service in answer.list_services_response.service]
    assert set(listed) == EVERY_SERVICE
    assert len(listed) == len(EVERY_SERVICE)


async def test_v1alpha_lists_only_itself_and_the_seed_s_services(client: Client) -> None:
    (answer,) = await ask(client, "v1alpha", {"list_services": "*"})
    assert sorted(service.name for service in answer.list_services_response.service) == [
        "grpc.reflection.v1alpha.ServerReflection",
        "tvix.store.v1.BlobService",
        "tvix.store.v1.DirectoryService",
        "tvix.store.v1.PathInfoService",
    ]


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_symbol_is_resolved(client: Client, version: str) -> None:
    symbols = [
        *sorted(EVERY_SERVICE),
        "tvix.store.v1.BlobService.Put",
        "snix.castore.v1.Entry",
        "snix.castore.v1.Directory.symlinks",
        "tvix.store.v1.NARInfo.CA",
        "tvix.store.v1.NARInfo.CA.Hash",
        "tvix.store.v1.NARInfo.CA.NAR_SHA256",
        "tvix.castore.v1.Node.node",
        ".tvix.castore.v1.FileNode",
    ]
    answers = await ask(client, version, *({"file_containing_symbol": symbol} for symbol in symbols))
    for symbol, answer in zip(symbols, answers, strict=True):
        assert symbol.removeprefix(".").startswith(files(answer)[0].package), symbol
        assert answer.original_request.file_containing_symbol == symbol
        assert answer.valid_host == "here"


def test_the_symbols_are_those_that_the_protobuf_runtime_finds() -> None:
    found: set[str] = set()

    each: Any

    def enum(scope: str, body: Any) -> None:
        found.update([f"{scope}.{body.name}", *(f"{scope}.{value.name}" for value in body.value)])

    def walk(scope: str, body: Any) -> None:
        name = f"{scope}.{body.name}"
        found.update([name, *(f"{name}.{field.name}" for field in [*body.field, *body.oneof_decl])])
        for nested in body.nested_type:
            walk(name, nested)
        for each in body.enum_type:
            enum(name, each)

    schema = Schema()
    for body in schema.files.values():
        file = descriptor_pb2.FileDescriptorProto.FromString(body)
        for each in file.message_type:
            walk(file.package, each)
        for each in file.enum_type:
            enum(file.package, each)
        for service in file.service:
            found.update(f"{file.package}.{service.name}{call}" for call in ["", *(f".{method.name}" for method in service.method)])
    assert set(schema.symbols) == found


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_file_comes_with_all_that_it_imports(client: Client, version: str) -> None:
    name = "snix/store/v1/path_infos.proto"
    (answer,) = await ask(client, version, {"file_by_filename": name})
    assert [file.name for file in files(answer)] == [name, "snix/castore/v1/directories.proto"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_not_there_is_not_found_and_the_stream_goes_on(client: Client, version: str) -> None:
    answers = await ask(
        client,
        version,
        {"file_by_filename": "nothing.proto"},
        {"file_containing_symbol": "no.Thing"},
        {"file_containing_symbol": ""},
        {"file_containing_extension": {"containing_type": "tvix.store.v1.PathInfo", "extension_number": 5}},
        {"all_extension_numbers_of_type": "no.Thing"},
        {},
        {"all_extension_numbers_of_type": "tvix.store.v1.PathInfo"},
    )
    assert [answer.error_response.error_code for answer in answers] == [5, 5, 5, 5, 5, 3, 0]
    assert answers[-1].all_extension_numbers_response.base_type_name == "tvix.store.v1.PathInfo"


async def grpcurl(*arguments: str) -> str:
    program = programs.require("grpcurl")
    process = await asyncio.create_subprocess_exec(program, "-plaintext", *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    return output.decode()


async def test_the_session_of_the_readme_works_by_reflection_alone(address: str) -> None:
    put = await grpcurl("-d", '{"data": "eDg2XzY0LWxpbnV4"}', address, "tvix.store.v1.BlobService/Put")
    assert json.loads(put) == {"digest": "KOM3/IHEx7YfInAnlJpAElYezq0Sxn9fRz7xuClwNfA="}
    get = await grpcurl("-d", put, address, "tvix.store.v1.BlobService/Get")
    assert json.loads(get) == {"data": "eDg2XzY0LWxpbnV4"}


async def test_put_is_reflected_as_a_call_of_one_message(address: str) -> None:
    described = await grpcurl(address, "describe", "tvix.store.v1.BlobService.Put")
    assert "rpc Put ( .tvix.store.v1.BlobChunk ) returns ( .tvix.store.v1.PutBlobResponse );" in described


async def test_grpcurl_describes_every_service(address: str) -> None:
    listed = (await grpcurl(address, "list")).split()
    assert set(listed) == EVERY_SERVICE
    for service in listed:
        assert f"service {service.rpartition('.')[2]}" in await grpcurl(address, "describe", service)
