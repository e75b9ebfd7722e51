"""The command line without servers: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import pytest

from ingestcore.cli.console import duration, mib
from ingestcore.cli.errors import OperatorError
from ingestcore.cli.fleet.screens import Handshake, Lines
from ingestcore.cli.fleet.status import rss_bytes, status_table, without_lag
from ingestcore.cli.fleet.up import parse_replicas
from ingestcore.cli.looking.topics import retention_text
from ingestcore.datasets.publish import Change
from ingestcore.datasets.registry import Registry
from ingestcore.fleet.record import Phase, Row
from ingestcore.kafka import admin, config_topic, sizes
from ingestcore.kafka.admin import TopicState
from ingestcore.kafka.sizes import Size
from ingestcore.stage import Retriable
from ingestcore.topics import TOPICS


class Ran(Protocol):
    code: int
    out: str
    err: str


Ingest = Callable[..., Ran]


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Stands for the configuration topic."""
    registry = Registry()

    def bring_into_force(platform: object, in_force: Registry, records: Iterable[Change]) -> None:
        for record in records:
            registry.feed(record.key, record.value)

    monkeypatch.setattr(admin, "create_topics", lambda platform: [])
    monkeypatch.setattr(config_topic, "read", lambda platform: registry)
    monkeypatch.setattr(config_topic, "bring_into_force", bring_into_force)
    return registry


GOOD = 'sources: {s: {s3: {bucket: abc}}}\nsinks: {lake: {parquet: {uri: "s3://out/"}}}\n'
BAD = "sources:\n  s: {s3: {bucket: abc}, tenent: x}\nsinks: {lake: {parquet: {uri: out}}}\n"


COMMANDS = "up stop start down run infer validate preview apply status topics tap ledger explain"


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_explains_itself_with_an_example(ingest: Ingest, command: str) -> None:
    ran = ingest(command, "--help")
    assert ran.code == 0
    assert f"ingest {command}" in ran.out
    assert "Example" in ran.out


@pytest.mark.parametrize("arguments", [["validat"], ["validate"], ["run"], ["up", "--replica"]])
def test_wrong_usage_ends_with_2_and_no_traceback(ingest: Ingest, arguments: list[str]) -> None:
    ran = ingest(*arguments)
    assert ran.code == 2
    assert "Traceback" not in ran.err


class TestValidate:
    def test_a_sound_file(self, ingest: Ingest) -> None:
        Path("a.yaml").write_text(GOOD)
        ran = ingest("validate", "a.yaml")
        assert (ran.code, ran.out, ran.err) == (0, "valid: 1 sources, 0 datasets, 1 sinks, 0 warnings\n", "")

    def test_every_mistake_is_one_line_with_file_line_path_and_advice(self, ingest: Ingest) -> None:
        Path("a.yaml").write_text(BAD)
        ran = ingest("validate", "a.yaml")
        assert ran.code == 2
        assert ran.err.splitlines() == [
            "error   a.yaml:2: sources.s.tenent: unknown key `tenent` -> tenant",
            "error   a.yaml:3: sinks.lake.parquet.uri: 'out' is no S3 address -> s3://bucket/prefix/",
        ]

    def test_json_for_scripts(self, ingest: Ingest) -> None:
        Path("a.yaml").write_text(BAD)
        ran = ingest("validate", "a.yaml", "--json")
        told = json.loads(ran.out)
        assert (ran.code, told["valid"]) == (2, False)
        assert told["problems"][0] == {
            "level": "error",
            "file": "a.yaml",
            "path": "sources.s.tenent",
            "line": 2,
            "message": "unknown key `tenent`",
            "instead": "tenant",
        }

    def test_markup_in_a_message_is_printed_as_it_is(self, ingest: Ingest) -> None:
        Path("a.yaml").write_text("datasets: {a: {primary_key: '[red]x[/red]'}}")
        assert "[[red]x[/red]]" in ingest("validate", "a.yaml").err

    def test_a_missing_file(self, ingest: Ingest) -> None:
        ran = ingest("validate", "none.yaml")
        assert (ran.code, ran.err) == (2, "error   none.yaml: can't be read: No such file or directory\n")


class TestApply:
    def test_it_publishes_and_says_what(self, ingest: Ingest, topic: Registry) -> None:
        Path("a.yaml").write_text(GOOD)
        ran = ingest("apply", "a.yaml")
        assert ran.code == 0
        assert ran.out.splitlines() == [
            "+ dataset/s@1  (all columns, unique by coordinate)",
            "+ dataset/s  (version 1)",
            "+ sink/lake",
            "+ sink/dlq",
            "+ source/s",
            "5 applied, 0 unchanged",
        ]
        assert list(topic.sources()) == ["s"]
        assert ingest("apply", "a.yaml").out.endswith("0 applied, 2 unchanged\n")

    def test_a_dry_run_publishes_nothing(self, ingest: Ingest, topic: Registry) -> None:
        Path("a.yaml").write_text(GOOD)
        ran = ingest("apply", "a.yaml", "--dry-run", "--json")
        assert json.loads(ran.out)["changes"][-1] == {"key": "source/s", "kind": "added", "note": ""}
        assert topic.sources() == {}

    def test_a_file_with_mistakes_is_refused_before_anything_is_asked(
        self, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(config_topic, "read", None)
        Path("a.yaml").write_text(BAD)
        ran = ingest("apply", "a.yaml")
        assert ran.code == 2
        assert len(ran.err.splitlines()) == 2

    def test_other_keys_need_rekey(self, ingest: Ingest, topic: Registry) -> None:
        Path("a.yaml").write_text("datasets: {d: {dedupe: {keys: [a]}}}")
        Path("b.yaml").write_text("datasets: {d: {dedupe: {keys: [b]}}}")
        assert ingest("apply", "a.yaml").code == 0
        refused = ingest("apply", "b.yaml")
        assert refused.code == 2
        assert "all rows will be new" in refused.err
        assert topic.current("d") == "d@1"
        assert ingest("apply", "b.yaml", "--rekey").code == 0
        assert topic.current("d") == "d@2"

    def test_kafka_away_is_one_message(self, ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(platform: object) -> None:
            raise Retriable("Kafka does not answer: Local: Broker transport failure")

        monkeypatch.setattr(admin, "create_topics", away)
        Path("a.yaml").write_text(GOOD)
        ran = ingest("apply", "a.yaml")
        assert (ran.code, ran.err) == (1, "ingest: Kafka does not answer: Local: Broker transport failure\n")

    def test_a_wrong_setting_is_one_message_without_its_value(
        self, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("INGEST_PARTITIONS", "many")
        Path("a.yaml").write_text(GOOD)
        ran = ingest("apply", "a.yaml")
        assert ran.code == 2
        assert ran.err.startswith("ingest: settings: ")
        assert "partitions" in ran.err.lower()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["status"], 0, ""),
        (["down"], 0, ""),
        (["stop", "x"], 1, "nothing runs in"),
        (["start"], 1, "nothing runs in"),
        (["up", "--replicas", "csv-parser"], 2, "write NAME=N"),
        (["up", "bad.yaml"], 2, "unknown key"),
    ],
)
def test_where_nothing_runs(ingest: Ingest, arguments: list[str], code: int, message: str) -> None:
    Path("bad.yaml").write_text(BAD)
    ran = ingest(*arguments)
    assert ran.code == code
    assert message in ran.err


def test_without_any_server_named_a_command_says_how_to_get_one(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    monkeypatch.setattr("ingestcore.cli.target.listens", lambda address: False)
    ran = ingest("topics")
    assert ran.code == 1
    assert "`ingest up` starts a fleet" in ran.err


def state(name: str, **changes: object) -> TopicState:
    spec = TOPICS[name]
    values: dict[str, object] = {
        "spec": spec,
        "name": f"ingest.{name}",
        "exists": True,
        "topic_id": "x",
        "partitions": spec.partitions or 8,
        "replication": 1,
        "end_offsets": (3, 4),
        "config": spec.broker_config(),
    }
    return TopicState(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (state("typed"), ""),
        (state("typed", exists=False), "missing"),
        (state("typed", partitions=4), "4 partitions, 8 wanted"),
        (state("objects", partitions=4), ""),
        (
            state("typed", config={**TOPICS["typed"].broker_config(), "max.message.bytes": "1048588"}),
            "max.message.bytes",
        ),
        (state("config", config={**TOPICS["config"].broker_config(), "cleanup.policy": "delete"}), "compact wanted"),
        (
            state("objects", config={"message.timestamp.type": "CreateTime", "max.message.bytes": "9999999"}),
            "LogAppend",
        ),
        (state("objects", replication=1, wanted_replication=3), "1 copies, 3 wanted"),
        (state("objects", replication=3, wanted_replication=3), "min.insync.replicas 1, 2 wanted"),
        (state("objects", replication=3, wanted_replication=3, config=TOPICS["objects"].broker_config(3)), ""),
        (state("objects", config=TOPICS["objects"].broker_config(3)), "nothing can be written"),
    ],
)
def test_topics_says_where_the_broker_differs(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch, found: TopicState, problem: str
) -> None:
    monkeypatch.setattr(admin, "describe", lambda platform: {found.spec.name: found})
    monkeypatch.setattr(sizes, "sizes", lambda platform, names: dict.fromkeys(names, Size(1 << 30, 1)))
    ran = ingest("topics", "--json")
    (told,) = json.loads(ran.out)["topics"]
    assert told["disk_bytes"] == (found.replication << 30 if found.exists else None)
    assert ran.code == (1 if problem else 0)
    assert problem in "; ".join(told["problems"])
    assert bool(told["problems"]) is bool(problem)
    table = ingest("topics")
    assert f"ingest.{found.spec.name}" in table.out
    assert ("1 GiB" in table.out) is (found.exists and found.replication == 1)
    assert problem in table.out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.9, "0s"), (59, "59s"), (61, "1m01s"), (7500, "2h05m"), (273_600, "3d04h")],
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("milliseconds", "compacted", "text"),
    [
        ("604800000", False, "7d"),
        ("43200000", False, "12h"),
        ("-1", False, "for ever"),
        ("-1", True, "compacted"),
        ("", False, "-"),
    ],
)
def test_retention_in_words(milliseconds: str, compacted: bool, text: str) -> None:
    assert retention_text(milliseconds, compacted) == text


def test_memory_of_a_process() -> None:
    own = rss_bytes(os.getpid())
    assert own is not None and own > 10 << 20
    assert rss_bytes(2**22 + 1) is None
    assert (mib(3 << 20), mib(None)) == ("3 MiB", "-")


@pytest.mark.parametrize(
    ("texts", "counts"),
    [([], {}), (["csv-parser=2"], {"csv-parser": 2}), (["a=1,b=2", "c=0"], {"a": 1, "b": 2, "c": 0})],
)
def test_replicas_may_be_given_together_or_apart(texts: list[str], counts: dict[str, int]) -> None:
    assert parse_replicas(texts) == counts


@pytest.mark.parametrize("text", ["csv-parser", "csv-parser=", "=2", "a=-1", "a=two", ""])
def test_replicas_written_otherwise_are_refused(text: str) -> None:
    with pytest.raises(OperatorError, match="write NAME=N"):
        parse_replicas([text])


ROW = Row("parquet-sink", "lake", "0", 0, Phase.FAILED, 0.0, 3, "bucket [out] is missing")


def test_the_table_shows_why_a_process_failed() -> None:
    made = status_table(without_lag([ROW]))
    assert made.row_count == 1
    assert [str(column.header) for column in made.columns][:5] == ["SERVICE", "SINK", "REPLICA", "PID", "STATE"]
    assert "bucket \\[out] is missing" in str(next(iter(made.columns[4].cells)))


def test_a_detached_supervisor_talks_to_its_starter_until_ready(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Handshake()
    screen.progress("starting kafka")
    screen.ready([ROW])
    screen.news("lake-0 ended")
    captured = capsys.readouterr()
    assert [json.loads(line) for line in captured.out.splitlines()] == [
        {"progress": "starting kafka"},
        {"ready": True},
    ]
    assert "lake-0 ended" in captured.err


def test_lines_are_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Lines(lambda: ["ready: look"])
    screen.progress("topics: 8 created")
    screen.ready([ROW])
    assert capsys.readouterr().err == "==> topics: 8 created\nready: look\n"
