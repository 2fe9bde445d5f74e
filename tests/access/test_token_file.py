"""The file of tokens: changed by many, read by daemons, damaged, and taken away."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import programs
from tvix_store.access import token_file
from tvix_store.access.token_file import TokenFile, WatchedTokens
from tvix_store.access.tokens import Token, TokenTable, issue
from tvix_store.errors import DeniedError, ExhaustedError, InvalidError, StoreError
from tvix_store.model.grant import Scope


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "store/tokens.json")


@pytest.fixture(autouse=True)
def _looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "_LOOK", 0.0)


def add(file: TokenFile, scope: Scope = Scope.PULL, note: str = "") -> tuple[str, Token]:
    secret, record = issue(scope, note=note)
    file.change(lambda table: table.with_token(record))
    return secret, record


def test_a_file_that_is_not_there_holds_none_and_is_made_for_its_owner_alone(file: TokenFile) -> None:
    assert len(file.read()) == 0
    _, record = add(file)
    assert file.read().records == [record]
    assert file.path.stat().st_mode & 0o7777 == 0o600
    assert file.path.parent.stat().st_mode & 0o7777 == 0o700
    assert os.listdir(file.path.parent) == ["tokens.json"]


def test_no_change_is_lost_of_many_at_once(file: TokenFile) -> None:
    script = """
import sys
from pathlib import Path
from tvix_store.access.token_file import TokenFile
from tvix_store.access.tokens import issue
from tvix_store.model.grant import Scope
for _ in range(10):
    TokenFile(Path(sys.argv[1])).change(lambda table: table.with_token(issue(Scope.PULL)[1]))
"""
    running = [subprocess.Popen([sys.executable, "-c", script, file.path]) for _ in range(4)]
    threads = [threading.Thread(target=lambda: [add(file) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.wait() for each in running] == [0] * 4
    assert len(file.read()) == 80
    assert os.listdir(file.path.parent) == ["tokens.json"]


def test_readers_see_the_old_or_the_new_tokens(file: TokenFile) -> None:
    add(file)
    over = threading.Event()
    sizes: list[int] = []

    def read() -> None:
        while not over.is_set():
            sizes.append(len(file.read()))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        add(file)
    over.set()
    reader.join()
    assert sizes == sorted(sizes)
    assert min(sizes) >= 1


def test_a_change_that_fails_changes_nothing(file: TokenFile) -> None:
    add(file)
    before = file.path.read_bytes()

    def change(_: TokenTable) -> TokenTable:
        raise InvalidError("no")

    with pytest.raises(InvalidError):
        file.change(change)
    assert file.path.read_bytes() == before
    assert os.listdir(file.path.parent) == ["tokens.json"]


def test_a_file_keeps_its_mode(file: TokenFile) -> None:
    add(file)
    file.path.chmod(0o640)
    add(file)
    assert file.path.stat().st_mode & 0o7777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_token_that_root_makes_is_for_the_owner_of_the_store(file: TokenFile) -> None:
    file.path.parent.mkdir()
    os.chown(file.path.parent, 1234, 1235)
    add(file)
    found = file.path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 1235, 0o600)
    os.chown(file.path, 0, 1236)
    file.path.chmod(0o640)
    add(file)
    found = file.path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, 1236, 0o640)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"version": 1, "tokens": [{}]}',
        b'{"version": 9, "tokens": []}',
        b"1" * 5000,
        b"\0" * 100,
    ],
    ids=lambda content: repr(content[:30]),
)
def test_a_damaged_file_is_one_line_and_is_not_replaced(file: TokenFile, content: bytes) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(content)
    for act in (file.read, lambda: add(file)):
        with pytest.raises(InvalidError) as caught:
            act()
        assert str(file.path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert file.path.read_bytes() == content


def test_a_file_cut_anywhere_is_refused(file: TokenFile) -> None:
    add(file, Scope.PUSH, "a note")
    whole = file.path.read_bytes()
    for length in range(0, len(whole), 7):
        file.path.write_bytes(whole[:length])
        with pytest.raises(InvalidError):
            file.read()


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "fifo", tmp_path / "directory", Path("/dev/zero")):
        with pytest.raises(StoreError, match="no regular file"):
            TokenFile(path).read()
    with pytest.raises(InvalidError, match="cannot read"):
        TokenFile(Path(__file__) / "tokens.json").read()
    with pytest.raises(StoreError, match="cannot write"):
        add(TokenFile(Path("/proc/tokens.json")))


def test_a_symlink_is_read_and_never_replaced(tmp_path: Path, file: TokenFile) -> None:
    add(file)
    link = tmp_path / "link"
    link.symlink_to(file.path)
    assert len(TokenFile(link).read()) == 1
    with pytest.raises(InvalidError, match="is a symlink"):
        add(TokenFile(link))
    assert link.is_symlink()


def test_a_file_does_not_grow_beyond_what_is_read(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "_LARGEST", 400)
    add(file)
    with pytest.raises(ExhaustedError, match="would have more than 400 bytes"):
        add(file, note="n" * 200)
    assert len(file.read()) == 1
    monkeypatch.setattr(token_file, "_LARGEST", 100)
    with pytest.raises(InvalidError, match="more than 100 bytes"):
        file.read()


def test_a_full_disk_leaves_the_tokens_of_before(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    add(file)
    before = file.path.read_bytes()

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(ExhaustedError, match=r"cannot write .*: No space left on device"):
        add(file)
    monkeypatch.undo()
    assert file.path.read_bytes() == before
    assert os.listdir(file.path.parent) == ["tokens.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_what_may_not_be_read_or_written_is_denied(file: TokenFile, tmp_path: Path) -> None:
    add(file)
    tmp_path.chmod(0o755)
    setpriv = programs.require("setpriv")
    script = """
import sys
from pathlib import Path
from tvix_store.access.token_file import TokenFile
from tvix_store.errors import DeniedError
file = TokenFile(Path(sys.argv[1]))
for act in (file.read, lambda: file.change(lambda table: table)):
    try:
        act()
    except DeniedError as error:
        print(error)
"""
    site = os.pathsep.join(sys.path)
    done = subprocess.run(
        [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", script, file.path],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": site},
        check=False,
    )
    if "Permission denied" in done.stderr and not done.stdout:
        pytest.skip("nobody else can run this Python")
    assert done.stdout.splitlines() == [
        f"cannot read {file.path}: Permission denied",
        f"cannot write {file.path}: Permission denied",
    ]


def test_a_change_is_seen_and_so_is_one_after_trouble(file: TokenFile, caplog: pytest.LogCaptureFixture) -> None:
    secret, record = add(file, Scope.PUSH)
    watched = WatchedTokens(file)
    assert watched.table().grant(secret, 0).scope is Scope.PUSH
    whole = file.path.read_bytes()
    with caplog.at_level(logging.ERROR):
        file.path.write_bytes(b"damaged")
        assert watched.table().grant(secret, 0).scope is Scope.PUSH
        for _ in range(100):
            watched.table()
        assert len(caplog.records) == 1
        assert "the tokens that were read before stay in force" in caplog.text
        file.path.unlink()
        assert watched.table().grant(secret, 0).scope is Scope.PUSH
        assert watched.table().has_pusher
    file.path.write_bytes(whole)
    file.change(lambda table: table.revoked(record.id, 1))
    assert watched.table().grant(secret, 0).refusal == f"token {record.id} was revoked"
    assert secret not in caplog.text


def test_a_file_that_becomes_readable_is_read_though_nothing_else_changed(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """`chmod` and `chown` change neither inode, time of modification nor size."""
    add(file)
    watched = WatchedTokens(file)
    with monkeypatch.context() as patched:
        patched.setattr(TokenFile, "_text", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        add_beside = issue(Scope.PULL)[1]
        document = {**json.loads(file.path.read_bytes())}
        document["tokens"] += TokenTable([add_beside]).encode()["tokens"]
        file.path.write_text(json.dumps(document))
        assert len(watched.table()) == 1
    assert len(watched.table()) == 2


def test_a_large_file_is_read_while_requests_go_on(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, record = add(file, Scope.PUSH)
    watched = WatchedTokens(file)
    monkeypatch.setattr(token_file, "_AT_ONCE", 100)
    go_on = threading.Event()
    read = TokenFile.read

    def slow(self: TokenFile) -> TokenTable:
        go_on.wait()
        return read(self)

    file.change(lambda table: table.revoked(record.id, 1))
    monkeypatch.setattr(TokenFile, "read", slow)
    for _ in range(10):
        assert watched.table().grant(secret, 0).scope is Scope.PUSH
    go_on.set()
    assert watched._reading is not None
    watched._reading.join()
    assert watched.table().grant(secret, 0).refusal


def test_a_damaged_file_lets_no_daemon_start(file: TokenFile) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(b"{}")
    with pytest.raises(InvalidError):
        WatchedTokens(file)


def test_errors_of_permission_are_told_apart_from_a_full_disk(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def opens(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    file.path.parent.mkdir()
    monkeypatch.setattr("os.open", opens)
    with pytest.raises(DeniedError):
        file.read()
