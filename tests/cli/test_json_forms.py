from __future__ import annotations

import json

from hypothesis import given

from tvix_store.cli.json_forms import nar_from_json, path_info_from_json, path_info_to_json
from tvix_store.model.path_info import PathInfo
from tvix_store.testing.strategies import path_infos


@given(path_infos())
def test_a_path_info_survives_json(path_info: PathInfo) -> None:
    document = json.loads(json.dumps(path_info_to_json(path_info, "/nix/store")))
    nar = nar_from_json(document)
    assert nar is not None
    assert path_info_from_json(document, "/nix/store", nar) == path_info


def test_what_nix_says_besides_is_passed_over() -> None:
    path = "/nix/store/" + "0" * 32 + "-x"
    document = {
        "path": path,
        "root": {"type": "symlink", "target": "y"},
        "narHash": "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
        "narSize": 120,
        "registrationTime": 1700000000,
        "ultimate": True,
        "valid": True,
    }
    nar = nar_from_json(document)
    assert nar is not None
    assert path_info_from_json(document, "/nix/store", nar).store_path.absolute() == path
