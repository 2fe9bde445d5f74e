"""A race of writers, to see whether a server tells them apart. Some take the header of a condition, and ignore it."""

from __future__ import annotations

import asyncio
import os

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.errors import UnavailableError, UnsupportedError

WRITERS = 16


async def makes_conditional_writes(bucket: Bucket) -> bool:
    """Whether one of many writers wins, of those that create an object, and of those that replace it.

    Raises:
        UnavailableError, DeniedError: the bucket cannot be written to.
    """
    key = f"race/{os.urandom(16).hex()}"
    await bucket.put(f"{key}-plain", b"plain")  # that it can be written to at all is another question
    try:
        created = await asyncio.gather(*(bucket.create(key, os.urandom(16)) for _ in range(WRITERS)))
        found = await bucket.get(key)
        if found is None:
            return False
        replaced = await asyncio.gather(*(bucket.replace(key, os.urandom(16), found.version) for _ in range(WRITERS)))
    except UnsupportedError:
        return False
    except UnavailableError as error:
        if "501" in str(error) or "NotImplemented" in str(error):
            return False
        raise
    finally:
        await bucket.delete([key, f"{key}-plain"])
    return sum(created) == sum(replaced) == 1
