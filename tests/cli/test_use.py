"""`tvix-store use`, with a daemon and the real Nix, and with caches of a test's own."""

from __future__ import annotations

import json
import os
import pty
import signal
import ssl
import subprocess
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.program import TVIX_STORE, Program
from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tvix_store.cli.file_changes import FileChange
from tvix_store.cli.nix_users import is_trusted
from tvix_store.cli.program import run_program
from tvix_store.client_environment import netrc_text, nix_conf
from tvix_store.client_environment.introduction import ask_cache
from tvix_store.errors import ConflictError, DeniedError, UnavailableError
from tvix_store.model.signature import SecretKey

TLS = Path(__file__).parents[1] / "backends/tls"
KEY, OTHER_KEY = (str(SecretKey.from_seed("cache-1", bytes([number]) * 32).public) for number in (1, 2))
OURS = "# Mine.\nexperimental-features = flakes\n"


class Cache:
    """A binary cache that only introduces itself. A test changes what it answers."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://localhost:{server.server_port}"
        self.token: str | None = None
        self.refused = ""
        """A path to which the answer is 403."""
        self.answers: dict[str, bytes] = {"/nix-cache-info": b"StoreDir: /nix/store\n"}
        self.tell(KEY)

    def tell(self, *keys: str) -> None:
        """Tell these public keys."""
        self.answers["/"] = json.dumps({"program": "tvix-store", "publicKeys": keys, "more": 1}).encode()


@pytest.fixture
def cache() -> Iterator[Cache]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode().partition(":")[2]
            body = made.answers.get(self.path)
            is_stranger = made.token not in (None, shown)
            self.send_response(401 if is_stranger else 403 if self.path == made.refused else 404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's word
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Cache(server)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield made
        server.shutdown()
        serving.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's directory of Nix's configuration."""
    for name in ("NIX_USER_CONF_FILES", "NIX_STORE_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NIX_CONF_DIR", str(tmp_path / "etc"))
    directory = tmp_path / "config/nix"
    directory.mkdir(parents=True)
    (directory / "nix.conf").write_text(OURS)
    return directory


def test_the_lines_are_shown_and_written_and_stay_one_block(cache: Cache, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert run_program(["use", "--yes", cache.url]) == 0
    shown = capsys.readouterr()
    lines = f"    extra-substituters = {cache.url}\n    extra-trusted-public-keys = {KEY}\n"
    assert shown.out == f"{home}/nix.conf gets:\n{lines}{home}/nix.conf has:\n{lines}"
    assert shown.err == f"Written: {home}/nix.conf\nThere is nothing to write.\n"
    text = (home / "nix.conf").read_text()
    assert text.startswith(OURS)
    assert text.count(cache.url) == 3  # with those of the marks
    assert nix_conf.values(text, "trusted-public-keys") == [KEY]
    assert not (home / "netrc").exists()


def test_removing_leaves_the_files_as_they_were(cache: Cache, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "netrc").write_text("machine elsewhere password x\ndefault login a password b\n")
    before = {path: path.read_bytes() for path in home.iterdir()}
    assert run_program(["use", "--yes", "--token", "tvix_x_y", cache.url]) == 0
    assert (home / "netrc").read_text().splitlines()[1] == "machine localhost login tvix-store password tvix_x_y"
    assert (home / "netrc").stat().st_mode & 0o777 == 0o600
    assert f"netrc-file = {home}/netrc" in (home / "nix.conf").read_text()
    assert run_program(["use", "--yes", "--remove", cache.url]) == 0
    assert {path: path.read_bytes() for path in home.iterdir()} == before
    assert "tvix_x_y" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--dry-run", "--json"])
def test_nothing_is_written_for_who_only_looks(option: str, cache: Cache, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["use", "--dry-run", option, "--token", "tvix_x_y", cache.url]) == 0
    assert (home / "nix.conf").read_text() == OURS
    assert not (home / "netrc").exists()
    shown = capsys.readouterr().out
    assert "password ***" in shown
    assert "tvix_x_y" not in shown
    if option == "--json":
        told = json.loads(shown)
        assert told["publicKeys"] == [KEY]
        assert told["written"] is False
        assert told["files"][0]["path"] == f"{home}/nix.conf"


@pytest.mark.parametrize(("answer", "code", "written"), [(b"y\n", 0, True), (b"\n", 0, False), (None, 130, False)])
def test_a_person_is_asked(answer: bytes | None, code: int, written: bool, cache: Cache, home: Path, tvix_store: Program) -> None:
    mine, its = pty.openpty()
    environment = {**tvix_store.environment, "XDG_CONFIG_HOME": os.environ["XDG_CONFIG_HOME"]}
    with subprocess.Popen([TVIX_STORE, "use", cache.url], env=environment, stdin=its, stdout=its, stderr=its) as asking:
        os.close(its)
        seen = b""
        while b"Write that? [y/N]: " not in seen:
            seen += os.read(mine, 4096)
        assert b"    extra-substituters" in seen
        if answer is None:
            asking.send_signal(signal.SIGINT)
        else:
            os.write(mine, answer)
        assert asking.wait(20) == code
    os.close(mine)
    assert (cache.url in (home / "nix.conf").read_text()) == written


def test_where_nobody_can_be_asked_nothing_is_written(cache: Cache, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["use", cache.url]) == 2
    assert "say --yes, or --dry-run" in capsys.readouterr().err
    assert (home / "nix.conf").read_text() == OURS


def test_a_token_that_is_missing_or_wrong(cache: Cache, home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cache.token = "tvix_right"
    assert run_program(["use", "--yes", cache.url]) == 8
    assert "it wants a token: --token-file" in capsys.readouterr().err
    (tmp_path / "token").write_text("tvix_wrong\n")
    assert run_program(["use", "--yes", "--token-file", str(tmp_path / "token"), cache.url]) == 8
    assert "it does not take this token" in capsys.readouterr().err
    (tmp_path / "token").write_text("tvix_right\n")
    assert run_program(["use", "--yes", "--token-file", str(tmp_path / "token"), cache.url]) == 0


def test_a_token_that_was_written_is_used_again(cache: Cache, home: Path, tmp_path: Path) -> None:
    cache.token = "tvix_right"
    (tmp_path / "token").write_text("tvix_right\n")
    assert run_program(["use", "--token-file", str(tmp_path / "token"), "--yes", cache.url]) == 0
    written = [(home / name).read_text() for name in ("nix.conf", "netrc")]
    assert run_program(["use", "--yes", cache.url]) == 0
    assert [(home / name).read_text() for name in ("nix.conf", "netrc")] == written


def test_another_key_than_before_is_not_taken_unasked(cache: Cache, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["use", "--yes", cache.url]) == 0
    cache.tell(OTHER_KEY)
    assert run_program(["use", "--yes", cache.url]) == 5
    assert f"another key than before: {OTHER_KEY}, not {KEY}" in capsys.readouterr().err
    assert run_program(["use", "--yes", "--public-key", OTHER_KEY, cache.url]) == 0
    assert nix_conf.values((home / "nix.conf").read_text(), "trusted-public-keys") == [OTHER_KEY]
    cache.tell(OTHER_KEY, KEY)  # while keys change
    assert run_program(["use", "--yes", cache.url]) == 0


@pytest.mark.parametrize("answer", [None, b"<html>", b"[]", b'{"program": "other"}', b'{"program": "tvix-store"}', b"\xff"])
def test_a_cache_of_another_make_does_not_tell_its_key(
    answer: bytes | None, cache: Cache, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del cache.answers["/"]
    if answer is not None:
        cache.answers["/"] = answer
    assert run_program(["use", "--yes", cache.url]) == 3
    assert "give --public-key NAME:BASE64" in capsys.readouterr().err
    assert run_program(["use", "--yes", "--public-key", KEY, cache.url]) == 0


def test_a_cache_that_refuses_its_start_page_is_one(cache: Cache, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.refused = "/"
    assert run_program(["use", "--yes", cache.url]) == 3
    assert "give --public-key NAME:BASE64" in capsys.readouterr().err
    assert run_program(["use", "--yes", "--public-key", KEY, cache.url]) == 0


def test_a_token_and_a_key_do_not_go_past_tls(cache: Cache, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str | None] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(302)
            self.send_header("Location", cache.url + self.path)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's word
            pass

    cache.token = "tvix_secret"
    context = ssl.create_default_context(cafile=str(TLS / "localhost.pem"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        with pytest.raises(DeniedError):  # the other server does not see the token
            ask_cache(f"http://localhost:{server.server_port}", cache.token, context)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(TLS / "localhost.pem", TLS / "localhost.key")
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        cache.token = None
        with pytest.raises(UnavailableError, match=r"it leads to http://localhost.*, which is not protected"):
            ask_cache(f"https://localhost:{server.server_port}", None, context)
        server.shutdown()
    assert seen[0]
    assert len(seen) == 2


def test_no_cache_writes_other_lines_into_nix_conf(cache: Cache, home: Path) -> None:
    for name in ("x\npost-build-hook = /evil", "a b", "x#"):
        cache.tell(f"{name}:{KEY.partition(':')[2]}")
        assert run_program(["use", "--yes", cache.url]) == 3
    cache.tell("no key")
    assert run_program(["use", "--yes", cache.url]) == 3
    assert (home / "nix.conf").read_text() == OURS


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("cache.example.org", "not the URL of a binary cache"),
        ("grpc+http://localhost:1", "not the URL of a binary cache"),
        ("https://", "not the URL of a binary cache"),
        ("https://any:tvix_x@localhost", "--token-file takes the token"),
        ("https://localhost/a b", "not the URL of a binary cache"),
        ("https://localhost/#x", "not the URL of a binary cache"),
        ("http://localhost:9", "http://localhost:9/nix-cache-info cannot be reached: Connection refused"),
    ],
)
def test_urls_that_are_none(url: str, said: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["use", "--yes", url]) in (3, 7)
    told = capsys.readouterr().err
    assert said in told
    assert "tvix_x" not in told


def test_what_is_no_cache_and_what_is_for_another_store(cache: Cache, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.answers["/nix-cache-info"] = b"StoreDir: /gnu/store\n"
    assert run_program(["use", "--yes", cache.url]) == 3
    assert "holds paths of /gnu/store, not of /nix/store" in capsys.readouterr().err
    del cache.answers["/nix-cache-info"]
    assert run_program(["use", "--yes", cache.url]) == 3
    assert "is no binary cache: it has no nix-cache-info" in capsys.readouterr().err


def test_a_file_that_nixos_writes_is_only_shown(
    cache: Cache, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nix.conf").symlink_to("/nix/store/00000000000000000000000000000000-nix.conf")
    assert run_program(["use", "--yes", "--system", cache.url]) == 0
    shown = capsys.readouterr().out
    assert f'nix.settings = {{\n      extra-substituters = [ "{cache.url}" ];\n' in shown
    assert f'extra-trusted-public-keys = [ "{KEY}" ];' in shown
    assert (tmp_path / "etc/nix.conf").is_symlink()


def test_files_that_are_elsewhere(cache: Cache, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A symlink into a directory of the user's stays one, and an installer's own nix.conf stays as it is."""
    (tmp_path / "dotfiles").mkdir()
    (home / "nix.conf").rename(tmp_path / "dotfiles/nix.conf")
    (home / "nix.conf").symlink_to(tmp_path / "dotfiles/nix.conf")
    (tmp_path / "dotfiles/nix.conf").chmod(0o640)
    assert run_program(["use", "--yes", cache.url]) == 0
    assert (home / "nix.conf").is_symlink()
    assert cache.url in (tmp_path / "dotfiles/nix.conf").read_text()
    assert (tmp_path / "dotfiles/nix.conf").stat().st_mode & 0o777 == 0o640
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nix.conf").write_text("!include nix.custom.conf\n")
    assert run_program(["use", "--yes", "--system", cache.url]) == 0
    assert (tmp_path / "etc/nix.conf").read_text() == "!include nix.custom.conf\n"
    assert cache.url in (tmp_path / "etc/nix.custom.conf").read_text()
    monkeypatch.setenv("NIX_USER_CONF_FILES", f"{tmp_path}/own.conf:/nowhere")
    assert run_program(["use", "--yes", cache.url]) == 0
    assert (tmp_path / "own.conf").exists()


def test_a_file_of_passwords_that_is_a_symlink_stays_one(cache: Cache, home: Path) -> None:
    (home / "passwords").write_text("machine elsewhere password x\n")
    (home / "netrc").symlink_to("passwords")
    assert run_program(["use", "--yes", "--token", "tvix_x_y", cache.url]) == 0
    assert (home / "netrc").is_symlink()
    assert "tvix_x_y" in (home / "passwords").read_text()


def test_a_netrc_file_that_nix_has_already_gets_the_token(cache: Cache, home: Path, tmp_path: Path) -> None:
    (home / "nix.conf").write_text(f"netrc-file = {tmp_path}/passwords\n")
    assert run_program(["use", "--yes", "--token", "tvix_x_y", cache.url]) == 0
    assert (tmp_path / "passwords").read_text() == "machine localhost login tvix-store password tvix_x_y\n"
    assert (home / "nix.conf").read_text().count("netrc-file") == 1
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nix.conf").write_text(f"netrc-file = {tmp_path}/system\n!include nix.custom.conf\n")
    (tmp_path / "elsewhere").write_bytes(b"# kept\r\n")
    (tmp_path / "system").symlink_to("elsewhere")
    assert run_program(["use", "--yes", "--system", "--token", "tvix_x_y", cache.url]) == 0
    assert (tmp_path / "system").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"# kept\r\nmachine localhost login tvix-store password tvix_x_y\n"
    assert not (tmp_path / "etc/netrc").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "NEW\n"),
        ("machine b password x", "machine b password x\nNEW\n"),
        (
            "# mine\nmachine host login me password old\nmachine host login z password z\n",
            "# mine\nNEW\nmachine host login z password z\n",
        ),
        ("machine hostess password x\ndefault password y\n", "machine hostess password x\nNEW\ndefault password y\n"),
    ],
)
def test_an_entry_of_netrc_counts_before_others(before: str, after: str) -> None:
    assert netrc_text.with_password(before, "host", "new") == after.replace("NEW", "machine host login tvix-store password new")


@pytest.mark.parametrize(
    "text", ["machine host\n  login a\n  password b\n", "machine host login a password b machine other login c password d\n"]
)
def test_an_entry_that_is_not_alone_in_a_line_is_left_to_its_owner(text: str) -> None:
    with pytest.raises(ConflictError, match="change its password by hand"):
        netrc_text.with_password(text, "host", "new")


def test_files_that_somebody_else_changes_meanwhile_stay(home: Path) -> None:
    file = home / "nix.conf"
    change = FileChange(file, OURS, f"{OURS}x = 1\n", ["x = 1"])
    file.write_text(f"{OURS}y = 2\n")
    with pytest.raises(ConflictError, match="has changed meanwhile"):
        change.write()
    assert file.read_text() == f"{OURS}y = 2\n"


def test_passwords_are_never_where_others_read(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []

    def rename(place: Path, name: Path) -> None:
        modes.append(place.stat().st_mode & 0o777)
        os.rename(place, name)

    monkeypatch.setattr(Path, "rename", rename)
    (home / "netrc").write_text("")
    (home / "netrc").chmod(0o644)
    FileChange(home / "netrc", "", "machine a password b\n", [], secret=True).write()
    assert modes == [0o600]


def test_blocks_of_several_caches_do_not_touch_each_other() -> None:
    text = nix_conf.with_block(nix_conf.with_block("a = 1", "https://a", ["x = 1"]), "https://a/b", ["x = 2"])
    assert nix_conf.block(text, "https://a") == ["x = 1"]
    assert nix_conf.block(nix_conf.without_block(text, "https://a"), "https://a/b") == ["x = 2"]
    assert nix_conf.without_block(nix_conf.without_block(text, "https://a/b"), "https://a") == "a = 1\n"


def test_whom_the_daemon_of_nix_trusts() -> None:
    configuration = "trusted-users = root @wheel # not me\nextra-trusted-users = builder\n"
    assert is_trusted(configuration, "builder", set())
    assert is_trusted(configuration, "somebody", {"wheel"})
    assert not is_trusted(configuration, "me", {"users"})
    assert is_trusted("trusted-users = *", "me", set())
    assert not is_trusted("", "me", set())


@pytest.mark.nix
def test_nix_fetches_from_a_private_cache_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    builder = Nix(tmp_path / "builder", tmp_path / "nix/store")
    client = Nix(tmp_path / "client", tmp_path / "nix/store")
    key = SecretKey.from_seed("team-1", b"k" * 32)
    (tmp_path / "key").write_text(str(key))
    (tmp_path / "key").chmod(0o600)
    with ExitStack() as running:
        daemon = Daemon(
            tmp_path / "cache", "--workers", "1", "--private", "--signing-key-file", tmp_path / "key", store_dir=builder.store_dir
        )
        (tmp_path / "token").write_text(
            daemon.program("token", "create", "--scope", "push", "--store-dir", daemon.store_dir, "--quiet")
        )
        running.callback(daemon.stop)
        daemon.start()
        use = ["use", "--yes", "--system", "--token-file", str(tmp_path / "token"), daemon.url]
        for nix in (builder, client):
            monkeypatch.setenv("NIX_CONF_DIR", nix.environment["NIX_CONF_DIR"])
            monkeypatch.setenv("NIX_STORE_DIR", str(nix.store_dir))
            assert run_program(use) == 0
        path = builder.add(tree)
        builder.copy_to(daemon.url, path)
        client("nix-store", "--realise", path)
    assert client.real(path).exists()
