"""What we compress is read by ourselves, and by the real programs."""

from __future__ import annotations

import subprocess

import pytest

from tests import programs
from tests.compression.samples import TEXT, decompress
from tvix_store.compression import COMPRESSIONS
from tvix_store.compression.compressor import compressor
from tvix_store.errors import UnsupportedError
from tvix_store.testing.content import noise

CONTENTS = TEXT + noise(200_000) + bytes(3 << 20) + TEXT
NAMES = sorted(set(COMPRESSIONS) - {"none"})
READERS = {
    "gzip": "gzip",
    "bzip2": "bzip2",
    "xz": "xz",
    "lzma": "xz --format=lzma",
    "zstd": "zstd",
    "br": "brotli",
    "lz4": "lz4",
    "lzip": "lzip",
}


def compressed(name: str, data: bytes, size: int = 70_000) -> bytes:
    stream = compressor(name)
    return b"".join([*(stream.compress(data[at : at + size]) for at in range(0, len(data), size)), stream.flush()])


@pytest.mark.parametrize("contents", [CONTENTS, b"x", b""])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_compressed_is_read_again(name: str, contents: bytes) -> None:
    assert decompress(name, compressed(name, contents)) == contents


@pytest.mark.parametrize("name", NAMES)
def test_the_real_programs_read_it(name: str) -> None:
    program, *options = READERS[name].split()
    done = subprocess.run(
        [programs.require(program), *options, "-d", "-c"], input=compressed(name, CONTENTS), capture_output=True, check=True
    )
    assert done.stdout == CONTENTS


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'compress'"):
        compressor("compress")
