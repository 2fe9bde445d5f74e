"""Server reflection, v1 and v1alpha: our schema, told to clients that bring none.

v1 lists every service. v1alpha lists only itself and the services of the seed dialect. The reason is the gRPC shell `evans`: it
asks v1alpha, and picks a package by itself only if the list has one package beside v1alpha's own. Both resolve every symbol.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from functools import cached_property

from tvix_store.model import wire
from tvix_store.protocol.descriptors import descriptor_set
from tvix_store.protocol.dialects import SEED
from tvix_store.rpc.method import Call, Method, Streaming
from tvix_store.rpc.status import Status

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
REFLECTION_V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"


def reflection_methods(services: Iterable[str]) -> dict[str, Method]:
    """The calls of both versions by path. `services` are the full names of the services, in the order to list them."""
    schema = Schema()
    return {
        f"/{version}/ServerReflectionInfo": Streaming(_Reflection(schema, listed).info)
        for version, listed in (
            (REFLECTION_V1, [*services, REFLECTION_V1, REFLECTION_V1ALPHA]),
            (REFLECTION_V1ALPHA, [REFLECTION_V1ALPHA, *SEED.services]),
        )
    }


class Schema:
    """The files of the descriptor set, by name and by the symbols that they define. Read when first asked."""

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Serialised FileDescriptorProtos by file name."""
        files = (body for _, body in _messages(descriptor_set(), 1))
        return {_text(body, 1): body for body in files}

    @cached_property
    def symbols(self) -> dict[str, str]:
        """File names by full name of everything that a file defines."""
        return {symbol: name for name, body in self.files.items() for symbol in _symbols(body)}

    def with_imports(self, name: str) -> list[bytes]:
        """A file, and those that it imports, and so on."""
        names = [name]
        for each in names:
            names += [imported for imported in _texts(self.files[each], 3) if imported not in names]
        return [self.files[each] for each in names]


# Field numbers of google/protobuf/descriptor.proto: FileDescriptorProto name=1, package=2, dependency=3, message_type=4,
# enum_type=5, service=6; DescriptorProto name=1, field=2, nested_type=3, enum_type=4, oneof_decl=8; EnumDescriptorProto name=1,
# value=2; ServiceDescriptorProto name=1, method=2. What is named in them has its name in field 1.
_IN_FILE = {4: "message", 5: "enum", 6: "service"}
_INSIDE = {
    "message": {2: "name", 3: "message", 4: "enum", 8: "name"},
    "enum": {2: "name"},
    "service": {2: "name"},
    "name": {},
}


def _symbols(file: bytes) -> Iterator[str]:
    return _named(file, _text(file, 2), _IN_FILE)


def _named(body: bytes, scope: str, kinds: dict[int, str]) -> Iterator[str]:
    for field, value in wire.fields(body):
        if field in kinds:
            inner = wire.as_bytes(field, value)
            name = f"{scope}.{_text(inner, 1)}"
            yield name
            # An enum's values are named beside it, not inside of it.
            yield from _named(inner, scope if kinds[field] == "enum" else name, _INSIDE[kinds[field]])


def _messages(body: bytes, number: int) -> Iterator[tuple[int, bytes]]:
    return ((field, wire.as_bytes(field, value)) for field, value in wire.fields(body) if field == number)


def _texts(body: bytes, number: int) -> list[str]:
    return [value.decode() for _, value in _messages(body, number)]


def _text(body: bytes, number: int) -> str:
    return "".join(_texts(body, number)[-1:])


_MESSAGE_REQUEST = range(3, 8)
"""The members of the oneof `message_request`."""


class _Reflection:
    """One version of the service: the messages of both are the same."""

    def __init__(self, schema: Schema, listed: Iterable[str]) -> None:
        self._schema = schema
        self._listed = b"".join(wire.message_field(1, wire.bytes_field(1, name.encode())) for name in listed)

    async def info(self, messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        async for message in messages:
            answer = self._answer(message)
            host = _text(message, 1).encode()
            yield wire.bytes_field(1, host) + wire.message_field(2, message) + answer

    def _answer(self, message: bytes) -> bytes:
        """The member of the oneof `message_response` that answers a ServerReflectionRequest."""
        # Of a oneof the last member counts.
        asked = [(field, value) for field, value in wire.few_fields(message) if field in _MESSAGE_REQUEST]
        field, value = asked[-1] if asked else (0, None)
        match field:
            case 3:
                return self._file(wire.as_text(field, value))
            case 4:
                return self._file(self._schema.symbols.get(wire.as_text(field, value).removeprefix("."), ""))
            case 5:
                return _error(Status.NOT_FOUND, "proto3 has no extensions")
            case 6:
                return self._extensions(wire.as_text(field, value))
            case 7:
                return wire.message_field(6, self._listed)
            case _:
                return _error(Status.INVALID_ARGUMENT, "the request asks for nothing")

    def _file(self, name: str) -> bytes:
        if name not in self._schema.files:
            return _error(Status.NOT_FOUND, "no file that is served here is called so, or defines that")
        return wire.message_field(4, b"".join(wire.message_field(1, file) for file in self._schema.with_imports(name)))

    def _extensions(self, type_name: str) -> bytes:
        if type_name not in self._schema.symbols:
            return _error(Status.NOT_FOUND, f"{type_name} is not defined here")
        return wire.message_field(5, wire.bytes_field(1, type_name.encode()))


def _error(status: Status, message: str) -> bytes:
    """The member ErrorResponse."""
    return wire.message_field(7, wire.uint_field(1, status) + wire.bytes_field(2, message.encode()))
