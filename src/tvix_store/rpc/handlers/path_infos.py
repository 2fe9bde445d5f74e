"""PathInfoService, in a dialect."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tvix_store.errors import NotFoundError
from tvix_store.model import nixbase32
from tvix_store.model.nodes import decode_node
from tvix_store.model.path_info import PathInfo
from tvix_store.protocol.dialects import Dialect
from tvix_store.protocol.path_infos import decode_get_path_info, encode_nar_facts
from tvix_store.rpc.method import Call, Method, ServerStreaming, Takes, Unary
from tvix_store.services import NarService, PathInfoService
from tvix_store.telemetry import meters, notes

_MAX_PATH_INFO = 4 << 20
"""Bytes of the largest path info, as over HTTP (`model.narinfo.MAX_NARINFO`): some 50,000 references."""


def path_info_methods(path_infos: PathInfoService, nar: NarService, dialect: Dialect) -> dict[str, Method]:
    """The calls of a dialect's PathInfoService by path."""

    async def get(message: bytes, _call: Call) -> bytes:
        output_hash = decode_get_path_info(message)
        found = await path_infos.get(output_hash)
        if found is None:
            raise NotFoundError("path info", nixbase32.encode(output_hash))
        return found.encoded

    async def put(path_info: PathInfo, _call: Call) -> bytes:
        stored = await path_infos.put(path_info)
        meters.PATHS_PUSHED.of("grpc").add()
        notes.note("pushed", str(stored.store_path))
        return stored.encoded

    async def calculate_nar(message: bytes, _call: Call) -> bytes:
        _, node = decode_node(message)
        return encode_nar_facts(await nar.calculate(node))

    async def every(_message: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
        async for path_info in path_infos.list():
            yield path_info.encoded

    return {
        dialect.path_info("Get"): Unary(get),
        dialect.path_info("Put"): Unary(put, Takes(max_message=_MAX_PATH_INFO, decode=_decode, writes=True)),
        dialect.path_info("CalculateNAR"): Unary(calculate_nar),
        dialect.path_info("List"): ServerStreaming(every),
    }


def _decode(message: bytes) -> PathInfo:
    """The path info, with its canonical encoding at hand."""
    path_info = PathInfo.decode(message)
    _ = path_info.encoded
    return path_info
