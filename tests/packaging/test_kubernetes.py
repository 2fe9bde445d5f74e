"""The Helm chart, where helm is installed: its own linter, and what it makes of some values."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

import tvix_store
from tests import programs
from tests.cli.program import Program
from tests.how_to.proxies import block
from tests.yaml import documents

CHART = programs.ROOT / "packaging/helm/tvix-store"


def helm(*arguments: str | Path) -> str:
    program = programs.find("helm")
    if program is None:
        pytest.skip("helm is not installed; with Go: go install helm.sh/helm/v3/cmd/helm@latest")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(*arguments: str | Path) -> dict[str, Any]:
    """The resources of a release called `cache`, by kind."""
    return {each["kind"]: each for each in documents(helm("template", "cache", CHART, *arguments))}


def test_helm_finds_no_fault() -> None:
    helm("lint", "--strict", CHART)


def test_the_chart_is_of_the_version_of_the_program() -> None:
    assert f'appVersion: "{tvix_store.__version__}"' in (CHART / "Chart.yaml").read_text()


def test_the_program_takes_the_configuration_and_the_arguments(tmp_path: Path) -> None:
    found = rendered()
    config = tmp_path / "config.toml"
    config.write_text(found["ConfigMap"]["data"]["config.toml"])
    assert tomllib.loads(config.read_text())["daemon"]["private"] is True
    program = Program(tmp_path)
    [container] = found["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert variables["TVIX_STORE_CONFIG"] == "/etc/tvix-store/config.toml"
    program.environment |= {"TVIX_STORE_CONFIG": str(config)}
    assert program.run("config", "check").code == 0
    known = program("daemon", "--help")
    assert all(option in known for option in re.findall(r"--[a-z-]+", " ".join(container["args"])))


def test_there_is_one_pod_with_one_volume_and_no_rights() -> None:
    found = rendered()
    assert "Ingress" not in found
    spec = found["StatefulSet"]["spec"]
    assert spec["replicas"] == 1
    assert [each["metadata"]["name"] for each in spec["volumeClaimTemplates"]] == ["store"]
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    [container] = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")} == {
        "startupProbe": "/readyz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }


def test_the_values_of_the_page_sign_and_open_an_ingress(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(block("kubernetes.md", "yaml"))
    found = rendered("--values", values)
    assert found["Ingress"]["spec"]["rules"][0]["host"] == "cache.example.org"
    assert found["Ingress"]["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == "0"
    pod = found["StatefulSet"]["spec"]["template"]["spec"]
    assert {"name": "signing-key", "secret": {"secretName": "cache-key", "defaultMode": 0o440}} in pod["volumes"]
    [container] = pod["containers"]
    key = {each["name"]: each["value"] for each in container["env"]}["TVIX_STORE_DAEMON_SIGNING_KEY_FILE"]
    assert key == "/run/secrets/tvix-store/cache.key"
