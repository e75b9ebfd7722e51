"""Mistakes in configuration files: each is told with file, path, line and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from ingestcore.datasets.config_file import load, problems
from ingestcore.datasets.problems import ConfigError, Level

Write = Callable[..., Path]
Services = dict[str, type[BaseSettings]]


# (yaml, path, line, part of the message, part of what to write instead)
ERRORS = [
    ("surces: {}", "surces", 1, "unknown key", "sources"),
    ("- a", "", 1, "must be a mapping", "sources"),
    ("sources: [a]", "sources", 1, "must be a mapping of names", "sources: {name"),
    ("sources:\n  a:\n    s3: {bucket: abc}\n    prefix: raw/", "sources.a.prefix", 4, "unknown key", "s3: {prefix"),
    ("sources:\n  a: {}", "sources.a", 2, "`s3` is missing", "bucket"),
    ("sources:\n  a:\n    s3:\n      prefix: x", "sources.a.s3", 3, "`bucket` is missing", "bucket:"),
    ("sources: {a: {http: {}}}", "sources.a.http", 1, "`auth` is missing", "scheme: standard-webhooks"),
    ("sources: {a: {http: {auth: {scheme: githup}}}}", "sources.a.http.auth.scheme", 1, "'githup'", "github"),
    ("sources: {a: {http: {auth: {scheme: slack}}}}", "sources.a.http.auth", 1, "slack needs its secrets", "${NAME}"),
    (
        "sources: {a: {http: {auth: {scheme: open, secrets: ['${X}']}}}}",
        "sources.a.http.auth",
        1,
        "not asked for by `open`",
        "leave them out",
    ),
    (
        "sources: {a: {http: {auth: {scheme: slack, secrets: '${X}', header: X-A}}}}",
        "sources.a.http.auth",
        1,
        "header is of `hmac`",
        "leave it out",
    ),
    ("sources: {a: {http: {auth: {scheme: open}}, s3: {bucket: abc}}}", "sources.a", 1, "two sources", "name"),
    ("sources: {a: {http: {auth: {scheme: open}}, route: {'*': d}}}", "sources.a", 1, "object keys", "dataset"),
    (
        "sources: {a: {http: {auth: {scheme: open}}}}\ndatasets: {a: {fields: {x: {from: 'a..b'}}}}",
        "datasets.a.fields.x",
        2,
        "'a..b' is no path",
        "a path",
    ),
    ("http: {port: 99999}", "http.port", 1, "65535 or less", ""),
    ("http: {rateLimit: {burstSize: 5}}", "http.rateLimit", 1, "`max_per_second` is missing", ""),
    ("sources: {a: {s3: {bucket: [x]}}}", "sources.a.s3.bucket", 1, "must be text, not a list", "name alone"),
    ("sources: {a: {s3: {bucket: ab}}}", "sources.a.s3.bucket", 1, "at least 3", "name alone"),
    ("sources: {a: {s3: {bucket: abc, path_style: maybe}}}", "sources.a.s3.path_style", 1, "true or false", ""),
    ("sources: {a: {s3: {bucket: abc, poll_interval: 3x}}}", "sources.a.s3.poll_interval", 1, "no duration", "30s"),
    ("sources: {a: {s3: {bucket: abc, poll_interval: -1}}}", "sources.a.s3.poll_interval", 1, "0 or more", ""),
    ("sources: {a: {s3: {bucket: abc, role_arn: reader}}}", "sources.a.s3.role_arn", 1, "no role", "arn:aws:iam::1234"),
    ("sources: {a: {s3: {bucket: abc, external_id: xyz}}}", "sources.a.s3", 1, "external_id is of a role", "role_arn"),
    (
        "sources: {a: {s3: {bucket: abc, role_arn: 'arn:aws:iam::1:role/r', role_session_name: a b}}}",
        "sources.a.s3.role_session_name",
        1,
        "no session name",
        "2 to 64",
    ),
    ("sources: {A B: {s3: {bucket: abc}}}", 'sources["A B"]', 1, "no name", "a-b"),
    ("sources: {a: {s3: {bucket: abc}, tenant: T 1}}", "sources.a.tenant", 1, "no name", "t-1"),
    ("sources: {a: {s3: {bucket: abc}, route: {'*.csv': Zip Codes}}}", 'sources.a.route["*.csv"]', 1, "", "zip-codes"),
    ("sources: {a: {s3: {bucket: abc}, route: [x]}}", "sources.a.route", 1, "must be a mapping", ""),
    ("sources: {a: {s3: {bucket: abc}, route: {}}}", "sources.a.route", 1, "matches no key", ""),
    ("sources: {a: {s3: {bucket: abc}, dataset: dlq}}", "sources.a", 1, "dead letters", "another"),
    ("sources: {a: {s3: {bucket: abc}, provenance: {who: x}}}", "sources.a.provenance", 1, "unknown prov", "purpose"),
    ("datasets:\n  a:\n    primary_key: id", "datasets.a.primary_key", 3, "must be a list", "[id]"),
    ("datasets:\n  a:\n    primary_kye: [id]", "datasets.a.primary_kye", 3, "unknown key", "primary_key"),
    ("datasets: {a: {fields: {z: {type: strin}}}}", "datasets.a.fields.z.type", 1, "'strin' is not known", "string"),
    ("datasets: {a: {fields: {z: int}}}", "datasets.a.fields.z", 1, "'int' is not known", "integer (one of"),
    ("datasets: {a: {fields: {z: {type: datetime}}}}", "datasets.a.fields.z.type", 1, "", "timestamp"),
    ("datasets: {a: {fields: {z: varchr}}}", "datasets.a.fields.z", 1, "", "decimal(10,2), json"),
    ("datasets: {a: {fields: {z: numeric}}}", "datasets.a.fields.z", 1, "'numeric' is not known", "decimal(10,2)"),
    ("datasets: {a: {fields: {z: 'numeric(9,4)'}}}", "datasets.a.fields.z", 1, "not known", "decimal(9,4)"),
    ("datasets: {a: {fields: {z: decimal}}}", "datasets.a.fields.z", 1, "needs its digits", "decimal(10,2)"),
    ("datasets: {a: {fields: {z: 'decimal(39,2)'}}}", "datasets.a.fields.z", 1, "1 to 38 digits, not 39", "(38,2)"),
    ("datasets: {a: {fields: {z: 'decimal(0,0)'}}}", "datasets.a.fields.z", 1, "1 to 38 digits", ""),
    ("datasets: {a: {fields: {z: {type: 'decimal(2,3)'}}}}", "datasets.a.fields.z.type", 1, "more than all 2", "(2,2)"),
    ("datasets: {a: {fields: {z: 'decimal(1,-1)'}}}", "datasets.a.fields.z", 1, "no decimal", "decimal(10,2)"),
    ("datasets: {a: {fields: {z: {scale: 2}}}}", "datasets.a.fields.z", 1, "those of a decimal", "decimal(10,2)"),
    ("datasets: {a: {fields: {z: {type: 'decimal(3,1)', max: 0.25}}}}", "datasets.a.fields.z", 1, "max: '0.25'", ""),
    ("datasets: {a: {fields: {z: {type: 'decimal(3,1)', min: 2, max: 1}}}}", "datasets.a.fields.z", 1, "more than", ""),
    ("datasets: {a: {fields: {z: {type: json, enum: [1]}}}}", "datasets.a.fields.z", 1, "enum can't", "type: string"),
    ("datasets: {a: {fields: {z: {type: json, regex: x}}}}", "datasets.a.fields.z", 1, "regex can't", "type: string"),
    ("datasets: {a: {fields: {z: 5}}}", "datasets.a.fields.z", 1, "a type or a mapping", "string"),
    ("datasets: {a: {fields: {z: {lenght: 5}}}}", "datasets.a.fields.z.lenght", 1, "unknown key", "length"),
    ("datasets: {a: {fields: {z: {length: x}}}}", "datasets.a.fields.z.length", 1, "whole number", ""),
    ("datasets: {a: {fields: {_z: string}}}", "datasets.a.fields._z", 1, "platform's", ""),
    ("datasets: {a: {fields: {z: {type: float, regex: x}}}}", "datasets.a.fields.z", 1, "regex can't", "type: string"),
    ("datasets: {a: {fields: {z: {min: 1}}}}", "datasets.a.fields.z", 1, "min/max can't", "integer or"),
    ("datasets: {a: {fields: {z: {regex: '(?=a)'}}}}", "datasets.a.fields.z", 1, "regex", "RE2"),
    ("datasets: {a: {fields: {z: {type: integer, min: 5, max: 1}}}}", "datasets.a.fields.z", 1, "more than max", ""),
    ("datasets: {a: {fields: {z: {type: date, min: 1.1.}}}}", "datasets.a.fields.z", 1, "is no date", "2024-01-31"),
    ("datasets: {a: {fields: {z: {min_length: 9, max_length: 1}}}}", "datasets.a.fields.z", 1, "more than", ""),
    ("datasets: {a: {fields: {z: {type: timestamp, timezone: Mars}}}}", "datasets.a.fields.z", 1, "timezone", "Berlin"),
    ("datasets: {a: {fields: {z: {enum: []}}}}", "datasets.a.fields.z", 1, "allows no value", ""),
    ("datasets: {a: {fields: {y: {from: Q}, z: {from: Q}, '*': string}}}", "datasets.a.fields.z", 1, "already", ""),
    ("datasets: {a: {fields: {y: {from: z}, z: string, '*': string}}}", "datasets.a.fields.z", 1, "already", ""),
    ("datasets: {a: {on_extra: ignore}}", "datasets.a.on_extra", 1, "'ignore'", "discard_value"),
    ("datasets: {a: {dedupe: {keys: id}}}", "datasets.a.dedupe.keys", 1, "must be a list", "[id]"),
    ("datasets: {a: {dedupe: {keys: []}}}", "datasets.a.dedupe.keys", 1, "same row", "all"),
    ("datasets: {a: {dedupe: {keys: [a, a]}}}", "datasets.a.dedupe", 1, "twice", "once"),
    ("datasets: {a: {dedupe: {error_rate: 2}}}", "datasets.a.dedupe.error_rate", 1, "less than 1", "0.01"),
    (
        "datasets:\n  a:\n    primary_key: [k]\n    dedupe: {keys: [b]}",
        "datasets.a.dedupe.keys",
        4,
        "must contain the primary key",
        "add k",
    ),
    (
        "datasets:\n  a:\n    fields: {a: string}\n    primary_key: [k]",
        "datasets.a.primary_key",
        4,
        "no such field: k",
        "a",
    ),
    ("datasets: {a: {csv: {delimiter: \\t}}}", "datasets.a.csv.delimiter", 1, "at most 1", '"\\t"'),
    ("datasets: {a: {csv: {encoding: UTF-16}}}", "datasets.a.csv.encoding", 1, "UTF-16 is not read", "iconv -f UTF-16"),
    (
        "datasets: {a: {csv: {encoding: shift_jis}}}",
        "datasets.a.csv.encoding",
        1,
        "look like a quote",
        "iconv -f shift",
    ),
    ("datasets: {a: {csv: {encoding: GBK}}}", "datasets.a.csv.encoding", 1, "look like a quote", "iconv -f GBK"),
    ("datasets: {a: {csv: {encoding: cp037}}}", "datasets.a.csv.encoding", 1, "cp037 is not read", "iconv"),
    ("datasets: {a: {csv: {encoding: rot13}}}", "datasets.a.csv.encoding", 1, "rot13 is not read", ""),
    ("datasets: {a: {csv: {encoding: latin-99}}}", "datasets.a.csv.encoding", 1, "no encoding", "windows-1252"),
    ("datasets: {a: {csv: {header: false}}}", "datasets.a.csv", 1, "without a header", "fields"),
    ("datasets: {dlq: {}}", "datasets.dlq", 1, "dead letters", "dlq-data"),
    ("sinks: {a: {parquet: {uri: /tmp/x}}}", "sinks.a.parquet.uri", 1, "no S3 address", "s3://bucket"),
    ("sinks: {a: {parquet: {uri: 's3://out', max_bytes: 12 q}}}", "sinks.a.parquet.max_bytes", 1, "no size", "16MiB"),
    ("sinks: {a: {parquet: {uri: 's3://out', batch_size: 0}}}", "sinks.a.parquet.batch_size", 1, "more than 0", ""),
    ("sinks: {a: {from: dead_letters, parquet: {uri: 's3://out'}}}", "sinks.a.from", 1, "not known", "dlq"),
    (
        "datasets: {a: {primary_key: [i], revision: r, fields: {i: string, r: json, '*': string}}}",
        "datasets.a.revision",
        1,
        "no order",
        "a number",
    ),
    ("sinks: {a: {}}", "sinks.a", 1, "says nowhere to write", "parquet: {uri: s3://bucket/prefix/}"),
    ("sinks: {a: }", "sinks.a", 1, "says nowhere to write", "postgres: {dsn:"),
    ("sinks: {a: {postgres: {}, parquet: {uri: 's3://out'}}}", "sinks.a", 1, "parquet and postgres at once", "one of"),
    ("sinks: {a: {postgres: {dsn: localhost}}}", "sinks.a.postgres.dsn", 1, "no address of Postgres", "postgresql://"),
    ("sinks: {a: {postgres: {alter: all}}}", "sinks.a.postgres.alter", 1, "not known", "additive, none"),
    ("sinks: {a: {postgres: {on_outage: skip}}}", "sinks.a.postgres.on_outage", 1, "not known", "dead_letter"),
    ("sinks: {a: {postgres: {batchSize: 0}}}", "sinks.a.postgres.batchSize", 1, "more than 0", ""),
    ("sinks: {a: {postgres: {schema: ''}}}", "sinks.a.postgres.schema", 1, "no name of Postgres", "63 bytes"),
    ("sinks: {a: {postgres: {table: x}}}", "sinks.a.postgres.table", 1, "one dataset", "datasets: [name]"),
    ("sinks: {a: {postgres: {}, from: dlq}}", "sinks.a.from", 1, "not dead letters", "parquet"),
    ("sinks: {a: {postgres: {}}, b: {postgres: {}}}", "sinks.b.postgres", 1, "sink a writes the same tables", "schema"),
    ("sinks: {chunk-downloader: {parquet: {uri: 's3://out'}}}", "sinks.chunk-downloader", 1, "consumer group", ""),
    ("datasets: {a: {}}\nsources: {}\ndatasets: {b: {}}", "", 1, "`datasets` is written twice, in lines 1 and 3", ""),
    ("datasets:\n  a: {on_extra: freeze,\n      onExtra: freeze}", "datasets.a.on_extra", 2, "camelCase", "one of"),
    ("datasets:\n  a:\n\tb: {}", "", 3, "not valid YAML", "spaces, not with tabs"),
    ("sources: {a: {s3: {bucket: ${B}}}}", "", 1, "not valid YAML", "quotes"),
    ("sources:\n  a: {route: {*.csv: x}}", "", 2, "not valid YAML", "quotes"),
    ("a: &a [*a]", "", 1, "not valid YAML", ""),
    ("services: {chunk-downlader: {}}", "services.chunk-downlader", 1, "unknown service", "chunk-downloader"),
    ("services:\n  chunk-downloader:\n    chunksize: 1", "services.chunk-downloader.chunksize", 3, "", "chunk_size"),
    ("services: {chunk-downloader: {chunk_size: 8 q}}", "services.chunk-downloader.chunk_size", 1, "no size", ""),
    ("services: {chunk-downloader: {maxWorkers: 0}}", "services.chunk-downloader.maxWorkers", 1, "", ""),
    ("services: {chunk-downloader: 5}", "services.chunk-downloader", 1, "must be a mapping", "chunk_size"),
]


@pytest.mark.parametrize(("text", "path", "line", "message", "instead"), ERRORS, ids=lambda value: str(value)[:48])
def test_a_mistake_is_told_with_place_and_advice(
    write: Write, services: Services, text: str, path: str, line: int, message: str, instead: str
) -> None:
    file = write(text)
    errors = [p for p in problems([file], services) if p.level is Level.ERROR]
    assert [(p.path, p.line) for p in errors] == [(path, line)], [str(p) for p in errors]
    assert message in errors[0].message
    assert instead in errors[0].instead
    assert errors[0].file == str(file)
    with pytest.raises(ConfigError):
        load([file], services)


def test_a_decimal_cut_off_by_a_comma_is_told_to_be_quoted(write: Write) -> None:
    found = problems([write("datasets: {a: {fields: {z: decimal(10,2)}}}")])
    assert "in quotes" in found[0].instead


SOURCE = "sources: {s: {s3: {bucket: lake, prefix: raw/}}}\n"

OVERLAPS = [
    ("s3://lake/raw/", True),
    ("s3://lake/raw/out", True),
    ("s3://lake/", True),
    ("s3://lake", True),
    ("s3://lake/out/", False),
    ("s3://lake/rawish/", False),
    ("s3://lakes/raw/", False),
]


@pytest.mark.parametrize(("uri", "clashes"), OVERLAPS)
def test_a_sink_must_not_write_where_a_source_reads(write: Write, uri: str, clashes: bool) -> None:
    found = [
        p for p in problems([write(SOURCE + f"sinks: {{k: {{parquet: {{uri: '{uri}'}}}}}}")]) if "overlaps" in str(p)
    ]
    assert [(p.path, p.line, p.level) for p in found] == [("sinks.k.parquet.uri", 2, Level.ERROR)] * clashes


def test_the_same_bucket_name_at_another_endpoint_is_another_bucket(write: Write) -> None:
    text = SOURCE + "sinks: {k: {parquet: {uri: 's3://lake/raw/', endpoint_url: 'http://other'}}}"
    assert problems([write(text)]) == []


def test_two_sinks_must_not_write_the_same_rows_to_the_same_place(write: Write) -> None:
    text = """
        sinks:
          one: {parquet: {uri: "s3://out/a"}}
          dead: {from: dlq, parquet: {uri: "s3://out/a/"}}
          two: {parquet: {uri: "s3://out/a/"}}
    """
    (found,) = problems([write(text)])
    assert (found.path, found.line) == ("sinks.two.parquet.uri", 5)
    assert "sink one" in found.message


def test_a_name_in_two_files_is_told_with_both_places(write: Write) -> None:
    first, second = write("\n\ndatasets: {a: {}}", "1.yaml"), write("datasets:\n  a: {}", "2.yaml")
    (found,) = problems([first, second])
    assert (found.file, found.path, found.line) == (str(second), "datasets.a", 2)
    assert f"{first}:3" in found.message


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file(write: Write) -> None:
    text = """
        sources:
          a: {s3: {bucket: abc, regoin: x}, tenent: t}
        datasets:
          b:
            primary_key: [nope]
            fields: {c: strin, d: {type: integer, lenght: 1}}
            on_extra: explode
        sinks:
          c: {parquet: {uri: nowhere, max_age: soon}}
    """
    found = problems([write(text)])
    assert [(p.line, p.path) for p in found if p.level is Level.ERROR] == [
        (3, "sources.a.s3.regoin"),
        (3, "sources.a.tenent"),
        (6, "datasets.b.primary_key"),
        (7, "datasets.b.fields.c"),
        (7, "datasets.b.fields.d.lenght"),
        (8, "datasets.b.on_extra"),
        (10, "sinks.c.parquet.uri"),
        (10, "sinks.c.parquet.max_age"),
    ]


WARNINGS = [
    ("datasets: {a: {primary_key: [k]}}", "datasets.a.primary_key", "counts as a repeat", "revision"),
    ("datasets: {a: {fields: {k: string}}}", "datasets.a.fields", "any other column", '"*": string'),
    (SOURCE + "datasets: {a: {}}", "datasets.a", "no source in these files leads here", "route"),
    (
        "sources: {s: {s3: {bucket: abc}, route: {'*': a, 'b*': b}}}",
        'sources.s.route["b*"]',
        "never reached",
        'above `"*"`',
    ),
    ("sources: {s: {s3: {bucket: abc}, route: {'*': a}, dataset: b}}", "sources.s.dataset", "not used", ""),
    (
        SOURCE + "sinks: {k: {parquet: {uri: 's3://out'}, datasets: [x]}}",
        "sinks.k.datasets",
        "no source in these files fills `x`",
        "",
    ),
    ("sources: {s: {s3: {bucket: abc, access_key_id: AKIA1}}}", "sources.s.s3.access_key_id", "clear text", "${"),
    ("http: {port: 1}", "http", "HTTP_WEBHOOK_SECRET", "scheme"),
    (
        "sources: {h: {http: {auth: {scheme: github, secrets: [hush]}}}}",
        "sources.h.http.auth.secrets",
        "clear text",
        "${SECRET}",
    ),
]


@pytest.mark.parametrize(("text", "path", "message", "instead"), WARNINGS, ids=lambda value: str(value)[:48])
def test_what_is_doubtful_is_a_warning_and_still_loads(
    write: Write, text: str, path: str, message: str, instead: str
) -> None:
    file = write(text)
    (found,) = problems([file])
    assert (found.path, found.level) == (path, Level.WARNING)
    assert message in found.message
    assert instead in found.instead
    assert load([file]).warnings == (found,)


SILENT = [
    "datasets: {a: {primary_key: [k], revision: v}}",
    "datasets: {a: {primary_key: [k], dedupe: {keys: [k]}}}",
    "datasets: {a: {dedupe: {keys: all}}}",
    "datasets: {a: {fields: {k: string}, on_extra: freeze}}",
    "datasets: {a: {fields: {k: string}, onExtra: discard_value}}",
    "datasets: {a: {fields: {k: string, '*': string}}}",
    "sources: {s: {s3: {bucket: abc}, route: {'a*': undeclared}}}",
    'datasets: {a: {csv: {delimiter: "\\t"}}}',
    "sources: {s: {s3: {bucket: abc, access_key_id: '${KEY}'}}}",
]


@pytest.mark.parametrize("text", SILENT)
def test_what_is_fine_is_not_talked_about(write: Write, text: str) -> None:
    assert problems([write(text)]) == []


def test_missing_references_are_warnings_of_the_place_that_names_them(write: Write, tmp_path: Path) -> None:
    text = f"""
        sources:
          s:
            s3:
              bucket: abc
              access_key_id: ${{KEY}}
              secret_access_key: ${{file:{tmp_path}/none}}
              region: ${{REGION:-eu}}
    """
    found = problems([write(text)], environ={"OTHER": "x"})
    assert [(p.line, p.level) for p in found] == [(6, Level.WARNING), (7, Level.WARNING)]
    assert "KEY is not set" in found[0].message
    assert "can't be read" in found[1].message
    assert len(problems([write(text)], environ={"KEY": "x"})) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "can't be read: No such file"), (b"a: \xff", "not UTF-8"), (b"\xef\xbb\xbfsurces: {}", "unknown key")],
)
def test_unreadable_files_are_problems_of_the_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "ingest.yaml"
    if content is not None:
        path.write_bytes(content)
    (found,) = problems([path])
    assert found.file == str(path)
    assert message in found.message


def test_a_small_file_that_expands_without_end_is_refused(write: Write) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (found,) = problems([write("\n".join(levels))])
    assert "endless" in found.message


def test_secrets_in_clear_text_are_never_repeated(write: Write) -> None:
    text = "sources: {s: {s3: {bucket: abc, secret_access_key: {hunter2: x}}}}\n"
    text += "sinks: {k: {parquet: {uri: 's3://out', secret_access_key: hunter3, secret_acess_key: hunter4}}}"
    told = "\n".join(str(problem) for problem in problems([write(text)]))
    assert "secret_access_key" in told
    assert not any(word in told for word in ("hunter2", "hunter3", "hunter4"))
