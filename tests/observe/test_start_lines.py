"""What the daemon says when it serves, and when it ends."""

from __future__ import annotations

from dataclasses import replace

from tvix_store.observe.start_lines import StartFacts, ending_line, is_remote, start_lines, urls, warnings

FACTS = StartFacts("1.2", "/srv/store")
HERE = ["127.0.0.1:8000", "[::1]:8000"]
EVERYWHERE = ["0.0.0.0:443", "unix:/run/store.sock"]


def test_a_daemon_for_this_machine() -> None:
    assert start_lines(replace(FACTS, size="12 GiB, 80 GiB free"), HERE, "build") == [
        "tvix-store 1.2 serves http://localhost:8000",
        "  store      /srv/store (12 GiB, 80 GiB free)",
        "  reads      everybody on this machine",
        "  writes     everybody on this machine",
        "  signs as   nobody: narinfos have the signatures that came with them",
        "  upstreams  none",
        "  metrics    http://localhost:8000/metrics",
    ]
    assert warnings(FACTS, HERE) == []


def test_a_daemon_for_a_team() -> None:
    facts = replace(
        FACTS, read_only=True, tls=True, signing_keys=("cache-1", "cache-2"), upstreams=("https://a.example", "https://b.example")
    )
    assert start_lines(facts, EVERYWHERE, "build") == [
        "tvix-store 1.2 serves https://build:443 unix:/run/store.sock",
        "  store      /srv/store",
        "  reads      everybody who reaches this daemon",
        "  writes     nobody",
        "  signs as   cache-1, cache-2",
        "  upstreams  https://a.example, https://b.example",
        "  metrics    https://build:443/metrics",
    ]
    assert warnings(facts, EVERYWHERE) == []


def test_strangers_that_may_write_are_warned_of() -> None:
    [line] = warnings(FACTS, EVERYWHERE)
    assert "every stranger" in line
    assert "--read-only" in line
    assert warnings(FACTS, ["unix:/run/store.sock"]) == []


def test_urls_can_be_opened() -> None:
    assert urls(["[2001:db8::1]:80", "192.0.2.1:81", "[::]:82"], tls=False, host_name="here") == [
        "http://[2001:db8::1]:80",
        "http://192.0.2.1:81",
        "http://here:82",
    ]
    assert is_remote(["[2001:db8::1]:80"])
    assert not is_remote(["127.0.0.9:80", "[::1]:80"])


def test_the_end_tells_what_it_waits_for() -> None:
    assert ending_line(0, 30) == "ending; no call is running"
    assert ending_line(1, 30) == "ending when 1 running call is done, in 30 s at most; Ctrl-C once more ends at once"
    assert ending_line(3, 2.5).startswith("ending when 3 running calls are done, in 2.5 s at most")
