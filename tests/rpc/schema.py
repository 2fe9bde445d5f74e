"""Protobuf classes for our own messages, made by the protobuf runtime from the descriptor set: the oracle of the codecs."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tvix_store.protocol.descriptors import descriptor_set

_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set()).file:
    _POOL.Add(_file)


def message(name: str) -> Any:
    """The class of a message by its full name, such as `tvix.castore.v1.Directory`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))
