"""The frame of all pages: what stands around their content, and the header fields that keep browsers from harm.

A page runs no scripts, loads nothing, sends no forms, and stands in no frame. Its links are relative. So they hold below the name
of a cache, and behind a proxy that serves the daemon in a directory of its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from tvix_store import __version__
from tvix_store.http.forms import Form, wanted_form
from tvix_store.http.response import Headers, Response, length
from tvix_store.http.response import text as line_of_text
from tvix_store.model.markup import Html, element, joined, link

_STYLE = """\
:root{color-scheme:light dark;--text:#1c2127;--muted:#59636e;--line:#d8dee4;--shade:#f4f6f8;--paper:#fff;--link:#0b57b0}
@media (prefers-color-scheme:dark){
:root{--text:#e3e6ea;--muted:#9aa4ae;--line:#353b42;--shade:#1f242a;--paper:#15181c;--link:#7ab7ff}}
*{box-sizing:border-box}
body{max-width:54rem;margin:0 auto;padding:1rem 1.25rem 3rem;background:var(--paper);color:var(--text);
font:1rem/1.55 system-ui,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif}
a{color:var(--link);text-underline-offset:.15em}
a:not(:hover){text-decoration-thickness:1px}
nav,footer{color:var(--muted);font-size:.875rem;overflow-wrap:anywhere}
nav{padding-bottom:.75rem;border-bottom:1px solid var(--line)}
footer{margin-top:3rem;padding-top:.75rem;border-top:1px solid var(--line)}
h1{margin:1.5rem 0 .5rem;font-size:1.6rem;line-height:1.25;overflow-wrap:anywhere}
h2{margin:2.25rem 0 .5rem;font-size:1.15rem}
p{margin:.5rem 0}
code,pre,.names{font:.8125rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace}
code{overflow-wrap:anywhere}
pre{margin:.5rem 0;padding:.75rem 1rem;border:1px solid var(--line);border-radius:.375rem;background:var(--shade);
white-space:pre-wrap;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.375rem 1.5rem;margin:1.25rem 0}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
table{width:100%;margin:1rem 0;border-collapse:collapse}
th{color:var(--muted);font-weight:400;font-size:.875rem;text-align:left}
th,td{padding:.3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td:first-child{overflow-wrap:anywhere;unicode-bidi:isolate}
.size{padding-left:1rem;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.more{color:var(--muted)}
@media (max-width:34rem){
dl{grid-template-columns:minmax(0,1fr);gap:0}
dd{margin-bottom:.625rem}}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest())
PAGE_HEADERS: Headers = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'sha256-%b'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        % _STYLE_HASH,
    ),
)
VARIES: Headers = ((b"vary", b"accept"), (b"cache-control", b"no-cache"))
"""For an answer that has other forms for other clients, or tells what this client may do."""
START = "Binary cache"
"""The name of the start page in the links above a page."""
END = f"</main>\n<footer>tvix-store {__version__}</footer>\n</body></html>\n"
_DEEPEST = 2048
"""Directories above a page: as many as a path of 4 KiB has. Longer ones are refused, and the page would be ten times as long."""
_TITLES = {
    401: "A token is needed",
    403: "Not allowed",
    404: "Not found",
    421: "Unknown name",
}


def begin(title: str, crumbs: Html) -> str:
    """The page up to its content. `crumbs` are the links to pages above it, and its own name."""
    head = joined(
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'),
        Html('<meta name="robots" content="noindex,nofollow"><link rel="icon" href="data:,">'),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n<nav aria-label="Path">{crumbs}</nav>\n<main>\n'


def page_etag(kind: bytes, *made_of: bytes) -> bytes:
    """The ETag of a page. It names the style, too: with a 304, a browser takes the new policy for the old page."""
    return b'"%b-%b"' % (kind, hashlib.sha256(b"".join((*made_of, _STYLE_HASH))).hexdigest().encode())


def page(status: int, title: str, crumbs: Html, *content: str, headers: Headers = VARIES) -> Response:
    """A page that is made at once."""
    body = f"{begin(title, crumbs)}{joined(*content)}\n{END}".encode("utf-8", "backslashreplace")
    return Response(status, (*PAGE_HEADERS, length(len(body)), *headers), body)


def refusal_form(method: str, raw_path: bytes, accept: bytes | None) -> Callable[[int, str, Headers], Response]:
    """The form in which a request is refused: of a status, a line and header fields it makes a page for a person, else text."""
    if method in ("GET", "HEAD") and wanted_form(accept) is Form.PAGE:
        # From the path, as the client wrote it, to the start of the cache.
        return partial(_refusal, root="../" * min(raw_path.count(b"/") - 1, _DEEPEST) or "./")
    return line_of_text


def _refusal(status: int, line: str, headers: Headers = (), *, root: str) -> Response:
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    return page(
        status,
        title,
        link(root, START),
        element("h1", title),
        text(line[:1].upper() + line[1:] + "."),
        text(*_advice(status, root)),
        headers=(VARIES[0], *headers),
    )


def _advice(status: int, root: str) -> tuple[str, ...]:
    if status == 401:
        return ("A browser asks for a user name and a password. Any name will do, and a token is the password.",)
    if status == 421:
        return ("Until then, use an address that the daemon knows, such as localhost.",)
    return ("Go on from ", link(root, "the start page"), " or ", link(f"{root}serve/", "the store paths"), ".")


def section(title: str, *content: str) -> Html:
    return joined(element("h2", title), *content)


def text(*content: str) -> Html:
    """A paragraph."""
    return element("p", *content)


def lines(*content: str) -> Html:
    """Lines to copy."""
    return element("pre", element("code", "\n".join(content)))


def facts(*pairs: tuple[str, str]) -> Html:
    """Names and values."""
    return element("dl", *(joined(element("dt", name), element("dd", value)) for name, value in pairs))
