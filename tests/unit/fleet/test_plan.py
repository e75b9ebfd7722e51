"""The pure parts of a fleet: which processes, with which environment, restarted after how long."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from ingestcore.datasets.config_file import Config
from ingestcore.datasets.registry import Registry
from ingestcore.datasets.spec import SinkSpec, SourceSpec
from ingestcore.fleet.backoff import LONGEST_SECONDS, SOUND_SECONDS, Backoff
from ingestcore.fleet.bring_up import Options, run_command, service_environment
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.servers import buckets_of, given_servers, platform_of, reaching, wanted_servers
from ingestcore.fleet.wanted import UnknownService, Wanted, wanted_processes
from ingestcore.runtime.service import Service, discover


def service(name: str, consumes: str | None, per: str = "") -> Service:
    return Service(name, "", BaseSettings, lambda context: None, consumes, per=per)  # type: ignore[arg-type,return-value]


SERVICES = {
    s.name: s
    for s in (
        service("normalizer", "typed"),
        service("parquet-sink", "normalized", "sink"),
        service("s3-lister", None),
        service("csv-parser", "blocks"),
    )
}
SINKS = {
    "lake": SinkSpec.model_validate({"parquet": {"uri": "s3://out/"}}),
    "dlq": SinkSpec.model_validate({"parquet": {"uri": "s3://out/"}, "from": "dlq"}),
}


def labels(replicas: dict[str, int], sinks: dict[str, SinkSpec] = SINKS) -> list[str]:
    return [wanted.label for wanted in wanted_processes(SERVICES, {}, sinks, replicas)]


def test_one_process_per_service_and_per_sink_in_the_order_rows_flow() -> None:
    assert labels({}) == ["s3-lister-0", "csv-parser-0", "normalizer-0", "parquet-sink-lake-0", "parquet-sink-dlq-0"]


def test_without_sinks_there_is_no_sink_process() -> None:
    assert labels({}, {}) == ["s3-lister-0", "csv-parser-0", "normalizer-0"]


def test_what_only_webhooks_need_runs_where_there_are_sources_of_webhooks() -> None:
    webhooks = SourceSpec.model_validate({"http": {"auth": {"scheme": "open"}}})
    files = SourceSpec.model_validate({"s3": {"bucket": "lake"}})

    def names(*sources: SourceSpec) -> set[str]:
        named = {str(n): source for n, source in enumerate(sources)}
        return {wanted.service for wanted in wanted_processes(discover(), named, {}, {})}

    assert names(files) == names() == names(files, webhooks) - {"event-parser", "webhook-gateway"}
    assert "event-parser" in names(webhooks)


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [
        ({"csv-parser": 2}, ["csv-parser-0", "csv-parser-1"]),
        ({"csv-parser": 0}, []),
        ({"lake": 2}, ["parquet-sink-lake-0", "parquet-sink-lake-1"]),
        ({"parquet-sink": 2, "dlq": 1}, ["parquet-sink-lake-0", "parquet-sink-lake-1"]),
    ],
)
def test_replicas_are_asked_for_by_service_or_sink(replicas: dict[str, int], expected: list[str]) -> None:
    prefix = "csv-parser" if "csv-parser" in replicas else "parquet-sink-lake"
    assert [label for label in labels(replicas) if label.startswith(prefix)] == expected


def test_replicas_of_something_unknown_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownService, match="'csv-praser': csv-parser"):
        labels({"csv-praser": 2})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("parquet-sink", True),
        ("parquet_sink", True),
        ("my_lake", True),
        ("my_lake-1", True),
        ("parquet-sink-my_lake-1", True),
        ("my_lake-0", False),
        ("csv-parser", False),
    ],
)
def test_a_process_answers_to_its_service_its_sink_and_its_replica(name: str, meant: bool) -> None:
    assert Wanted("parquet-sink", "my_lake", "1").is_called(name) is meant


def test_the_command_of_a_sink_names_it() -> None:
    assert run_command(Wanted("parquet-sink", "lake", "1"))[3:] == (
        *("run", "parquet-sink", "--replica", "1"),
        *("--sink", "lake"),
    )
    assert run_command(Wanted("csv-parser", "csv-parser", "0"))[3:] == ("run", "csv-parser", "--replica", "0")


def test_restarts_come_twice_at_once_and_then_ever_slower_up_to_a_limit() -> None:
    backoff = Backoff()
    waits = [backoff.next_seconds(0.1) for _ in range(10)]
    assert waits[:6] == [0.2, 0.2, 1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_SECONDS
    assert all(earlier <= later for earlier, later in pairwise(waits))


def test_a_process_that_ran_well_is_restarted_at_once_again() -> None:
    backoff = Backoff()
    for _ in range(6):
        backoff.next_seconds(0.1)
    assert backoff.next_seconds(SOUND_SECONDS) == 0.2


def test_the_operators_environment_wins_over_the_files_except_for_admin_ports() -> None:
    config = Config(services={"csv-parser": {"block": "1", "other": "2"}})
    environ = {"INGEST_CSV_PARSER_BLOCK": "9", "INGEST_ADMIN_PORT": "8080", "REDIS_URL": "redis://r"}
    made = service_environment(Layout.of(Path("/x")), config, environ)
    assert {name: text for name, text in made.items() if not name.startswith("MALLOC_")} == {
        "INGEST_CSV_PARSER_BLOCK": "9",
        "INGEST_CSV_PARSER_OTHER": "2",
        "INGEST_STATE_DIR": "/x/state",
        "INGEST_ADMIN_HOST": "127.0.0.1",
        "INGEST_ADMIN_PORT": "0",
        "REDIS_URL": "redis://r",
    }


@pytest.mark.parametrize(
    ("environ", "given"),
    [
        ({}, {}),
        ({"KAFKA_BROKERS": "k:1"}, {"kafka": {"KAFKA_BOOTSTRAP_SERVERS": "k:1"}}),
        ({"KAFKA_BOOTSTRAP_SERVERS": "a:1", "KAFKA_BROKERS": "b:1"}, {"kafka": {"KAFKA_BOOTSTRAP_SERVERS": "a:1"}}),
        ({"INGEST_KAFKA_BOOTSTRAP": "c:1", "KAFKA_BROKERS": "b:1"}, {"kafka": {"KAFKA_BOOTSTRAP_SERVERS": "c:1"}}),
        ({"AWS_ENDPOINT_URL_S3": "http://s"}, {"s3": {"S3_ENDPOINT_URL": "http://s"}}),
        ({"REDIS_URL": "redis://r", "S3_ENDPOINT_URL": ""}, {"redis": {"REDIS_URL": "redis://r"}}),
    ],
)
def test_servers_are_taken_from_the_environment(environ: dict[str, str], given: dict[str, dict[str, str]]) -> None:
    assert given_servers(environ) == given


def test_an_address_of_the_embedded_stack_itself_does_not_keep_it_from_starting() -> None:
    environ = {"KAFKA_BROKERS": "127.0.0.1:5", "REDIS_URL": "redis://elsewhere"}
    own = {"kafka": {"kafka": "127.0.0.1:5"}, "redis": {"redis": "redis://127.0.0.1:6/0"}}
    assert list(given_servers(environ, own)) == ["redis"]


@pytest.mark.parametrize(
    ("sink", "had", "postgres"),
    [
        ({"postgres": {}}, [], True),
        ({"postgres": {"dsn": "${POSTGRES_URL:-postgresql://db/x}"}}, [], True),
        ({"postgres": {"dsn": "postgresql://elsewhere/x"}}, [], False),
        ({"parquet": {"uri": "s3://out/"}}, [], False),
        ({"parquet": {"uri": "s3://out/"}}, ["kafka", "postgres"], True),
    ],
)
def test_postgres_is_embedded_only_where_a_sink_is_for_it(sink: dict[str, Any], had: list[str], postgres: bool) -> None:
    config = Config(sinks={"a": SinkSpec.model_validate(sink)})
    assert ("postgres" in wanted_servers(config, had)) is postgres


def test_credentials_go_with_their_s3() -> None:
    mine = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SESSION_TOKEN": "mine", "AWS_PROFILE": "work", "PATH": "/bin"}
    embedded = {"S3_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "its", "AWS_SECRET_ACCESS_KEY": "its"}
    assert reaching(mine, embedded) == {**embedded, "PATH": "/bin"}
    named = {"S3_ENDPOINT_URL": "http://minio:9000", "REDIS_URL": "redis://127.0.0.1:1"}
    assert reaching(mine, named) == {**mine, **named}


def test_settings_reach_the_servers_of_the_fleet_whatever_this_shell_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BROKERS", "old:1")
    monkeypatch.setenv("INGEST_PARTITIONS", "3")
    platform = platform_of({"KAFKA_BOOTSTRAP_SERVERS": "new:1", "S3_ENDPOINT_URL": "http://new"})
    assert (platform.kafka_bootstrap, platform.s3_endpoint_url, platform.partitions) == ("new:1", "http://new", 3)


def test_buckets_are_those_at_the_platforms_own_s3() -> None:
    registry = Registry()
    registry.feed("source/a", b'{"s3": {"bucket": "${B}", "prefix": "x/"}}')
    registry.feed("source/b", b'{"s3": {"bucket": "foreign", "endpoint_url": "http://elsewhere"}}')
    registry.feed("source/c", b'{"s3": {"bucket": "${MISSING}"}}')
    registry.feed("sink/d", b'{"parquet": {"uri": "s3://out/prefix/"}}')
    registry.feed("sink/e", b'{"parquet": {"uri": "s3://far/", "endpoint_url": "http://elsewhere"}}')
    assert buckets_of(registry, {"B": "mine"}) == {"mine", "out"}


def test_options_survive_the_way_to_the_detached_process(tmp_path: Path) -> None:
    options = Options(tmp_path, (tmp_path / "a.yaml",), {"csv-parser": 2}, True, ("a+b",), 8081, 5.0)
    assert Options.decode(options.encode()) == options


def test_services_that_share_a_process_are_one_process_under_any_of_their_names() -> None:
    composed = "chunk-downloader+csv-parser"
    plan = wanted_processes(discover(), {}, {}, {"csv-parser": 2}, [composed])
    shared = [process for process in plan if "+" in process.service]
    assert [process.label for process in shared] == [f"{composed}-0", f"{composed}-1"]
    assert not {"chunk-downloader", "csv-parser"} & {process.service for process in plan}
    assert all(shared[0].is_called(name) for name in (composed, "csv-parser", "chunk_downloader", f"{composed}-0"))
    with pytest.raises(UnknownService, match="csv-parser"):
        wanted_processes(discover(), {}, {}, {}, ["chunk-downloader+csv-praser"])
