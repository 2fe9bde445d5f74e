"""A real PostgreSQL, as a user without rights: one server for all tests of a process, with a schema for each."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from itertools import count
from pathlib import Path

import asyncpg  # type: ignore[import-untyped] # it ships no types

from tests import programs
from tests.ports import free_port
from tests.server.certificates import Authority
from tvix_store.backends.postgresql import Settings

_STARTS_WITHIN = 60.0
_NEW = ("--username=nix", "--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8")
_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "jit": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    "ssl": "on",
    "ssl_cert_file": "server.pem",
    "ssl_key_file": "server.key",
}
_ACCESS = """
local all all trust
host all strict 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""
"""All may come, but the user `strict`, who needs a password."""
_numbers = count(1)


class Server:
    """A PostgreSQL with a superuser `nix` and a database `postgres`, with settings of its own. It ends with this process."""

    def __init__(self, **options: str) -> None:
        self._options = _OPTIONS | options
        self._directory = Path(tempfile.mkdtemp(prefix="tvix-store-postgresql-"))
        self._data = self._directory / "data"
        self.port = free_port()
        self._as_user: list[str | Path] = [programs.require("setpriv"), "--pdeathsig=KILL"]
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            shutil.chown(self._directory, "nobody", "nogroup")
            self._as_user += ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        initdb = (programs.require("initdb"), "--pgdata", str(self._data))
        subprocess.run([*self._as_user, *initdb, *_NEW], check=True, capture_output=True, cwd=self._directory)
        (self._data / "pg_hba.conf").write_text(_ACCESS)
        self._write_certificate()
        self.start()

    def _write_certificate(self) -> None:
        """For `localhost`, by an authority whose certificate is in `authority`."""
        authority = Authority()
        self.authority = self._directory / "authority.pem"
        self.authority.write_bytes(authority.certificate)
        for file in authority.sign().write(self._data, "server"):
            file.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(file, "nobody", "nogroup")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = self._options | {"port": str(self.port), "unix_socket_directories": str(self._directory)}
        settings = [f"--{name}={value}" for name, value in options.items()]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, programs.require("postgres"), "-D", self._data, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )
        stops = time.monotonic() + _STARTS_WITHIN
        while not self._is_ready():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < stops, "PostgreSQL does not become ready"
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        """Source: postgres, src/include/utils/pidfile.h: the eighth line is the state."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready" and lines[0] == str(self._process.pid)

    def end(self) -> None:
        """Stop it, as for a restart."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def crash(self) -> None:
        """End all its processes at once.

        Not by SIGQUIT: PostgreSQL 15 may then wait forever for a process that it was just starting.
        """
        pid = self._process.pid
        self._process.send_signal(signal.SIGSTOP)  # it starts no more
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (*map(int, children), pid):
            os.kill(each, signal.SIGKILL)
        self._process.wait(60)
        while any(map(_is_alive, children)):
            time.sleep(0.01)  # the memory that they share is in use

    def remove(self) -> None:
        """Stop it, and remove its files."""
        if self._process.poll() is None:
            self.crash()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()

    def size(self) -> int:
        """Bytes of its tables and indexes, without the journal."""
        return sum(file.stat().st_size for file in (self._data / "base").rglob("*") if file.is_file())

    def url(self, schema: str | None = None, *, user: str = "nix", more: str = "") -> str:
        """The address of a store in a schema: of a new one, where none is given."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres?sslmode=disable&schema={schema or new_schema()}{more}"

    def settings(self, schema: str | None = None, *, user: str = "nix") -> Settings:
        """Settings of the backend, for a schema: for a new one, where none is given."""
        place = f"127.0.0.1:{self.port}/postgres"
        dsn = f"postgresql://{user}@{place}?sslmode=disable"
        return Settings(dsn, f"postgresql://{place}", schema or new_schema())


def _is_alive(pid: str) -> bool:
    """Whether a process is there, and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def emptied(schema: str) -> Settings:
    """The settings of a store in the server of this process, which loses what it has. To make new tables takes 30 files."""
    settings = server().settings(schema)
    connection = await asyncpg.connect(settings.dsn)
    if await connection.fetchval("SELECT 1 FROM information_schema.schemata WHERE schema_name = $1", schema):
        tables = ("directories", "path_infos", "path_references", "records")
        await connection.execute("; ".join(f"DELETE FROM {schema}.{table}" for table in tables))
    await connection.close()
    return settings


def new_schema() -> str:
    """The name of a schema that no other test uses."""
    return f"t{next(_numbers)}"


@cache
def server() -> Server:
    """The server of this process. It runs already, or starts now, which takes 1 s of CPU."""
    running = Server()
    atexit.register(running.remove)
    return running
