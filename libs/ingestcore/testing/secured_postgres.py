"""A real Postgres with TLS and passwords: whoever is not its superuser must use both."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import psycopg

import devstack
from ingestcore.testing.own_servers import own_servers
from ingestcore.testing.tls import HOST, Authority

USER: Final = "ingest"
PASSWORD: Final = "p@ss/word:1"
DATABASE: Final = "house"
_HBA: Final = f"host all postgres {HOST}/32 trust\nhostssl all all {HOST}/32 scram-sha-256\n"
_RELOADED_SECONDS: Final = 10.0


class SecuredPostgres:
    """One Postgres of the dev stack. `authority`: whose certificate it presents; `admin`: the superuser's address."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "tls")
        with own_servers():
            self.stack = devstack.start(folder, servers=["postgres"])
        self.admin = self.stack.endpoints.postgres
        self.port = int(urlsplit(self.admin).port or 0)
        self.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        self.sql("CREATE ROLE guest PASSWORD 'guest'")
        self.sql(f"CREATE DATABASE {DATABASE} OWNER {USER}")
        [[rules]] = self.sql("SHOW hba_file")
        Path(rules).write_text(_HBA)
        self.present(self.authority.issue("db"))

    def present(self, certificate: Path | None) -> None:
        """From now on, this certificate; None: no TLS at all."""
        if certificate is not None:
            for setting in ("ssl_cert_file", "ssl_key_file"):
                self.sql(f"ALTER SYSTEM SET {setting} = '{certificate}'")
        self.sql(f"ALTER SYSTEM SET ssl = '{'on' if certificate else 'off'}'")
        [[before]] = self.sql("SELECT pg_conf_load_time()")
        self.sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + _RELOADED_SECONDS
        while self.sql("SELECT pg_conf_load_time()") == [(before,)]:
            assert time.monotonic() < deadline, "its configuration was not read again"

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Run a statement as superuser. -> its rows."""
        with psycopg.connect(self.admin, autocommit=True) as connection:
            done = connection.execute(text.encode())
            return done.fetchall() if done.description else []

    def dsn(self, *, user: str = USER, password: str = PASSWORD, database: str = DATABASE, **options: str) -> str:
        """-> an address with libpq's options; unless they say otherwise the certificate is verified."""
        given = {"sslmode": "verify-full", "sslrootcert": str(self.authority.file), **options}
        who = user + (f":{quote(password, safe='')}" if password else "")
        host = given.pop("host", HOST)
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())
        return f"postgresql://{who}@{host}:{self.port}/{database}?{asked}"

    def stop(self) -> None:
        self.stack.stop()
