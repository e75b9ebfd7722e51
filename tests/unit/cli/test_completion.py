"""Names complete in the shell, as bash asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingestcore.cli.main import main
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import Phase, Record, Row, write_record
from ingestcore.topics import TOPICS


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")


def offered(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """-> what bash would offer for the last word."""
    monkeypatch.setenv("_INGEST_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(("ingest", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit):
        main([])
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("val",), ["validate"]),
        (("tap", "nor"), ["normalized"]),
        (("tap", ""), list(TOPICS)),
        (("run", "csv"), ["csv-parser"]),
        (("stop", "norm"), ["normalizer"]),
        (("validate", "--ddl", "t"), ["trino"]),
        (("explain", "SCH"), ["SCHEMA_DRIFT"]),
    ],
)
def test_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], names: list[str]
) -> None:
    assert offered(capsys, monkeypatch, *words) == names


@pytest.mark.parametrize(
    "words", [("trace", "--dataset", ""), ("ledger", "--source", "x"), ("tap", "typed", "--dataset", "")]
)
def test_where_kafka_is_away_nothing_is_offered_and_nothing_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    assert offered(capsys, monkeypatch, *words) == []


def test_sinks_and_replicas_of_a_fleet_that_was_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout.of(Path(".ingest"))
    layout.make()
    row = Row("parquet-sink", "lake", "0", 1, Phase.READY, 0.0, 0)
    write_record(layout, Record(services=[json.loads(json.dumps(row.__dict__))]))
    assert offered(capsys, monkeypatch, "stop", "la") == ["lake", "lake-0"]
