"""The form of an answer that a client asks for by its `Accept`: a page for a browser, JSON for a program, else a line of text."""

from __future__ import annotations

import re
from enum import Enum


class Form(Enum):
    TEXT = b"text/plain"
    PAGE = b"text/html"
    JSON = b"application/json"


_FORMS = {form.value: form for form in Form}
_WEIGHT = re.compile(rb";\s*q=([01](?:\.[0-9]{0,3})?)\s*(?:;|$)")


def wanted_form(accept: bytes | None) -> Form:
    """The form with the greatest weight that `accept` names; of equal ones the first. Source: RFC 9110, section 12.5.1.

    A range such as `*/*` names none. curl and Nix send it, and get text.
    """
    best, form = 0.0, Form.TEXT
    for each in (accept or b"").lower().split(b","):
        named = _FORMS.get(each.partition(b";")[0].strip())
        if named is not None and (weight := _weight(each)) > best:
            best, form = weight, named
    return form


def _weight(media_range: bytes) -> float:
    found = _WEIGHT.search(media_range)
    return float(found[1]) if found else 1.0
