"""What the program says to typical mistakes: all of it is in `mistakes.txt`, for a person to read.

After a change of a message, `.venv/bin/python -m tests.cli.test_mistakes` writes the file again. Read what has changed there. A
message says what is wrong and where, and names a way out. One mistake has one exit code.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from tests.cli.mistakes import COMMANDS, HELLO, Mistake, mistakes
from tests.cli.program import Ended, run_in_process
from tvix_store.cli.program import program
from tvix_store.cli.settings import commands_of

FILE = Path(__file__).with_name("mistakes.txt")
_NOBODY = 65534
_SECONDS = re.compile(r"\d+\.\d s\b")
_HELP = re.compile(r"\(see tvix-store [a-z -]+ --help")


class Walk:
    """Makes mistakes in a directory that has what they need."""

    def __init__(self, directory: Path) -> None:
        self._here = directory
        home = directory / "home"
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_DATA_HOME": str(home), "TVIX_STORE": "./store"}
        self._words: dict[str, str] = {"here": str(directory)}

    def furnish(self) -> None:
        """Make the files and the store."""
        for name in ("home", "tree/bin", "private"):
            (self._here / name).mkdir(parents=True)
        (self._here / "private").chmod(0o500)
        for name, text in _FILES.items():
            (self._here / name).write_text(text)
        (self._here / "tree/out").symlink_to("/etc")
        (self._here / "tree/loop").symlink_to("loop")
        (self._here / "result").symlink_to(f"/nix/store/{HELLO}")
        os.mkfifo(self._here / "fifo")
        self._good("key generate cache-1 --out secret-key")
        (self._here / "unreadable").chmod(0)
        hello = self._good("import --name hello tree").strip()
        assert hello == f"/nix/store/{HELLO}", hello
        needed = self._good("import --name needed file").strip()
        info = json.loads(self._good(f"path-info get {needed}"))
        user = {"path": f"/nix/store/{'1' * 32}-user", "root": info["root"], "references": [needed]}
        (self._here / "path-info.json").write_text(json.dumps(user))
        self._good("path-info put path-info.json")
        self._good("pin add v0 " + HELLO)
        self._words |= {"hello": HELLO, "needed": needed}

    def _run(self, words: str) -> Ended:
        return run_in_process(*shlex.split(words), directory=self._here, environment=self._environment)

    def _good(self, words: str) -> str:
        ended = self._run(words)
        assert ended.code == 0, ended.error
        return ended.output.decode()

    def told(self, mistake: Mistake) -> str:
        """The mistake, and what the program says, as they stand in the file. Commands with the same answer stand together."""
        answers: dict[str, list[str]] = {}
        for words in mistake.tries:
            typed = words.replace("{here}", "HERE").format(**self._words)
            with _stranger() if mistake.as_stranger else _nobody_else():
                ended = self._run(words.format(**self._words))
            said = ended.output.decode(errors="replace").splitlines()[:3] + ended.error.splitlines()
            answer = "\n".join(f"  {ended.code if number == 0 else '':>3}  {line}" for number, line in enumerate(said or [""]))
            answers.setdefault(self._plain(answer), []).append(typed)
        parts = ["".join(f"$ tvix-store {each}\n" for each in typed) + answer for answer, typed in answers.items()]
        return f"## {mistake.about}\n\n" + "\n\n".join(parts)

    def _plain(self, text: str) -> str:
        """What is the same wherever, and in whatever command, the mistake is made."""
        text = _SECONDS.sub("N s", text)
        return _HELP.sub("(see tvix-store COMMAND --help", text.replace(str(self._here), "HERE"))


_FILES = {
    "file": "some text\n",
    "empty": "",
    "unreadable": "some text\n",
    ".dot": "some text\n",
    "with space": "some text\n",
    "tree/greeting": "Hello!\n",
    "tree/bin/hello": "#!/bin/sh\n",
    "tree.tar": "no tar\n",
    "public-key": "cache-1:" + "A" * 43 + "=",
    "broken.toml": "store = \n",
    "unknown.toml": "stor = './store'\n[daemon]\nlisten-addres = 'localhost:8000'\n",
    "stores.toml": """[blobservices.root]
type = "cahce"

[blobservices.kept]
type = "local"
path = "./store"
quota = "5 apples"

[directoryservices]
root = "memroy://"

[pathinfoservices.root]
type = "read_only"
inner = "&other"
[pathinfoservices.other]
type = "read_only"
iner = "&root"
inner = "&root"
""",
    "snix.toml": """[blobservices.root]
type = "memory"
[directoryservices.root]
type = "redb"
path = "/var/lib/snix-castore/directories.redb"
[pathinfoservices.root]
type = "memory"
""",
    "absent.toml": """[blobservices]
root = "./nowhere"
[directoryservices]
root = "./nowhere"
[pathinfoservices.root]
type = "keyfile-signing"
inner = "./nowhere"
keyfile = "./no-key"
""",
    "apart.toml": """[blobservices]
root = "./store"
[directoryservices]
root = "./other"
[pathinfoservices]
root = "./store"
""",
    "away.toml": """[blobservices]
root = "./store"
[directoryservices]
root = "./store"
[pathinfoservices]
root = "./away"
""",
    "wrong.toml": "quiet = 'yes'\n[daemon]\nworkers = 'many'\n",
}


@contextmanager
def _nobody_else() -> Iterator[None]:
    yield


@contextmanager
def _stranger() -> Iterator[None]:
    """Be a user who may not read the files of others. Root may read all of them."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def walked() -> str:
    """All mistakes, and what the program says."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name).resolve()
        directory.chmod(0o755)
        walk = Walk(directory)
        walk.furnish()
        return "\n\n\n".join(map(walk.told, mistakes())) + "\n"


# Files that click has opened are not closed where a later argument is wrong: the program ends then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_typical_mistakes_are_answered_as_a_person_has_read() -> None:
    assert walked() == FILE.read_text()


def test_all_commands_are_walked() -> None:
    leaves = {" ".join(words) for words, command in commands_of(program()) if not isinstance(command, click.Group)}
    assert leaves == set(COMMANDS)


if __name__ == "__main__":
    FILE.write_text(walked())
