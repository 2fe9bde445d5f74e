"""Masking: addresses for people to read, without the passwords in them."""

from __future__ import annotations

import re

PASSWORD = re.compile(r"//[^/\s\"']*:[^/\s\"']*@|(?:secret|account|session)_\w*(?:key|token)\w*[\"']?\s*=\s*[\"']?\w")
"""What a URL with a user and a password has in it, and what options of a bucket have."""
_USER = re.compile(r"//[^/\s\"']*@")
_PARAMETER = re.compile(
    r"([?&][^=&\s]*(?:password|secret|token|credential|(?:access|account|sas|storage)[_-]?key)[^=&\s]*=)[^&\s\"']*", re.IGNORECASE
)


def masked(text: str) -> str:
    """`text`, with `***` in place of users, passwords and tokens in the URLs within.

    >>> masked("https://user:word@cache.example.org/?priority=1&token=abc")
    'https://***@cache.example.org/?priority=1&token=***'
    """
    return _PARAMETER.sub(r"\1***", _USER.sub("//***@", text))
