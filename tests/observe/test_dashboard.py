"""The dashboard, the alert rules and the user's page speak of metrics that there are."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.http.daemon import Daemon
from tests.observe.test_daemon import Start, grpc_get, narinfo_name, push
from tests.observe.test_daemon import start_daemon as start_daemon  # noqa: PLC0414 - a fixture
from tests.programs import ROOT
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.store_path import StorePath
from tvix_store.telemetry.meters import METERS, Histogram

OBSERVING = ROOT / "docs/observing"
NAME = re.compile(r"\btvix_store_\w+")
SELECTED = re.compile(r"(tvix_store_\w+)\{([^}]*)\}")
GROUPED = re.compile(r"by \(([^)]*)\) \(\w+\((tvix_store_\w+)")
OF_PROMETHEUS = {"job", "le"}
"""Labels that Prometheus adds, and that of buckets."""
OF_LAYERS = "tvix_store_service_"
"""How the names of metrics begin that only some stores have: those whose configuration names the layers."""


def expressions() -> list[str]:
    dashboard = json.loads((OBSERVING / "dashboard.json").read_text())
    of_panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = (OBSERVING / "alerts.yaml").read_text().split("- alert: ")[1:]
    return [*of_panels, *rules]


def labels_under_load(daemon: Daemon, theirs: StorePath) -> dict[str, set[str]]:
    """The labels of all samples, by their names, after a bit of everything. Only an upstream has the path `theirs`."""
    own = push(daemon, "own")
    for path in (own, theirs, own):
        told = NarInfo.parse(daemon.get(narinfo_name(path)).body, daemon.store_dir)
        assert daemon.get("/" + told.url).status == 200
    assert daemon.get("/" + "0" * 32 + ".narinfo").status == 404
    grpc_get(daemon, own)
    page = daemon.get("/metrics").body.decode()
    return {
        sample.name: sample.labels.keys() | set() for family in text_string_to_metric_families(page) for sample in family.samples
    }


@pytest.fixture
def labels(start_daemon: Start, tmp_path: Path) -> dict[str, set[str]]:
    upstream = start_daemon(name="upstream")
    with socket.socket() as nobody:  # an upstream that is down, and makes an error line
        nobody.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{nobody.getsockname()[1]}?require-signatures=false"
        theirs = push(upstream, "theirs")
        upstream.program("copy", "--to", f"file://{tmp_path}/cache", "--quiet", str(theirs))
        daemon = start_daemon("--substituters", f"{down} file://{tmp_path}/cache?require-signatures=false")
        return labels_under_load(daemon, theirs)


def test_each_name_in_the_dashboard_and_the_alerts_is_told_under_load(labels: dict[str, set[str]]) -> None:
    told = [expression for expression in expressions() if OF_LAYERS not in expression]
    named = {name for expression in told for name in NAME.findall(expression)}
    assert len(named) > 20
    assert named <= labels.keys(), named - labels.keys()
    for expression in told:
        for name, selectors in SELECTED.findall(expression):
            used = set(re.findall(r"(\w+)=", selectors))
            assert used - OF_PROMETHEUS <= labels[name], expression
        for groups, name in GROUPED.findall(expression):
            assert set(groups.split(", ")) - OF_PROMETHEUS <= labels[name], expression


def test_each_metric_is_in_the_dashboard_or_an_alert_and_in_the_users_page() -> None:
    named = {name for expression in expressions() for name in NAME.findall(expression)}
    page = (ROOT / "docs/observing.md").read_text()
    for meter in METERS:
        name = f"{meter.name}_bucket" if isinstance(meter, Histogram) else meter.name
        assert name in named, name
        assert f"`{meter.name}`" in page, meter.name
    for name in re.findall(r"`(tvix_store_\w+)`", page):
        assert name in {meter.name for meter in METERS} | {"tvix_store_info"}, name


def test_each_alert_is_whole() -> None:
    rules = (OBSERVING / "alerts.yaml").read_text().split("- alert: ")[1:]
    assert len(rules) > 5
    for rule in rules:
        for part in ("expr: ", "for: ", "labels: {severity: ", "annotations:", "summary: "):
            assert rule.count(part) == 1, (part, rule)


def test_the_panels_do_not_overlap() -> None:
    panels = json.loads((OBSERVING / "dashboard.json").read_text())["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels) == len({panel["id"] for panel in panels})
    assert all(panel["gridPos"]["w"] == 12 and panel["gridPos"]["x"] in (0, 12) for panel in panels)


def test_the_repository_has_the_files() -> None:
    assert sorted(path.name for path in Path(OBSERVING).iterdir()) == ["alerts.yaml", "dashboard.json"]
