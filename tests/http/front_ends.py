"""Several daemons as front ends of one store, by the files that are shipped for that: a bucket, a database, a load balancer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.backends.objectstore.versitygw import KEY, SECRET, versitygw
from tests.http.daemon import Daemon
from tests.nginx import Nginx, nginx
from tests.ports import free_port
from tests.postgresql import new_schema
from tests.postgresql import server as database
from tests.programs import ROOT
from tvix_store.model.store_path import STORE_DIR

_FILES = ROOT / "packaging/compose"


@dataclass(frozen=True)
class FrontEnds:
    """The daemons, as if each were on a machine of its own."""

    daemons: Sequence[Daemon]
    directory: Path

    @contextmanager
    def balanced(self) -> Iterator[Nginx]:
        """A real nginx before all of them."""
        port = free_port()
        server = _balancer().replace("listen 80;", f"listen 127.0.0.1:{port};")
        for number, daemon in enumerate(self.daemons, 1):
            server = server.replace(f"front-end-{number}:8000", f"127.0.0.1:{daemon.port}")
        with nginx(server, port, self.directory / "nginx") as running:
            yield running


@contextmanager
def front_ends(directory: Path, *options: str, store_dir: str | Path = STORE_DIR) -> Iterator[FrontEnds]:
    """Start three daemons before a new bucket, and a new schema of the database."""
    (directory / "s3").mkdir(parents=True)
    with ExitStack() as stack:
        s3 = stack.enter_context(versitygw(directory / "s3"))
        bucket, path_infos = s3.new_bucket(), database().url(new_schema())
        daemons = []
        for number in range(3):
            daemon = Daemon(directory / f"machine-{number}", "--workers", "1", *options, store_dir=store_dir)
            place = daemon.program.directory
            stores = (_FILES / "stores.toml").read_text()
            for shipped, here in (
                ("s3:7070", f"127.0.0.1:{s3.port}"),
                ("s3://nix/", f"s3://{bucket}/"),
                ("postgresql://nix@database/nix?sslmode=disable", path_infos),
                ("/var/cache/tvix-store", f"{place}/cache"),
            ):
                assert shipped in stores
                stores = stores.replace(shipped, here)
            (place / "stores.toml").write_text(stores)
            daemon.program.environment |= {
                "TVIX_STORE_COMPOSITION": f"{place}/stores.toml",
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "XDG_RUNTIME_DIR": f"{place}/run",  # no locks that machines share
            }
            daemon.start()
            stack.callback(daemon.stop)
            daemons.append(daemon)
        yield FrontEnds(daemons, directory)


def _balancer() -> str:
    """What the configuration of nginx has in its block `http`."""
    [blocks] = re.findall(r"^http \{\n(.*)^\}", (_FILES / "nginx.conf").read_text(), re.MULTILINE | re.DOTALL)
    return str(blocks)
