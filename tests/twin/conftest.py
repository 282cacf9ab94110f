"""Stores of every kind, and a PostgreSQL server of the tests' own."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from megdt.twin.store import Store, open_store


@dataclass(frozen=True, kw_only=True)
class Server:
    """A PostgreSQL server on loopback, run by a user who is not root."""

    programs: Path
    folder: Path
    port: int
    user: str

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs to the end."""
        # initdb and postgres refuse to run as root.
        become = {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}
        subprocess.run(
            [self.programs / program, *arguments],
            check=True, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            **(become if os.geteuid() == 0 else {}),
        )  # fmt: skip

    def control(self, *arguments: str) -> None:
        """Start or stop it, and wait until that is done."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", *arguments)

    def start(self) -> None:
        """Start it on its port."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        # Tests kill the server and not the machine, so what it has written stays without that.
        options += " -c fsync=off"
        self.control("-l", str(self.folder / "log"), "-o", options, "start")

    def url(self, schema: str) -> str:
        """Of its one database, with the tables in a schema of their own."""
        there = f"megdt@127.0.0.1:{self.port}/postgres"
        return f"postgresql://{there}?options=-csearch_path%3D{schema}"


def programs() -> Path | None:
    """Where initdb and pg_ctl are."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Started for the session, in a folder that goes with it."""
    for package in ("sqlalchemy", "psycopg"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'megdt[postgres]'")
    if (found := programs()) is None:
        pytest.skip("there is no PostgreSQL server here: apt-get install postgresql")
    user = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        user = "postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="megdt-postgres-"))
    try:
        shutil.chown(folder, user)
        made = Server(programs=found, folder=folder, port=port, user=user)
        sizes = ("--no-sync", "--wal-segsize=1")
        made.run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "megdt", *sizes)
        made.start()
        yield made
        made.control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_schemas = count()


@pytest.fixture
def url(server: Server) -> str:
    """A database without tables."""
    import psycopg

    schema = f"twin{next(_schemas)}"
    with psycopg.connect(server.url(schema)) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return server.url(schema)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `open_store` is to open; nothing is in it yet."""
    if request.param == "postgres":
        return str(request.getfixturevalue("url"))
    return {"memory": ":memory:", "sqlite": str(tmp_path / "twin.db")}[request.param]


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    """An empty store of each kind."""
    with open_store(where) as opened:
        yield opened
