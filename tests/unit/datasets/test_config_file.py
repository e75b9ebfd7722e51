"""Configuration files: what loads, and how every mistake is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from ingestcore.datasets.config_file import Config, load, problems
from ingestcore.datasets.problems import Level
from ingestcore.datasets.spec import OnExtra, Type

Write = Callable[..., Path]
Services = dict[str, type[BaseSettings]]

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_documented_example_loads() -> None:
    config = load([EXAMPLES / "ingest.yaml"])
    source = config.sources["s3-main"]
    assert (source.s3.bucket, source.s3.prefix) == ("lake", "raw/")
    assert source.provenance == {"purpose": "INV-7", "ingestedBy": "data-eng"}
    assert [source.dataset_of(f"raw/{key}", "s3-main") for key in ("zip1.csv", "bird.csv.gz", "x/airports9.csv")] == [
        "zipcodes",
        "strikes",
        "airports",
    ]
    assert config.datasets["zipcodes"].primary_key == ("zip_code",)
    assert config.datasets["zipcodes"].named["latitude"].type is Type.FLOAT
    assert config.datasets["strikes"].named["cost_total"].from_ == "Cost Total $"
    assert config.datasets["strikes"].on_extra is OnExtra.FREEZE
    assert config.sinks["lake"].parquet.max_age == 30.0


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.*")), ids=lambda path: path.name)
def test_every_example_is_without_errors(path: Path) -> None:
    assert [str(p) for p in problems([path]) if p.level is Level.ERROR] == []


@pytest.mark.parametrize("text", ["", "# nothing\n", "sources:\ndatasets:\nsinks:\nservices:\n", "{}"])
def test_an_empty_file_is_an_empty_configuration(write: Write, text: str) -> None:
    assert load([write(text)]) == Config()


def test_no_file_at_all_is_an_empty_configuration() -> None:
    assert load([]) == Config()


def test_provenance_is_filled_where_it_is_not_given(write: Write) -> None:
    config = load([write("sources: {a: {s3: {bucket: abc}}, b: {s3: {bucket: abc}, provenance: {purpose: X}}}")])
    assert config.sources["a"].provenance == {"purpose": "default", "ingestedBy": "ingest-platform"}
    assert config.sources["b"].provenance == {"purpose": "X", "ingestedBy": "ingest-platform"}


def test_camel_case_and_snake_case_mean_the_same(write: Write) -> None:
    snake = """
        sources: {a: {s3: {bucket: abc, poll_interval: 1m, path_style: true}, provenance: {ingested_by: me}}}
        datasets: {a: {primary_key: [k], on_extra: discard_value, dedupe: {error_rate: 0.001}, csv: {skip_rows: 2}}}
        sinks: {lake: {parquet: {uri: "s3://out/", max_age: 5s, batch_size: 10}}}
    """
    camel = """
        sources: {a: {s3: {bucket: abc, pollInterval: 1m, pathStyle: true}, provenance: {ingestedBy: me}}}
        datasets: {a: {primaryKey: [k], onExtra: discard_value, dedupe: {errorRate: 0.001}, csv: {skipRows: 2}}}
        sinks: {lake: {parquet: {uri: "s3://out/", maxAge: 5s, batchSize: 10}}}
    """
    one, two = load([write(snake)]), load([write(camel, "camel.yaml")])
    assert (one.sources, one.datasets, one.sinks) == (two.sources, two.datasets, two.sinks)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_like_yaml_whatever_its_indentation(write: Write, indent: int | str | None) -> None:
    value = {"datasets": {"a": {"description": 'tab\there, "quote", / and \U0001f600', "csv": {"delimiter": "\t"}}}}
    config = load([write(json.dumps(value, indent=indent), "a.json")])
    assert config.datasets["a"].description == value["datasets"]["a"]["description"]
    assert config.datasets["a"].csv.delimiter == "\t"


def test_words_and_numbers_are_taken_as_written_where_text_is_wanted(write: Write) -> None:
    config = load(
        [
            write(
                """
                datasets:
                  a:
                    primary_key: [no, 007]
                    csv: {null_values: [null, ~, NO, "", 0.10, 2024-01-01]}
                    fields:
                      no: {enum: [NO, yes, 010, true]}
                      007: {type: boolean, true: [on, 1], false: [off, 0]}
                      date: {type: date, min: 2024-01-01}
                """
            )
        ]
    )
    spec = config.datasets["a"]
    assert spec.primary_key == ("no", "007")
    assert spec.csv.null_values == ("null", "~", "NO", "", "0.10", "2024-01-01")
    assert spec.fields["no"].enum == ("NO", "yes", "010", "true")
    assert (spec.fields["007"].true, spec.fields["007"].false) == (("on", "1"), ("off", "0"))
    assert spec.fields["date"].min == "2024-01-01"


def test_anchors_and_merge_keys_work(write: Write) -> None:
    config = load(
        [
            write(
                """
                sources:
                  a: &one {s3: {bucket: abc}, tenant: t1}
                  b: {<<: *one, tenant: t2}
                """
            )
        ]
    )
    assert (config.sources["b"].s3.bucket, config.sources["b"].tenant) == ("abc", "t2")


def test_files_add_up(write: Write) -> None:
    config = load([write("sources: {a: {s3: {bucket: abc}}}"), write("sinks: {b: {parquet: {uri: 's3://out/'}}}", "b")])
    assert (list(config.sources), list(config.sinks)) == (["a"], ["b"])


def test_references_stay_unresolved(write: Write) -> None:
    config = load([write('sources: {a: {s3: {bucket: "${B}", secret_access_key: "${file:/x}"}}}')])
    assert config.sources["a"].s3.bucket == "${B}"
    assert config.sources["a"].s3.secret_access_key == "${file:/x}"


def test_service_settings_become_environment_variables(write: Write, services: Services) -> None:
    config = load([write("services: {chunk-downloader: {chunk_size: 8MiB, maxWorkers: 2, verbose: true}}")], services)
    assert config.environment() == {
        "INGEST_CHUNK_DOWNLOADER_CHUNK_SIZE": "8MiB",
        "INGEST_CHUNK_DOWNLOADER_MAX_WORKERS": "2",
        "INGEST_CHUNK_DOWNLOADER_VERBOSE": "true",
    }


def test_service_settings_are_judged_without_the_environment(
    write: Write, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_CHUNK_DOWNLOADER_MAX_WORKERS", "rubbish")
    assert problems([write("services: {chunk-downloader: {chunk_size: 8MiB}}")], services) == []


class TestOneSourceStyle:
    """`s3csv: {...}`, `http: {...}` of JSON configurations."""

    TEXT = """
        {
          "s3csv": {
            "bucket": "intelgraph-data-lake", "region": "us-east-1", "prefix": "raw/", "batchSize": 1000,
            "concurrency": 4, "deduplication": {"enabled": true, "keyFields": ["id", "timestamp"]}
          },
          "http": {
            "port": 3001, "bufferSize": 100, "batchInterval": 1000,
            "idempotency": {"enabled": true, "ttl": 86400, "redisUrl": "redis://localhost:6379"},
            "rateLimit": {"maxPerSecond": 1000, "burstSize": 1500}
          }
        }
    """

    def test_it_becomes_a_source_a_dataset_and_settings(self, write: Write) -> None:
        config = load([write(self.TEXT, "a.json")])
        s3 = config.sources["s3csv"].objects
        assert (s3.bucket, s3.region, s3.prefix) == ("intelgraph-data-lake", "us-east-1", "raw/")
        assert config.datasets["s3csv"].dedupe.keys == ("id", "timestamp")
        assert config.environment()["INGEST_CHUNK_DOWNLOADER_MAX_WORKERS"] == "4"
        assert config.default_batch_size == 1000

    def test_the_webhook_block_becomes_a_source_a_dataset_and_settings(self, write: Write) -> None:
        config = load([write(self.TEXT, "a.json")])
        http = config.sources["http"].http
        assert http is not None and http.rate_limit is not None
        assert (http.idempotency.ttl, http.rate_limit.max_per_second, http.rate_limit.burst) == (86_400, 1000, 1500)
        assert "http" in config.datasets
        assert config.services["webhook-gateway"] == {
            "port": "3001",
            "buffer_size": "100",
            "batch_interval": "1000ms",
            "redis_url": "redis://localhost:6379",
        }

    def test_a_webhook_block_without_auth_is_signed_and_warned_about(self, write: Write) -> None:
        http = load([write(self.TEXT, "a.json")]).sources["http"].http
        assert http is not None and (http.auth.scheme, http.auth.secrets) == (
            "standard-webhooks",
            ("${HTTP_WEBHOOK_SECRET:-}",),
        )
        (found,) = problems([write(self.TEXT, "a.json")])
        assert (found.level, found.path) == (Level.WARNING, "http")
        assert "HTTP_WEBHOOK_SECRET" in found.message and "open" in found.instead

    def test_a_webhook_block_that_is_not_enabled_is_no_source(self, write: Write) -> None:
        config = load([write('{"http": {"enabled": false, "port": 1}}', "a.json")])
        assert (config.sources, config.services) == ({}, {})

    def test_batch_size_reaches_sinks_that_say_nothing_else(self, write: Write) -> None:
        text = """
            s3csv: {bucket: abc, batchSize: 7}
            sinks:
              one: {parquet: {uri: "s3://one/"}}
              two: {parquet: {uri: "s3://two/", batch_size: 9}}
        """
        sinks = load([write(text)]).sinks
        assert [sinks[name].parquet.batch_size for name in ("one", "two")] == [7, 9]

    @pytest.mark.parametrize(
        ("deduplication", "keys"),
        [
            ("{enabled: true, keyFields: [id]}", ("id",)),
            ("{enabled: true}", "all"),
            ("{enabled: false, keyFields: [id]}", None),
        ],
    )
    def test_deduplication(self, write: Write, deduplication: str, keys: object) -> None:
        config = load([write(f"s3csv: {{bucket: abc, deduplication: {deduplication}}}")])
        assert config.datasets["s3csv"].dedupe.keys == keys

    def test_mistakes_in_it_are_told_like_others(self, write: Write) -> None:
        found = problems([write("s3csv:\n  bucket: abc\n  batchSzie: 5\n  deduplication: {keyField: [a]}\n")])
        assert [(p.path, p.line, p.instead) for p in found] == [
            ("s3csv.batchSzie", 3, "batch_size"),
            ("s3csv.deduplication.keyField", 4, "key_fields"),
        ]
