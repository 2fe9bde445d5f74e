#!/usr/bin/env python3
"""Feeds damaged streams to the decompressors.

    python tests/fuzz/fuzz_compression.py --seconds 20

A decompressor may raise InvalidError or ExhaustedError with a message of one short line, and nothing else; a stream with checksums
gives back what was compressed or refuses; cuts change nothing but the message, and what zstd makes of a header that lies. Exits
with an error on the first finding, and names its seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from random import Random

import lz4.frame
import zstandard

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script finds only what is beside it

from tests.compression.samples import CHECKED, FORMATS, TEXT, compress, feed_all
from tvix_store.compression import decompressor
from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.testing.content import noise
from tvix_store.testing.strategies import damage

CONTENTS = (b"", b"x", TEXT[:2000], noise(500) * 3, bytes(100_000))
MAX_OUTPUT = 64 << 20
LONGEST_MESSAGE = 300


def fuzz(name: str, seed: int) -> None:
    random = Random(seed)
    parts = [random.choice(CONTENTS) for _ in range(random.randint(1, 3) if name in CHECKED else 1)]
    valid = b"".join(compress(name, part) for part in parts)
    damaged = damage(valid, random)
    at = sorted(random.randint(0, len(damaged)) for _ in range(random.randint(0, 10)))
    pieces = [damaged[start:stop] for start, stop in zip([0, *at], [*at, len(damaged)], strict=True)]
    whole = outcome(name, [damaged])
    cut = outcome(name, pieces)
    # libzstd holds an empty frame against the size that its header declares only when it gets the frame at once.
    assert cut == whole or (name == "zstd" and None in (cut, whole))
    if name in CHECKED and whole and has_checksum(name, damaged):
        # Damage may take out, or double, a whole part; what is left begins with content that was compressed.
        assert any(whole.startswith(part) for part in parts)


def has_checksum(name: str, stream: bytes) -> bool:
    """Whether the first frame of `stream`, which is valid, has a checksum: a header of zstd or lz4 that was damaged may say no."""
    if name == "zstd":
        return zstandard.get_frame_parameters(stream).has_checksum
    if name == "lz4":
        return bool(lz4.frame.get_frame_info(stream)["content_checksum"])
    return True


def outcome(name: str, pieces: list[bytes]) -> bytes | None:
    try:
        output = feed_all(decompressor(name, max_output=MAX_OUTPUT), pieces)
    except (InvalidError, ExhaustedError) as error:
        message = str(error)
        assert message.isprintable()
        assert message.startswith(f"{name}: ")
        assert len(message) < LONGEST_MESSAGE
        return None
    return output


def main() -> None:
    arguments = argparse.ArgumentParser(description="PushStream damaged streams to the decompressors.")
    arguments.add_argument("--seconds", type=float, default=60, help="how long (default: %(default)s)")
    arguments.add_argument("--seed", type=lambda text: int(text, 0), default=time.time_ns(), help="where to begin")
    parsed = arguments.parse_args()
    end = time.monotonic() + parsed.seconds
    seed = parsed.seed
    while time.monotonic() < end:
        for name in FORMATS:
            try:
                fuzz(name, seed)
            except BaseException:
                print(f"{name} failed with --seed {seed}")
                raise
        seed += 1
    print(f"{seed - parsed.seed} inputs for each of {len(FORMATS)} decompressors, nothing found")


if __name__ == "__main__":
    main()
