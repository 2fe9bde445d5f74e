"""A process that fills a cache, and begins generations, until it is killed: `filler.py DIRECTORY SEED`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from blake3 import blake3

from tvix_store.layers.cache.disk_near import SMALLEST, DiskNear


def main(directory: str, seed: str) -> None:
    near = DiskNear(Path(directory), SMALLEST)
    print("filling", flush=True)
    chosen = random.Random(seed)
    while True:
        number = chosen.randrange(3000)
        key = b"c" + blake3(b"%d" % number).digest()
        near.put({key: number.to_bytes(4, "little") * chosen.randrange(100_000)})
        near.get([b"c" + blake3(b"%d" % chosen.randrange(3000)).digest()])


if __name__ == "__main__":
    main(*sys.argv[1:])
