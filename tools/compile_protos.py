"""Compile `protos/` into the descriptor set that the package ships and serves by reflection.

    python tools/compile_protos.py           writes src/tvix_store/protocol/descriptors.binpb

Needs `grpcio-tools` (a development dependency), which brings the protobuf compiler.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
DESCRIPTORS = ROOT / "src" / "tvix_store" / "protocol" / "descriptors.binpb"


def compile_protos() -> bytes:
    """The serialised `google.protobuf.FileDescriptorSet` of all files below `protos/`, without comments."""
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "descriptors.binpb"
        if protoc.main(["protoc", f"-I{PROTOS}", "--include_imports", f"--descriptor_set_out={out}", *sources]) != 0:
            sys.exit("protoc failed")
        return out.read_bytes()


if __name__ == "__main__":
    DESCRIPTORS.write_bytes(compile_protos())
