"""Protobuf classes of the conformance messages, compiled when imported."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

_HERE = Path(__file__).parent


def _compile() -> descriptor_pool.DescriptorPool:
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "descriptors.binpb"
        assert protoc.main(["protoc", f"-I{_HERE}", f"--descriptor_set_out={out}", "conformance.proto"]) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    return pool


_POOL = _compile()


def message(name: str) -> Any:
    """The class of a message of `conformance.proto`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"connectrpc.conformance.v1.{name}"))
