"""Postgres in the dev stack, as whatever user the tests run: what it keeps, how it ends, the tool beside it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import devstack
from ingestcore.testing.own_servers import own_servers

GONE_WITHIN_SECONDS = 15.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[devstack.Stack]:
    with own_servers(), devstack.start(tmp_path_factory.mktemp("stack"), servers=["postgres"]) as running:
        yield running


def query(stack: devstack.Stack, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(stack.endpoints.postgres, autocommit=True) as connection:
        done = connection.execute(text)  # type: ignore[call-overload]
        return done.fetchall() if done.description else []


def test_rows_survive_a_restart_and_a_kill(stack: devstack.Stack) -> None:
    query(stack, "CREATE TABLE kept AS SELECT 1 AS n")
    with psycopg.connect(stack.endpoints.postgres):  # an open connection does not hold up a stop
        stack.restart("postgres")
    query(stack, "INSERT INTO kept VALUES (2)")
    stack.restart("postgres", hard=True)
    assert query(stack, "SELECT n FROM kept ORDER BY n") == [(1,), (2,)]


def test_psql_is_aimed_at_it(stack: devstack.Stack) -> None:
    assert stack.endpoints.environ() == {"POSTGRES_URL": stack.endpoints.postgres}
    for words in (["-Atc", "SELECT 6 * 7"], [stack.endpoints.postgres, "-Atc", "SELECT 6 * 7"]):
        done = subprocess.run([stack.bin / "psql", *words], capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_it_ends_with_its_keeper(tmp_path: Path) -> None:
    with own_servers(), devstack.start(tmp_path, servers=["postgres"]) as doomed:
        connection = psycopg.connect(doomed.endpoints.postgres)
        os.kill(doomed.keeper_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError, match=r"postmaster exit|closed the connection"):
            connection.execute("SELECT pg_sleep(%s)", (GONE_WITHIN_SECONDS,))
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(doomed.endpoints.postgres)


def test_a_server_the_environment_names_is_used(
    stack: devstack.Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_URL", stack.endpoints.postgres)
    with devstack.start(tmp_path, servers=["postgres"]) as second:
        assert second.pids() == {}
        assert query(second, "SELECT 1") == [(1,)]
        assert (second.bin / "psql").exists()
