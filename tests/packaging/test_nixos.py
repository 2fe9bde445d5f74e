"""The Nix expressions: Nix parses them, and evaluates them with a stand-in for nixpkgs, which is not there without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.how_to.proxies import block

ROOT = programs.ROOT
NIXPKGS = Path(__file__).parent / "nixpkgs.nix"
EXPRESSIONS = [ROOT / "flake.nix", *sorted((ROOT / "packaging/nixos").glob("*.nix"))]
SYSTEMS = ("x86_64-linux", "aarch64-linux")


def nix(*arguments: str | Path) -> str:
    """What `nix-instantiate` prints, which needs no store here."""
    command = [programs.require("nix-instantiate"), *arguments]
    done = subprocess.run(command, env={**os.environ, "NIX_REMOTE": "dummy://"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def evaluate(expression: str) -> Any:
    given = f"with import {NIXPKGS}; {expression}"
    return json.loads(nix("--eval", "--strict", "--json", "--expr", given))


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda path: path.name)
def test_nix_parses_the_expression(expression: Path) -> None:
    assert nix("--parse", expression)


def system(given: str) -> Any:
    return evaluate(f"configured {ROOT}/packaging/nixos/module.nix {given}")


def test_a_system_without_the_service_is_left_alone() -> None:
    assert evaluate(f"(configured {ROOT}/packaging/nixos/module.nix {{ enable = false; }}) ? systemd") is False


def test_the_service_is_that_of_the_unit_file() -> None:
    """The sandbox and all else, but for places, which differ on NixOS."""
    unit: dict[str, list[str]] = {}
    text = (ROOT / "packaging/systemd/tvix-store.service").read_text().partition("[Service]")[2].partition("[Install]")[0]
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        unit.setdefault(key, []).append(value)
    service = system("{ enable = true; }")["systemd"]["services"]["tvix-store"]
    ours = {
        key: list(map(in_unit, value if isinstance(value, list) else [value])) for key, value in service["serviceConfig"].items()
    }
    places = ("ExecStart", "ExecReload", "Environment", "ReadWritePaths", "LoadCredential")
    assert {key: value for key, value in ours.items() if key not in places} == {
        key: value for key, value in unit.items() if key not in places
    }
    assert ours["ExecStart"] == [unit["ExecStart"][0].replace("/opt/tvix-store/", "/package/")]
    assert service["environment"]["TVIX_STORE"] == "/var/lib/tvix-store"


def in_unit(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def test_secrets_are_credentials_which_the_settings_name() -> None:
    given = '{ enable = true; signingKeyFile = "/keys/a"; credentials.more = "/keys/b"; settings.daemon.priority = 30; }'
    found = system(given)
    assert found["systemd"]["services"]["tvix-store"]["serviceConfig"]["LoadCredential"] == ["more:/keys/b", "signing-key:/keys/a"]
    settings = found["services"]["tvix-store"]["settings"]
    assert settings == {"daemon": {"priority": 30, "signing-key-file": ["credential:signing-key"]}}


def test_ports_are_opened_where_that_is_wanted() -> None:
    streams = 'listenStreams = [ "0.0.0.0:8000" "[::]:8001" "/run/socket" "9000" ];'
    assert system(f"{{ enable = true; {streams} }}")["networking"]["firewall"]["allowedTCPPorts"] == []
    opened = system(f"{{ enable = true; openFirewall = true; {streams} }}")["networking"]["firewall"]["allowedTCPPorts"]
    assert opened == [8000, 8001, 9000]


def test_nginx_is_that_of_its_page() -> None:
    found = system('{ enable = true; nginx.hostName = "cache.example.org"; }')
    assert found["services"]["tvix-store"]["settings"]["daemon"] == {
        key: value for key, value in tomllib.loads(block("nginx.md", "toml"))["daemon"].items() if key != "listen-address"
    }
    host = found["services"]["nginx"]["virtualHosts"]["cache.example.org"]
    said = [
        host["extraConfig"],
        *(f"proxy_pass {each['proxyPass']};" for each in host["locations"].values() if "proxyPass" in each),
    ]
    said += [each["extraConfig"] for each in host["locations"].values()]
    of_server = ("listen", "server_name", "ssl_certificate", "ssl_certificate_key")
    page = block("nginx.md", "nginx")
    assert directives("\n".join(said)) == {each for each in directives(page) if each.split()[0] not in of_server}
    assert {f"location {place} {{" for place in host["locations"]} == set(re.findall(r"location .*\{$", page, re.MULTILINE))


def directives(text: str) -> set[str]:
    return set(re.findall(r"^\s*([a-z_0-9]+ [^;{]*);", text, re.MULTILINE))


def test_nginx_needs_a_port() -> None:
    given = '{ enable = true; nginx.hostName = "x"; listenStreams = [ "/run/socket" ]; }'
    [assertion] = evaluate(f"(configured {ROOT}/packaging/nixos/module.nix {given}).assertions")
    assert assertion["assertion"] is False


@pytest.mark.parametrize("machine", SYSTEMS)
def test_the_package_has_the_dependencies_of_the_project_and_the_locked_wheels(machine: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[\[>=;< ]", each)[0].replace(".", "-") for each in project["dependencies"]}
    if any("pyjwt[crypto]" in each for each in project["dependencies"]):
        wanted.add("cryptography")
    names = " ".join(f'"{name}"' for name in sorted(wanted | {"hatchling"}))
    found = evaluate(f'removeAttrs (package {ROOT}/packaging/nixos/package.nix [ {names} ] "{machine}") [ "src" ]')
    dependencies = [each if isinstance(each, dict) else {"pname": each} for each in found["dependencies"]]
    assert sorted(each["pname"] for each in dependencies) == sorted(wanted)
    locked = (ROOT / "requirements/run.txt").read_text()
    for each in dependencies:
        if "src" in each:
            entry = re.search(rf"^{each['pname']}=={re.escape(each['version'])} .*\n(?: .*\n)*", locked, re.MULTILINE)
            assert entry is not None, f"{each['pname']} {each['version']} is not the locked version"
            assert f"sha256:{each['src']['sha256']}" in entry[0]


def test_the_flake_offers_the_package_the_module_and_an_overlay() -> None:
    outputs = evaluate(
        f"""
        let
          flake = import {ROOT}/flake.nix;
          nixpkgs = {{ inherit lib; legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: pkgs); }};
          outputs = flake.outputs {{ self = outputs; inherit nixpkgs; }};
        in {{
          inputs = builtins.attrNames flake.inputs;
          inherit (outputs) packages;
          module = builtins.isFunction outputs.nixosModules.default;
          overlay = outputs.overlays.default pkgs {{ }};
        }}
        """
    )
    package = {"default": "/package", "tvix-store": "/package"}
    assert outputs == {
        "inputs": ["nixpkgs"],
        "packages": dict.fromkeys(SYSTEMS, package),
        "module": True,
        "overlay": {"tvix-store": "/package"},
    }
