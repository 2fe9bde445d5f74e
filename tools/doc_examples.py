"""Write the Python examples of the documents as modules, for type checkers.

    python tools/doc_examples.py       writes build/doc_examples/, a module for each document that has some

A line of a module is the line of the document, so an error names the right place. Each example may define its own `main`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build/doc_examples"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"(?:>>>|\.\.\.)(?: |$)")


def module(text: str) -> str:
    """The examples of a document, each on its own lines; "" if there are none."""
    lines: list[str] = []
    for number, block in enumerate(_BLOCK.finditer(text)):
        first = text.count("\n", 0, block.start(1))
        lines += [""] * (first - len(lines))
        is_session = block[1].startswith(">>> ")
        code = (_of_session(line) if is_session else line for line in block[1].splitlines())
        lines += [re.sub(r"\bmain\b", f"main_{number}", line) for line in code]
    return "\n".join([*lines, ""]) if lines else ""


def _of_session(line: str) -> str:
    """The code in a line of an interactive session; "" for a line of output."""
    prompt = _PROMPT.match(line)
    return line[prompt.end() :] if prompt else ""


def main() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for document in DOCUMENTS:
        if code := module(document.read_text()):
            name = re.sub(r"\W", "_", str(document.relative_to(ROOT).with_suffix("")))
            (TARGET / f"{name}.py").write_text(code)


if __name__ == "__main__":
    main()
