"""The compiled `.proto` files, as the package ships them."""

from __future__ import annotations

from importlib import resources


def descriptor_set() -> bytes:
    """A serialised `google.protobuf.FileDescriptorSet` of all our `.proto` files."""
    return resources.files("tvix_store.protocol").joinpath("descriptors.binpb").read_bytes()
