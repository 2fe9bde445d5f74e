"""A daemon of several workers before a composition: Nix pushes to it, and fetches what the composition has signed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tvix_store.model.signature import SecretKey

_STORES = """
[blobservices.root]
type = "cache"
far = "&kept"
directory = "{here}/near"
size = "64M"
negative_ttl = 0
[blobservices.kept]
type = "local"
path = "{here}/far"

[directoryservices.root]
type = "cache"
far = "kept"
directory = "{here}/near"
size = "64M"
negative_ttl = 0
[directoryservices.kept]
type = "local"
path = "{here}/far"

[pathinfoservices.root]
type = "keyfile-signing"
inner = "&cached"
keyfile = "{here}/key"
[pathinfoservices.cached]
type = "cache"
far = "local://{here}/far"
directory = "{here}/near"
size = "64M"
negative_ttl = 0
"""


def test_nix_pushes_to_a_composition_and_fetches_what_it_has_signed(
    start_daemon: Callable[..., Daemon], nix: Nix, other_nix: Callable[..., Nix], tmp_path: Path
) -> None:
    key = SecretKey.generate("composed-1")
    (tmp_path / "key").write_text(str(key))
    (tmp_path / "key").chmod(0o600)
    stores = tmp_path / "stores.toml"
    stores.write_text(_STORES.format(here=tmp_path))
    daemon = start_daemon("--store-composition", stores)
    assert daemon.log.count("READY") == 1
    [path] = nix.build("""
      let library = sh "library" "mkdir $out; echo text > $out/file"; in sh "program" "mkdir $out; ln -s ${library}/file $out/link"
    """)
    nix.copy_to(daemon.url, path)
    assert (tmp_path / "near").is_dir()
    fetching = other_nix(f"trusted-public-keys = {key.public}")
    fetching("nix", "copy", "--from", daemon.url, path)
    assert (fetching.real_dir / Path(path).name / "link").is_symlink()
    # What is near may go: the far side has all.
    daemon.stop()
    shutil.rmtree(tmp_path / "near")
    daemon.start()
    again = other_nix(f"trusted-public-keys = {key.public}")
    again("nix", "copy", "--from", daemon.url, path)
    said = daemon.program("config", "check", "--open", "--store-composition", str(stores))
    assert said.splitlines()[-1].endswith("it serves")
