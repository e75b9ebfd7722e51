"""A Postgres with TLS and passwords: what works, what is said when it does not, and that no password is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingestcore.datasets.postgres_sink import PostgresSink
from ingestcore.stage import Fate, OperatorNeeded
from ingestcore.testing.database_world import DatabaseWorld, Run, fates
from ingestcore.testing.secured_postgres import PASSWORD, SecuredPostgres
from ingestcore.testing.tls import Authority
from services.postgres_sink.database import Database
from services.postgres_sink.failures import Away
from services.postgres_sink.stage import PostgresSinkStage

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredPostgres]:
    server = SecuredPostgres(tmp_path_factory.mktemp("secured"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


def said(dsn: str) -> str:
    """-> what the sink says to an operator; "": it can use the database."""
    database = Database("warehouse", PostgresSink(dsn=dsn), silence_seconds=5.0)
    told = ""
    try:
        database.check()
    except OperatorNeeded as error:
        told = str(error)
    finally:
        database.close()
    assert PASSWORD not in told
    return told


def test_rows_land_over_verified_tls_with_a_password(server: SecuredPostgres) -> None:
    world = DatabaseWorld(server.dsn(channel_binding="require"))
    stage = PostgresSinkStage(
        "warehouse",
        world.sink_spec,
        world.dataset,
        lambda: world.topic_id,
        lambda spec: Database("warehouse", spec, 5.0),
        clock=lambda: world.now,
    )
    assert fates(Run(stage).give(world.rows({"id": [1, 2], "revision": [1, 1]}))) == {Fate.DELIVERED: 2}
    assert world.sql("SELECT id FROM orders ORDER BY 1") == [(1,), (2,)]
    assert world.sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]


@pytest.mark.parametrize(
    ("wrong", "says", "advises"),
    [
        ({"password": "nope"}, 'password authentication failed for user "ingest"', "mend user and password"),
        ({"user": "nobody"}, 'password authentication failed for user "nobody"', "mend user and password"),
        ({"password": ""}, "no password supplied", "as a reference"),
        ({"user": "guest", "password": "guest"}, "not permitted to log in", "or the role in the database"),
        ({"database": "horse"}, 'database "horse" does not exist', "create it"),
        ({"sslmode": "disable"}, "no encryption", "sslmode=verify-full"),
        ({"sslrootcert": "/nowhere/ca.pem"}, '"/nowhere/ca.pem" does not exist', "mend the files"),
        ({"host": "db.example", "hostaddr": "127.0.0.1"}, 'does not match host name "db.example"', "certificate does"),
        ({"sslmode": "verify-fool"}, 'invalid sslmode value: "verify-fool"', "postgresql://user:password@host"),
        ({"sslmoode": "require"}, "`dsn` is no address", "postgresql://user:password@host"),
    ],
    ids=lambda part: "-".join(part) if isinstance(part, dict) else "",
)
def test_what_is_refused_is_said_with_what_to_do(
    server: SecuredPostgres, wrong: dict[str, str], says: str, advises: str
) -> None:
    told = said(server.dsn(**wrong))
    assert told.startswith("Postgres of sink warehouse: ") and "\n" not in told
    assert says in told and advises in told


def test_a_certificate_that_is_not_to_be_trusted_is_refused(server: SecuredPostgres, stranger: Authority) -> None:
    told = said(server.dsn(sslrootcert=str(stranger.file)))
    assert "certificate verify failed" in told and "authority that `sslrootcert`" in told
    server.present(server.authority.issue("expired", expired=True))
    assert "certificate has expired" in said(server.dsn())
    server.present(server.authority.issue("db"))
    assert said(server.dsn()) == ""


def test_a_server_without_tls_gets_no_password(server: SecuredPostgres) -> None:
    server.present(None)
    assert "does not support SSL" in said(server.dsn())
    server.present(server.authority.issue("db"))


def test_a_password_that_changes_is_an_operators_business_and_a_server_that_is_away_is_waited_for(
    server: SecuredPostgres,
) -> None:
    database = Database("warehouse", PostgresSink(dsn=server.dsn()), silence_seconds=5.0)
    server.sql("ALTER ROLE ingest PASSWORD 'changed'")
    with pytest.raises(OperatorNeeded, match="password authentication failed"):
        database.check()
    server.sql(f"ALTER ROLE ingest PASSWORD '{PASSWORD}'")
    database.check()
    database.close()
    server.stack.kill("postgres")
    with pytest.raises(Away):
        database.check()
    server.stack.restart("postgres")
    database.check()
    database.close()


def test_a_password_whose_characters_end_it_is_refused_before_a_part_of_it_is_taken_for_the_host() -> None:
    for password in ("p@ss", "pa/ss", "p@ss/word"):
        with pytest.raises(ValueError, match="%40") as told:
            PostgresSink(dsn=f"postgresql://ingest:{password}@127.0.0.1:5432/house")
        assert password not in str(told.value)
    PostgresSink(dsn="postgresql://ingest:p%40ss@127.0.0.1:5432/house?application_name=a@b/c")
    PostgresSink(dsn="postgresql://127.0.0.1/house")
    PostgresSink(dsn="postgresql:///house?host=/run/postgresql")
