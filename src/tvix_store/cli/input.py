"""What commands read beside the store: files, and the standard input."""

from __future__ import annotations

import asyncio
import json
from typing import IO, Any, AnyStr

from tvix_store.errors import InvalidError


async def read_input(file: IO[AnyStr]) -> AnyStr:
    """All of `file`. A thread reads it, so that one who does not write, or a person, keeps nobody from stopping us."""
    return await asyncio.to_thread(file.read)


async def read_json(file: IO[bytes]) -> Any:
    """The JSON document in `file`.

    Raises:
        InvalidError: it is not JSON.
    """
    try:
        return json.loads(await read_input(file))
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{file.name}: not JSON: {error}") from None
