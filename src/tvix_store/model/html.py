"""Values as tables of HTML, which notebooks show in place of `repr`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

from tvix_store.model.names import as_text
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode

MOST_ROWS = 100
"""Rows that are shown. A notebook keeps them all in its file."""


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], count: int) -> str:
    """A table of `count` rows, of which the first are shown. All text is escaped."""
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in islice(rows, MOST_ROWS))
    if count > MOST_ROWS:
        body += f'<tr><td colspan="{len(head)}">… and {count - MOST_ROWS} more</td></tr>'
    return f"<table><caption>{escape(caption)}</caption><tr>{_cells('th', head)}</tr>{body}</table>"


def node_cells(node: Node) -> tuple[str, str, str]:
    """The kind of a node, its size, and what it refers to."""
    match node:
        case FileNode(digest, size, executable):
            return "executable file" if executable else "file", f"{size} bytes", str(digest)
        case DirectoryNode(digest, size):
            return "directory", f"{size} entries", str(digest)
        case SymlinkNode(target):
            return "symlink", "", as_text(target)


def _cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
