"""How values show themselves, in a console and in a notebook."""

from __future__ import annotations

import ast
import re

import pytest

from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.html import MOST_ROWS
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import FileNode, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import PublicKey, SecretKey, Signature
from tvix_store.model.store_path import StorePath

KEY = SecretKey.from_seed("it's-1", bytes(32))
PATH = StorePath(bytes(20), "hello")
HASH = NixHash("sha256", bytes(32))
VALUES = (Digest.of(b""), PATH, HASH, ContentAddress(Method.NAR, HASH), KEY.public, KEY.sign(b"message"))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_the_text_in_a_repr_is_what_the_type_parses(
    value: Digest | StorePath | NixHash | ContentAddress | PublicKey | Signature,
) -> None:
    shown = re.fullmatch(r"(\w+)\((.*)\)", repr(value))
    assert shown is not None
    assert shown[1] == type(value).__name__
    assert type(value).parse(ast.literal_eval(shown[2])) == value


def test_the_repr_of_the_facts_of_a_nar_is_an_expression() -> None:
    facts = NarFacts(120, bytes(range(32)))
    assert eval(repr(facts)) == facts


def test_a_directory_is_a_table_in_a_notebook_with_names_that_are_escaped() -> None:
    html = Directory({b"<b>": FileNode(Digest.of(b""), 0), b"\xff": SymlinkNode(b"<script>")})._repr_html_()
    assert "<td>&lt;b&gt;</td><td>file</td>" in html
    assert "<td>\\xff</td><td>symlink</td><td></td><td>&lt;script&gt;</td>" in html


def test_a_large_directory_is_shown_in_part() -> None:
    html = Directory({b"%d" % number: SymlinkNode(b"x") for number in range(MOST_ROWS + 5)})._repr_html_()
    assert html.count("<tr>") == MOST_ROWS + 2
    assert "and 5 more" in html


def test_a_path_info_is_a_table_in_a_notebook() -> None:
    ca = ContentAddress(Method.NAR, HASH)
    html = PathInfo(PATH, SymlinkNode(b"<x>"), NarFacts(120, bytes(32)), (PATH,), (KEY.sign(b""),), PATH, ca)._repr_html_()
    for text in ("symlink, &lt;x&gt;", "120 bytes", str(HASH), f"<td>reference</td><td>{PATH}</td>", f"{PATH}.drv", str(ca)):
        assert text in html
