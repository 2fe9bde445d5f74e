"""URLs of NARs by their root nodes: `nar/snix-castore/<node>?narsize=<bytes>`, as tvix and snix have them."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from urllib.parse import urlsplit

from tvix_store.errors import InvalidError
from tvix_store.model.nodes import Node, decode_node, encode_node

_BASE64 = re.compile(r"[0-9A-Za-z_-]+")
_FAMILIES = ("snix-castore", "tvix-castore")


def node_url(node: Node, nar_size: int) -> str:
    """The URL, relative to the cache, of the NAR of `node`, which has `nar_size` bytes."""
    name = urlsafe_b64encode(encode_node(b"", node)).rstrip(b"=").decode()
    return f"nar/{_FAMILIES[0]}/{name}?narsize={nar_size}"


def parse_node_name(name: str) -> Node | None:
    """The root node that is encoded in the last part of such a URL; None where the part is no base64url.

    Raises:
        InvalidError: it encodes something else.
    """
    if not _BASE64.fullmatch(name):
        return None
    try:
        inner, node = decode_node(urlsafe_b64decode(name + "=" * (-len(name) % 4)))
    except (Base64Error, InvalidError) as error:
        raise InvalidError(f"the name of the NAR is no root node: {error}") from None
    if inner:
        raise InvalidError("the root node in the name of the NAR must not have a name")
    return node


def node_of_url(url: str) -> Node | None:
    """The root node in the URL of a NAR; None for a URL of another kind."""
    try:
        match urlsplit(url).path.split("/"):
            case [*_, "nar", family, name] if family in _FAMILIES:
                return parse_node_name(name)
    except (ValueError, InvalidError):
        pass
    return None
