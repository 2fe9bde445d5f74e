"""The programs in examples/ run, and the examples in documents reach the type checkers (`dev.py lint` checks both)."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest

from tests.http.daemon import nar_name
from tests.programs import ROOT
from tools.doc_examples import DOCUMENTS, module
from tvix_store.testing.trees import TreeFile, nar

EXAMPLES = ROOT / "examples"
PRINTED = {
    "import_and_read": ["/nix/store/", "german/hello.txt: Guten Tag"],
    "mirror_a_path": ["-hello.txt: copied", "-hello.txt: known", "0 bytes were sent"],
    "biggest_files": ["1,000 ", "-sample/large", "1 "],
    "synchronous": ["hello.txt FileNode", "Hello, World!", "['line 0', 'line 1', 'line 2']"],
}


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*PRINTED, "wrap_and_serve"}


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_is_about(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for text in PRINTED[name]:
        assert text in printed


@pytest.mark.timeout(30)
def test_the_served_example_refuses_what_is_on_its_list() -> None:
    command = [sys.executable, str(EXAMPLES / "wrap_and_serve.py"), "memory://", "127.0.0.1:0"]
    with ExitStack() as running:
        server = running.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        running.callback(server.kill)
        assert server.stderr is not None
        ready = server.stderr.readline()
        assert ready.startswith("READY "), ready + server.stderr.read()
        url = f"http://{ready.split()[1]}"
        with urllib.request.urlopen(f"{url}/nix-cache-info", timeout=10) as answer:
            assert b"StoreDir: /nix/store" in answer.read()
        for content, status in ((b"harmless\n", 201), (b"a virus\n", 403)):
            pushed = nar(TreeFile(content))
            assert put(url + nar_name(pushed), pushed) == status
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0


def test_the_examples_of_a_document_keep_their_lines() -> None:
    text = "Text\n\n```python\n>>> async def main() -> None:\n...     pass\nprinted\n```\n\n```python\nmain = 1\n```\n"
    assert module(text) == "\n\n\nasync def main_0() -> None:\n    pass\n\n\n\n\nmain_1 = 1\n"
    assert module("Text\n") == ""


def test_the_documents_with_examples_are_found() -> None:
    assert {path.name for path in DOCUMENTS if module(path.read_text())} >= {"README.md", "library.md"}


def put(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
