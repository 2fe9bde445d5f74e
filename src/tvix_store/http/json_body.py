"""Bodies that must be JSON, whatever it says."""

from __future__ import annotations

import asyncio
import json

from tvix_store.errors import InvalidError


async def check_json(body: bytes | bytearray, errors: str = "strict") -> None:
    """Raise InvalidError where `body` is no JSON; `errors` says what of bytes that are not UTF-8, as in `bytes.decode`."""
    try:
        await asyncio.to_thread(lambda: json.loads(body.decode("utf-8", errors)))
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"the body is no JSON: {str(error)[:200]}") from None
