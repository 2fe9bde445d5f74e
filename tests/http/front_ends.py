"""Several daemons as front ends of one store: content in a bucket, path infos in a database, and a load balancer before all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.backends.objectstore.versitygw import versitygw
from tests.http.daemon import Daemon
from tests.nginx import Nginx, nginx
from tests.ports import free_port
from tests.postgresql import new_schema
from tests.postgresql import server as database
from tvix_store.model.store_path import STORE_DIR

_BALANCED = """
    upstream front_ends {{
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://front_ends;
            proxy_http_version 1.1;
            proxy_set_header Host localhost;
            proxy_next_upstream error timeout http_502 http_503 non_idempotent;
            proxy_connect_timeout 2s;
        }}
    }}
"""
"""A body is kept until it is whole, so a request can go to the next front end where one is gone."""


@dataclass(frozen=True)
class FrontEnds:
    """The daemons, as if each were on a machine of its own, and the store that they share."""

    daemons: Sequence[Daemon]
    directory: Path

    @contextmanager
    def balanced(self) -> Iterator[Nginx]:
        """A real nginx before all of them."""
        port = free_port()
        servers = "\n        ".join(f"server 127.0.0.1:{each.port} max_fails=1 fail_timeout=1s;" for each in self.daemons)
        with nginx(_BALANCED.format(port=port, servers=servers), port, self.directory / "nginx") as running:
            yield running


@contextmanager
def front_ends(directory: Path, *options: str, store_dir: str | Path = STORE_DIR, count: int = 3) -> Iterator[FrontEnds]:
    """Start daemons before a new bucket, and a new schema of the database."""
    directory.mkdir(exist_ok=True)
    with ExitStack() as stack:
        (directory / "s3").mkdir()
        s3 = stack.enter_context(versitygw(directory / "s3"))
        content, path_infos = s3.address(s3.new_bucket(), layout="packed"), database().url(new_schema())
        daemons = []
        for number in range(count):
            daemon = Daemon(directory / f"machine-{number}", "--workers", "1", *options, store_dir=store_dir)
            daemon.program.environment |= {
                "TVIX_STORE": content,
                "PATH_INFO_SERVICE_ADDR": path_infos,
                "XDG_CACHE_HOME": str(daemon.program.directory / "cache"),
                "XDG_RUNTIME_DIR": str(daemon.program.directory / "run"),  # no locks that they share
            }
            daemon.start()
            stack.callback(daemon.stop)
            daemons.append(daemon)
        yield FrontEnds(daemons, directory)
