"""For mkdocs: documents beside `docs/` are pages too, and links are those of a code host.

README.md is the first page. A link may lead to any file of the repository; one that is no page becomes plain text. A link to
nothing stays, and is an error of mkdocs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
"""The text, the path and the anchor of a link inside of the repository."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for document in ROOT.glob("*.md"):
        files.append(File.generated(config, _page(document), content=document.read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri
    source = next((document for document in ROOT.glob("*.md") if _page(document) == uri), DOCS / uri)

    def led(link: re.Match[str]) -> str:
        text, path, anchor = link.groups(default="")
        target = Path(os.path.normpath(source.parent / path))
        if not target.exists():
            return link[0]
        if target.is_relative_to(DOCS) or (target.suffix == ".md" and target.parent == ROOT):
            return f"[{text}]({os.path.relpath(_page(target), os.path.dirname(uri) or '.')}{anchor})"
        return text

    return _LINK.sub(led, markdown)


def _page(document: Path) -> str:
    """The file of a page, from the directory of the documents on."""
    if document.is_relative_to(DOCS):
        return str(document.relative_to(DOCS))
    return "index.md" if document.name == "README.md" else document.name
