"""The files for several front ends. tests/http/test_front_ends.py runs daemons and nginx by two of them."""

from __future__ import annotations

import json
from pathlib import Path

from tests import yaml
from tests.cli.program import Program
from tests.programs import ROOT
from tvix_store.cli.daemon import daemon

FILES = ROOT / "packaging/compose"


def test_the_files_fit_each_other() -> None:
    [compose] = yaml.documents((FILES / "compose.yaml").read_text())
    services = compose["services"]
    fronts = [name for name, service in services.items() if service["image"] == "tvix-store"]
    balancer = (FILES / "nginx.conf").read_text()
    assert [name for name in fronts if f"server {name}:8000 " in balancer] == fronts
    assert services["balancer"]["depends_on"] == fronts
    stores = (FILES / "stores.toml").read_text()
    assert "//nix@database/" in stores
    assert f"//s3{services['s3']['command'][1]}" in stores
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or source == "./tokens.json" or (FILES / source).exists(), volume


def test_the_command_is_one(tmp_path: Path) -> None:
    [compose] = yaml.documents((FILES / "compose.yaml").read_text())
    command, *options = compose["services"]["front-end-1"]["command"]
    assert command == "daemon"
    known = {option for parameter in daemon.params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known
    ended = Program(tmp_path).run("config", "check", FILES / "stores.toml")
    assert ended.code == 0, ended.error
    shown = Program(tmp_path).run("config", "show", "--json", "--store-composition", FILES / "stores.toml")
    assert json.loads(shown.output)
