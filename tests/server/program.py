"""A server as a process of its own: `python -m tests.server.program [--workers N] [--grace S] ADDRESS…`, with a store in memory."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import time
from pathlib import Path

from tvix_store.backends.memory import open_store
from tvix_store.errors import UnavailableError
from tvix_store.server import ServerConfig, serve
from tvix_store.services import Store


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("listen", nargs="+")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--grace", type=float, default=30)
    parser.add_argument("--broken", action="store_true")
    parser.add_argument("--opening", help="opening takes a while, and writes its begin and end into this file")
    parser.add_argument("--held-by", type=Path, help="while this file is there, opening holds up the event loop")
    options = parser.parse_args()
    logging.basicConfig()
    logging.getLogger().handlers[0].setLevel(logging.ERROR)

    def tell(line: str) -> None:
        with open(options.opening, "a") as file:
            file.write(f"{line}\n")

    async def open_one() -> Store:
        if options.broken:
            raise UnavailableError("the disk is away")
        if options.opening:
            tell(f"{os.getpid()} begins")
            logging.getLogger("store").warning("opening\nit")
            await asyncio.sleep(0.3)
            tell(f"{os.getpid()} ends")
        while options.held_by and options.held_by.exists():
            time.sleep(0.02)  # noqa: ASYNC251 - that is the fault
        return await open_store()

    serve(ServerConfig(tuple(options.listen), workers=options.workers, grace=options.grace), open_one)


if __name__ == "__main__":
    main()
