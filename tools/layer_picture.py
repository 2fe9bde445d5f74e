"""Draw the layers into docs/design/architecture.md, from the contracts that import-linter checks.

python tools/layer_picture.py       after a layer was added or moved in pyproject.toml
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/design/architecture.md"
BEGIN, END = "<!-- made by tools/layer_picture.py -->\n", "<!-- end -->\n"


def page(text: str) -> str:
    """The page, with the picture in place of the one in `text`."""
    before, _, rest = text.partition(BEGIN)
    picture = "\n".join(["```mermaid", "flowchart TB", *_lines(), "```"])
    return f"{before}{BEGIN}\n{picture}\n\n{END}{rest.partition(END)[2]}"


def _lines() -> Iterator[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = {contract["containers"][0]: contract["layers"] for contract in contracts if contract["type"] == "layers"}
    yield from _chain("tvix_store", floors, "    ")


def _chain(container: str, floors: Mapping[str, list[str]], indent: str) -> Iterator[str]:
    """The layers of a container, each above those that it may import. A layer that has layers itself is a frame around them."""
    names = []
    for layer in floors[container]:
        rooms = [room.strip() for room in layer.split(":")]
        names.append(rooms[0])
        if f"{container}.{rooms[0]}" in floors:
            yield f"{indent}subgraph {rooms[0]}"
            yield from _chain(f"{container}.{rooms[0]}", floors, indent + "    ")
            yield f"{indent}end"
        else:
            label = " · ".join(rooms)
            yield f'{indent}{rooms[0]}["{label}"]'
    yield indent + " --> ".join(names)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
