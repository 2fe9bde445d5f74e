"""For mkdocstrings: the fields that a docstring lists, a line `name: Text.` each, become a list on the page."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_FIELD = re.compile(r"^(\w+): (?=[A-Z])", re.MULTILINE)


class DocstringFields(Extension):
    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _FIELD.sub(r"- `\1`: ", obj.docstring.value)
