"""What is wrong with a text that should be JSON."""

from __future__ import annotations

import json


def json_fault(error: ValueError | RecursionError) -> str:
    """The error of `json.loads` as a person would say it: `not JSON, from line 1, column 5 on`."""
    match error:
        case json.JSONDecodeError(lineno=line, colno=column):
            return f"not JSON, from line {line}, column {column} on"
        case UnicodeDecodeError():
            return "not JSON, since it is no text"
        case RecursionError():
            return "not JSON, since it is nested too deeply"
        case _:  # a number of too many digits, for example
            return "not JSON that can be read here"
