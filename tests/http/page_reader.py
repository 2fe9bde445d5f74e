"""A page as its reader sees it, and whether it is one at all."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html.parser import HTMLParser

_VOID = {"meta", "link", "br"}
_ATTRIBUTES = {
    *("aria-label", "charset", "class", "content", "download", "href", "lang", "name", "rel", "scope"),
}


class PageReader(HTMLParser):
    """The tags, links and text of a page, all of whose elements end in order.

    tags: Names of all elements. links: Targets of `a`, in order. text: Of `main`, a line for each piece. style: The CSS.
    """

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.style = ""
        self.title = ""
        self._texts: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self._open == []
        assert {"html", "head", "title", "body", "nav", "main", "h1", "footer"} <= self.tags

    @property
    def text(self) -> str:
        return "\n".join(self._texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= _ATTRIBUTES
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        match self._open:
            case [*_, "style"]:
                self.style += data
            case [*_, "title"]:
                self.title += data
            case [*_, _] if "main" in self._open:
                self._texts.append(data)


def read_page(headers: Mapping[bytes, bytes], body: bytes) -> PageReader:
    """The page in an answer, whose header fields let it apply its own style, and nothing else."""
    assert headers[b"content-type"] == b"text/html; charset=utf-8"
    assert headers[b"x-content-type-options"] == b"nosniff"
    page = PageReader(body)
    style = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    policy = dict(each.strip().partition(" ")[::2] for each in headers[b"content-security-policy"].decode().split(";"))
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{style}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert not page.tags & {"script", "form", "iframe", "img", "object"}
    return page
