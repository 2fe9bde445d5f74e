"""The message in the query of a GET. Source: connectrpc.com/docs/protocol, Unary-Get-Request."""

from __future__ import annotations

import binascii
from urllib.parse import parse_qs

from tvix_store.rpc.status import RpcError, Status

_MOST_FIELDS = 20


_OF_URLS = bytes.maketrans(b"-_", b"+/")


def message_of_query(query: bytes) -> tuple[bytes, bytes] | None:
    """A message, as it was sent, and its compression: `?connect=v1&encoding=proto&base64=1&message=…`, also `&compression=gzip`.

    None for an encoding that is not `proto`.

    Raises:
        RpcError: (INVALID_ARGUMENT) the query is another.
    """
    try:
        # In Latin-1, a character is a byte.
        fields = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, encoding="latin-1")
    except ValueError:
        raise _wrong(f"it has more than {_MOST_FIELDS} fields") from None
    values = {name: each[-1] for name, each in fields.items()}
    if values.get("connect", "v1") != "v1":
        raise _wrong("its field `connect` is not v1")
    if values.get("encoding") != "proto":
        return None
    if "message" not in values:
        raise _wrong("it has no field `message`")
    message = values["message"].encode("latin-1")
    if values.get("base64") == "1":
        try:
            digits = message.rstrip(b"=").translate(_OF_URLS)
            message = binascii.a2b_base64(digits + b"=" * (-len(digits) % 4), strict_mode=True)
        except binascii.Error:
            raise _wrong("its field `message` is not base64 for URLs") from None
    return message, values.get("compression", "identity").encode("latin-1")


def _wrong(what: str) -> RpcError:
    return RpcError(Status.INVALID_ARGUMENT, f"the query is none of a call: {what}")
