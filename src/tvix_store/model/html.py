"""Values as tables of HTML, which notebooks show in place of `repr`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from tvix_store.model.markup import Html, element
from tvix_store.model.names import as_text
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode

MOST_ROWS = 100
"""Rows that are shown. A notebook keeps them all in its file."""


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], count: int) -> Html:
    """A table of `count` rows, of which the first are shown."""
    lines = [_line("td", row) for row in islice(rows, MOST_ROWS)]
    if count > MOST_ROWS:
        lines.append(element("tr", element("td", f"… and {count - MOST_ROWS} more", colspan=str(len(head)))))
    return element("table", element("caption", caption), _line("th", head), *lines)


def node_cells(node: Node) -> tuple[str, str, str]:
    """The kind of a node, its size, and what it refers to."""
    match node:
        case FileNode(digest, size, executable):
            return "executable file" if executable else "file", f"{size} byte{'' if size == 1 else 's'}", str(digest)
        case DirectoryNode(digest, size):
            return "directory", f"{size} entries", str(digest)
        case SymlinkNode(target):
            return "symlink", "", as_text(target)


def _line(tag: str, texts: Iterable[str]) -> Html:
    return element("tr", *(element(tag, text) for text in texts))
