"""`tvix-store hook`, as the post-build-hook of the real Nix and by itself."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.cli.hooked_nix import HookedNix
from tests.cli.program import TVIX_STORE, Program
from tests.http.daemon import Daemon
from tests.http.nix import PRELUDE
from tvix_store.cli import exit_codes
from tvix_store.cli.program import run_program
from tvix_store.operations.paths.push_queue import Entry, PushQueue, Target

KILLS = int(os.environ.get("TVIX_STORE_TEST_HOOK_KILLS", "3"))
"""Builds during which something is killed: 100 in the long form."""
BUILT = "/nix/store/00000000000000000000000000000001-built"
URL = "https://user:secret@cache.example.org"
pytestmark = pytest.mark.nix


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PushQueue]:
    """The queue of this user. No process is started in the background. The command that pushes sets variables of its process."""
    for name in ("OUT_PATHS", "DRV_PATH", "NIX_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TVIX_STORE_HOOK_QUEUE", str(tmp_path / "queue"))
    monkeypatch.setattr("tvix_store.cli.hook.start_in_background", lambda *_: None)
    with patch.dict(os.environ):
        yield PushQueue(tmp_path / "queue")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "cache", "--workers", "1", store_dir=tmp_path / "nix/store")
    daemon.start()
    yield daemon
    daemon.stop()


def test_what_nix_builds_is_pushed_in_the_background(tmp_path: Path) -> None:
    hooked = HookedNix(tmp_path, f"local://{tmp_path}/store")
    try:
        begun = time.monotonic()
        first = hooked.nix.build('sh "a" "echo a > $out"')
        assert time.monotonic() - begun < 20, "Nix has waited for the process in the background"
        second = f'sh\' "b" "echo {first[0]} > $out; echo > $dev" {{ outputs = [ "out" "dev" ]; }}'
        built = [*first, *hooked.nix.build(f"let b = {second}; in [ b.out b.dev ]")]
        until_empty(PushQueue(hooked.queue))
        assert sorted(hooked.program("list", "--store-dir", hooked.nix.store_dir).splitlines()) == sorted(built)
        assert len(built) == 3
        assert hooked.hook("--status") == f"nothing waits in {hooked.queue}\n"
    finally:
        hooked.stop()
    assert "pushed" in (hooked.queue / "log").read_text()


def until_empty(queue: PushQueue) -> None:
    for _ in range(2000):
        if not queue.names():
            return
        time.sleep(0.01)
    raise TimeoutError


@pytest.mark.timeout(120 + 15 * KILLS)
def test_nothing_is_lost_and_no_build_fails_whoever_is_killed(tmp_path: Path, cache: Daemon) -> None:
    """In each round Nix builds, and somebody is killed: the hook, the process that pushes, or the daemon."""
    killed_hook = tmp_path / "kill"
    shim = tmp_path / "tvix-store"
    shim.write_text(
        f"#!/bin/sh\nif after=$(cat {killed_hook} 2>/dev/null); then rm {killed_hook}\n"
        f'exec timeout -s KILL "$after" {TVIX_STORE} "$@"\nfi\nexec {TVIX_STORE} "$@"\n'
    )
    shim.chmod(0o755)
    hooked = HookedNix(tmp_path, cache.url, shim)
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    victims = {"hook": 0, "pusher": 0, "daemon": 0}
    built: list[str] = []
    try:
        for number in range(KILLS):
            victim = ("hook", "pusher", "daemon")[number % 3]
            if victim == "hook":
                killed_hook.write_text(f"{chance.uniform(0.01, 0.5):.3f}")
            building = hooked.nix.start("nix-build", "--no-out-link", "--expr", f'{PRELUDE} sh "{number}" "echo {number} > $out"')
            time.sleep(chance.uniform(0, 1.0))
            if victim == "daemon":
                cache.kill()
                victims["daemon"] += 1
            elif victim == "pusher" and (pushers := hooked.pushers()):
                os.kill(pushers[0], signal.SIGKILL)
                victims["pusher"] += 1
            output, said = building.communicate(timeout=60)
            assert building.returncode == 0, f"{seed}: {said}"
            assert "was killed; not queued" not in said
            victims["hook"] += "Killed" in said
            built += output.split()
            if victim == "daemon":
                time.sleep(chance.uniform(0, 0.5))
                cache.start()
        hooked.stop()
        hooked.hook("--drain")
        assert sorted(cache.paths()) == sorted(built), f"{seed}: {victims}"
        assert len(built) == KILLS
        status = json.loads(hooked.hook("--status", "--json"))
        assert (status["waiting"], status["failed"]) == ([], [])
    finally:
        hooked.stop()
    print(f"killed: {victims}")
    cache.program("path-info", "verify", "--all", "--store-dir", cache.store_dir)


def test_an_entry_waits_for_nothing_else_of_the_program(tmp_path: Path) -> None:
    """Nix waits for the hook after each build: it imports neither an event loop nor a store."""
    code = "import sys; from tvix_store.cli.program import run_program; run_program(['hook']); print(*sys.modules)"
    environment = {
        "OUT_PATHS": BUILT,
        "TVIX_STORE_HOOK_TO": URL,
        "TVIX_STORE_HOOK_QUEUE": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    with PushQueue(tmp_path).alone():  # so no process is started
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not {"asyncio", "aiohttp", "lmdb", "subprocess", "sqlite3", "tvix_store.config"} & set(done.stdout.split())
    [name] = PushQueue(tmp_path).names()
    assert PushQueue(tmp_path).get(name) is not None


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["hook"], {}, "say where to: --to URL"),
        (["hook", "--to"], {}, "requires an argument"),
        (["hook", "--tow", "x"], {}, "No such option"),
        (["hook", "--to", URL, "--config", "/nowhere"], {}, "/nowhere"),
        (["hook", "--to", URL, "--queue", "/dev/null/queue"], {}, "Not a directory"),
        (["hook", "--to", URL, "--queue", ""], {}, "the path is empty"),
        (["hook", "--to", URL], {"OUT_PATHS": ""}, "Nix tells no path"),
        (["hook", "--to", URL], {"OUT_PATHS": "", "DRV_PATH": "/dev/null/a.drv"}, "/dev/null"),
        (["hook", "--to", "credential:token"], {}, "credential:token"),
    ],
)
def test_the_hook_never_fails(
    arguments: list[str],
    variables: dict[str, str],
    said: str,
    queue: PushQueue,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in ({"OUT_PATHS": BUILT} | variables).items():
        monkeypatch.setenv(name, value)
    assert run_program(arguments) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tvix-store: not queued for the cache: ")
    assert said in line
    assert queue.names() == []


def test_a_person_is_told_what_is_wrong(queue: PushQueue, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["hook", "--to", URL]) == exit_codes.USAGE
    assert run_program(["hook", "--serve", "--status"]) == exit_codes.USAGE
    assert run_program(["hook", "--json", "--drain"]) == exit_codes.USAGE
    assert run_program(["hook", "--drain", "--give-up-after", "soon"]) == exit_codes.USAGE
    assert queue.names() == []


def test_each_cache_gets_what_was_built(queue: PushQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT_PATHS", f"{BUILT} {BUILT}-dev")
    assert run_program(["hook", "--to", URL, "--to", "file:///srv/cache", "--nix-store", "/mnt", "--skip-upstream"]) == 0
    entries = [queue.get(name) for name in queue.names()]
    assert [(each.target, each.paths) for each in entries if each] == [
        (Target(address, "/mnt", skip_upstream=True), (BUILT, f"{BUILT}-dev")) for address in (URL, "file:///srv/cache")
    ]


def test_versions_of_nix_that_name_no_paths_name_the_derivation(
    tmp_path: Path, queue: PushQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    derivation = tmp_path / "nix/store/x-a.drv"
    derivation.parent.mkdir(parents=True)
    derivation.write_text(
        'Derive([("dev","/nix/store/x-a-dev","",""),("out","/nix/store/x-a","r:sha256","00")],[],[],"s","b",[],[])'
    )
    monkeypatch.setenv("OUT_PATHS", "")
    monkeypatch.setenv("DRV_PATH", str(derivation))
    assert run_program(["hook", "--to", URL]) == 0
    monkeypatch.setenv("DRV_PATH", "/nix/store/x-a.drv")  # as Nix names it, where its store is elsewhere
    assert run_program(["hook", "--to", URL, "--nix-store", str(tmp_path)]) == 0
    for name in queue.names():
        entry = queue.get(name)
        assert entry is not None
        assert entry.paths == ("/nix/store/x-a-dev", "/nix/store/x-a")


def test_the_state_of_a_queue(queue: PushQueue, capsys: pytest.CaptureFixture[str]) -> None:
    def status(*options: str) -> str:
        assert run_program(["hook", "--status", *options]) == 0
        return capsys.readouterr().out

    assert status() == f"nothing waits in {queue.directory}\n"
    assert not queue.directory.exists()
    queue.put(Entry(Target(URL), (BUILT,), 0))
    queue.set_aside(Entry(Target("file:///srv"), (f"{BUILT}-2",), 0, "it is too large"))
    queue.write_state(
        {"caches": [{"to": URL, "nixStore": None, "error": "nobody answers", "tries": 3, "nextTry": 4e9}], "paths": []}
    )
    told = status()
    assert "for https://***@cache.example.org, 1 path, the oldest since 1970-01-01T00:00:00Z\n" in told
    assert "last error: nobody answers (tried 3 times, next at 2096-" in told
    assert "set aside for file:///srv, 1 path, since 1970-01-01T00:00:00Z: it is too large\n\t" + BUILT in told
    assert "no process pushes" in told
    parsed = json.loads(status("--json"))
    assert parsed["running"] is False
    assert [each["paths"] for each in parsed["waiting"] + parsed["failed"]] == [[BUILT], [f"{BUILT}-2"]]
    assert "secret" not in told + json.dumps(parsed)
    assert run_program(["hook", "--retry"]) == 0
    assert capsys.readouterr().err == "to be tried again: 1 path\n"
    assert len(queue.names()) == 2


def test_the_script_for_nix(tmp_path: Path, queue: PushQueue, tvix_store: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "hook"
    install: list[str | Path] = [
        "hook",
        "--to",
        "file:///srv/my cache",
        "--queue",
        queue.directory,
        "--give-up-after",
        "7d",
        "--install",
        script,
    ]
    tvix_store.environment["NETRC"] = "/etc/nix/netrc"
    assert tvix_store(*install) == f"post-build-hook = {script}"
    assert script.stat().st_mode & 0o777 == 0o755
    text = script.read_text()
    assert f"{TVIX_STORE} hook --give-up-after 7d --to 'file:///srv/my cache' --queue {queue.directory}" in text
    assert "export NETRC=/etc/nix/netrc\n" in text
    (tmp_path / "config.toml").write_text(f'hook.to = ["{URL}"]\n')
    (tmp_path / "config.toml").chmod(0o600)
    tvix_store("hook", "--config", "config.toml", "--install", script)
    assert f"hook --config {tmp_path}/config.toml --to {URL};" in script.read_text()
    assert script.stat().st_mode & 0o777 == 0o700
    misspelt = tvix_store.run("hook", "--to", "cache", "--install", tmp_path / "other")
    assert (misspelt.code, (tmp_path / "other").exists()) == (3, False)
    nowhere = tvix_store.run("hook", "--to", URL, "--install", tmp_path / "none/other")
    assert (nowhere.code, f"{tmp_path}/none/other:" in nowhere.error) == (4, True)
    script.write_text("#!/bin/sh\n")
    ended = tvix_store.run(*install)
    assert (ended.code, script.read_text()) == (5, "#!/bin/sh\n")
    assert "written by" in ended.error


def test_paths_that_could_not_be_pushed_end_a_drain_with_an_error(
    tmp_path: Path, queue: PushQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.put(Entry(Target("http://127.0.0.1:9"), (BUILT,), 0))
    (tmp_path / "nix/store").mkdir(parents=True)
    assert run_program(["hook", "--drain", "--give-up-after", "1m"]) == 7
    assert "not pushed: 1 path; tvix-store hook --status tells why" in capsys.readouterr().err
    assert queue.names() == []


def test_a_process_that_nix_has_started_knows_the_passwords_of_nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NIX_CONF_DIR", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    for name in ("netrc", "other"):
        (tmp_path / name).touch()
    for variables, netrc in (
        ({"NIX_CONFIG": ""}, None),  # where each command looks by itself
        ({"NIX_CONFIG": f"netrc-file = {tmp_path}/other\n"}, f"{tmp_path}/other"),
        ({"NETRC": "/mine"}, "/mine"),
    ):
        with patch.dict(os.environ, variables):  # the program sets variables too
            assert run_program(["hook", "--drain", "--queue", str(tmp_path / "queue")]) == 0
            assert os.environ.get("NETRC") == netrc


def test_a_drain_waits_for_who_works_already_but_not_for_ever(
    queue: PushQueue, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvix_store.cli.push_queued.read_span_option", lambda *_: 0.01)
    with queue.alone():
        assert run_program(["hook", "--drain"]) == 0  # nothing waits, though the other lingers
        queue.put(Entry(Target(URL), (BUILT,), 0))
        assert run_program(["hook", "--drain", "--give-up-after", "1m"]) == 7
    assert "another process has not pushed all that waits" in capsys.readouterr().err
    assert len(queue.names()) == 1


def test_a_path_of_a_cache_is_the_same_wherever_it_is_read(
    queue: PushQueue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUT_PATHS", BUILT)
    assert run_program(["hook", "--to", "./cache"]) == 0
    [entry] = filter(None, map(queue.get, queue.names()))
    assert entry.target.address == str(tmp_path / "cache")


def test_serving_ends_in_order(tvix_store: Program, tmp_path: Path) -> None:
    with tvix_store.start("hook", "--serve", "--queue", tmp_path / "queue") as serving:
        until_taken(PushQueue(tmp_path / "queue"))
        serving.terminate()
        assert serving.wait(20) == 0
        assert serving.stderr is not None
        assert serving.stderr.read() == b""


def until_taken(queue: PushQueue) -> None:
    for _ in range(1000):
        with queue.alone() as lock:
            if lock is None:
                return
        time.sleep(0.02)
    raise TimeoutError
