"""What the real compressors and the real Nix write."""

import subprocess
from pathlib import Path

import pytest

from tests import programs
from tests.compression.samples import TEXT, decompress
from tvix_store.compression import DETECT, of_suffix
from tvix_store.testing.content import noise

CONTENTS = TEXT + noise(200_000) + bytes(3 << 20) + TEXT
COMMANDS = [
    ("gzip", "gzip -1"),
    ("gzip", "gzip -9 --name"),
    ("bzip2", "bzip2 -1"),
    ("bzip2", "bzip2 -9"),
    ("xz", "xz -0 --check=crc32"),
    ("xz", "xz -9e --check=sha256 --x86 --lzma2=preset=9"),
    ("xz", "xz --block-size=100000 --threads=2"),
    ("xz", "xz --check=none"),
    ("lzma", "xz --format=lzma -9"),
    ("zstd", "zstd -1 --no-check"),
    ("zstd", "zstd --ultra -22"),
    ("zstd", "zstd --long=27 -T2"),
    ("lz4", "lz4 -1"),
    ("lz4", "lz4 -9 -B4 -BD -BX --content-size"),
    ("lz4", "lz4 -12 --no-frame-crc"),
    ("lzip", "lzip -0"),
    ("lzip", "lzip -9"),
    ("lzip", "lzip --member-size=100000"),
    ("br", "brotli -3"),
    ("br", "brotli -9 --lgwin=24"),
]
NIX_SENDS = ["none", "gzip", "bzip2", "xz", "zstd", "br", "lz4", "lzip", "lzma"]


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[command for _, command in COMMANDS])
def test_what_the_real_programs_write_is_read(tmp_path: Path, name: str, command: str) -> None:
    program, *options = command.split()
    path = tmp_path / "contents"
    path.write_bytes(CONTENTS)
    stream = subprocess.run([programs.require(program), *options, "-c", path], stdout=subprocess.PIPE, check=True).stdout
    assert decompress(name, stream) == CONTENTS
    assert decompress(name, stream, size=1013) == CONTENTS


@pytest.mark.parametrize("name", NIX_SENDS)
def test_what_nix_sends_is_read_by_its_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(CONTENTS)
    nix_store, nix = programs.require("nix-store"), programs.require("nix")

    def run(*command: str | Path) -> bytes:
        return subprocess.run(command, stdout=subprocess.PIPE, env={"HOME": str(tmp_path), "PATH": ""}, check=True).stdout

    store, cache = tmp_path / "store", tmp_path / "cache"
    path = run(nix_store, "--store", store, "--add", tmp_path / "tree").decode().strip()
    address = f"file://{cache}?compression={name}"
    run(nix, "--extra-experimental-features", "nix-command", "copy", "--store", store, "--to", address, path)
    [sent] = (cache / "nar").iterdir()
    suffix = sent.name.partition(".nar")[2]
    assert of_suffix(suffix) == (name if suffix else DETECT)
    assert decompress(of_suffix(suffix), sent.read_bytes()) == run(nix_store, "--dump", tmp_path / "tree")
