"""Events against the fields of a dataset: the same verdicts, values and keys as for rows of files."""

from __future__ import annotations

import datetime as dt
import json
import random
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.messages.events import Event, day_of
from ingestcore.messages.objects import ObjectFacts
from ingestcore.reasons import Reason
from ingestcore.tabular.block import parse_block
from ingestcore.tabular.events import BadEvent, EventReader, ParsedEvents
from ingestcore.tabular.keys import Owner, event_keys, keys
from ingestcore.tabular.plan import Plan
from ingestcore.tabular.reader import Reader

RECEIVED = "2026-01-02T03:04:05.678Z"
DAY = day_of(tenant="default", source="shop", dataset="orders@1", received=RECEIVED, provenance={})


def event(body: object, id: str = "e1", **more: Any) -> Event:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Event(id=id, source="/shop", type="t", body=raw, object=DAY, received=RECEIVED, **more)


def spec_of(fields: dict[str, Any], **more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate({"fields": fields} | more)


def read(fields: dict[str, Any], *bodies: object, **more: Any) -> ParsedEvents:
    return EventReader(spec_of(fields, **more)).read([event(body) for body in bodies])


def row(fields: dict[str, Any], body: object, **more: Any) -> dict[str, Any]:
    parsed = read(fields, body, **more)
    assert parsed.bad == ()
    (made,) = parsed.rows
    return made.rows.to_pylist()[0]


def refusal(fields: dict[str, Any], body: object, **more: Any) -> BadEvent:
    parsed = read(fields, body, **more)
    assert sum(made.rows.num_rows for made in parsed.rows) == 0
    return parsed.bad[0]


# -- values


@pytest.mark.parametrize(
    ("type", "written", "value"),
    [
        ("string", '"ü"', "ü"),
        ("string", '""', ""),
        ("string", "null", None),
        ("string", "1.50", "1.50"),
        ("string", "1E2", "1E2"),
        ("string", "12345678901234567890.10", "12345678901234567890.10"),
        ("string", "true", "true"),
        ("string", '{"b": 1.50, "a": [null]}', '{"b":1.5,"a":[null]}'),
        ("string", '[12345678901234567890123]', "[12345678901234567890123]"),
        ("integer", "7", 7),
        ("integer", '"+7"', 7),
        ("integer", '""', None),
        ("integer", "-9223372036854775808", -(2**63)),
        ("float", "1", 1.0),
        ("float", "1.5e3", 1500.0),
        ("float", '"1.5e3"', 1500.0),
        ("float", "9007199254740993", 9007199254740992.0),
        ("float", "123456789012345678901234567890", 1.2345678901234568e29),
        ("decimal(6,2)", "1.5", Decimal("1.50")),
        ("decimal(6,2)", "7", Decimal("7.00")),
        ("decimal(6,2)", '"1.500"', Decimal("1.50")),
        ("decimal(24,2)", "1234567890123456789012.25", Decimal("1234567890123456789012.25")),
        ("decimal(9,8)", "0.00000001", Decimal("0.00000001")),
        ("boolean", "true", True),
        ("boolean", '"yes"', True),
        ("boolean", "0", False),
        ("boolean", "null", None),
        ("date", '"2024-02-29"', dt.date(2024, 2, 29)),
        ("timestamp", '"2024-01-05T10:30:15+02:00"', dt.datetime(2024, 1, 5, 8, 30, 15, tzinfo=dt.UTC)),
        ("json", '{"b": 1.50, "a": [null]}', '{"b":1.5,"a":[null]}'),
        ("json", '"x"', '"x"'),
        ("json", "[12345678901234567890.123]", "[12345678901234567890.123]"),
        ("json", "null", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("beside", [[], ["null"], ['"x"', "1", "2.5", "true", "[1]"]])
def test_a_value_is_read_the_same_whatever_stands_beside_it(
    type: str, written: str, value: object, beside: list[str]
) -> None:
    bodies = [b'{"v": %s}' % text.encode() for text in (written, *beside)]
    parsed = EventReader(spec_of({"v": type})).read([event(body) for body in bodies])
    (made,) = parsed.rows
    assert made.places[0] == 0
    found = made.rows.column("v")[0].as_py()
    assert found == value and isinstance(found, value.__class__)


@pytest.mark.parametrize(
    ("type", "written"),
    [
        ("integer", "7.0"), ("integer", "1e2"), ("integer", "true"), ("integer", '"0x1F"'), ("integer", "[]"),
        ("integer", "9223372036854775808"), ("integer", "123456789012345678901234567890"), ("float", "true"),
        ("float", '"NaN"'), ("float", "{}"), ("decimal(6,2)", "1.505"), ("decimal(6,2)", "1e2"), ("boolean", "2"),
        ("decimal(6,2)", "12345678"), ("boolean", '"maybe"'), ("date", '"2024-02-30"'), ("date", "20240101"),
        ("timestamp", "1700000000"), ("timestamp", '"2024-01-05"'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("beside", [[], ["null", '"x"', "1", "2.5", "true"]])
def test_a_value_of_another_type_is_refused_with_its_column(type: str, written: str, beside: list[str]) -> None:
    bodies = [b'{"v": %s}' % text.encode() for text in (written, *beside)]
    parsed = EventReader(spec_of({"v": type})).read([event(body) for body in bodies])
    bad = parsed.bad[0]
    assert (bad.place, bad.reason, bad.column) == (0, Reason.VALIDATION_FAIL, "v")
    assert bad.message.startswith("v is not ")
    assert bad.value == written.strip('"'), "as the producer wrote it"


TEXTS = {
    "integer": ["1", "007", "+4", " 12 ", "", "0x1F", "1.0", "abc", "9223372036854775808", " ", "--1", "٣"],
    "float": ["1", "-.5", "1e3", "+2.", "1e-400", "-0.0", "", "inf", "nan", "1e400", "1,5", ".", "0x1p3"],
    "decimal(6,2)": ["1.50", ".5", "+0009999.990", " 1.", "-50", "", "1.505", "10000", "1e1", "1" * 45],
    "boolean": ["true", "FALSE", "y", "N", "1", " t ", "", "maybe", "2"],
    "date": ["2024-02-29", " 2024-01-01", "", "2024-02-30", "0000-01-01", "2024-01-05T00:00:00"],
    "timestamp": ["2024-01-05T10:30:15", "2024-01-05 10:30", "2024-01-05T10Z", "", "2024-01-05", "2024-13-05T10:30"],
    "json": ["1", '{"a": [1]}', ""],
}


@pytest.mark.parametrize("type", [type for type in TEXTS if type != "json"])
def test_a_text_in_an_event_is_judged_as_in_a_file(type: str) -> None:
    spec = spec_of({"id": "integer", "v": type})
    plan = Plan.of(spec, ("id", "v"))
    csv = "".join(f'{n},"{text}"\n' for n, text in enumerate(TEXTS[type])).encode()
    from_file = parse_block(csv, Reader(plan), plan)
    events = [event({"id": n, "v": text}) for n, text in enumerate(TEXTS[type])]
    from_events = EventReader(spec).read(events)
    assert from_events.rows[0].rows.equals(from_file.rows)
    told = [(bad.place, bad.column, bad.message, bad.value) for bad in from_events.bad]
    assert told == [(bad.ordinal, bad.column, bad.message, bad.value) for bad in from_file.bad]


def test_rules_are_the_same_and_the_first_broken_one_is_told() -> None:
    fields = {"n": {"type": "integer", "nullable": False, "min": 1}, "s": {"regex": "[a-z]+", "max_length": 3}}
    bodies = [{"n": 1, "s": "abc"}, {"n": None, "s": "x"}, {"n": 0, "s": "X"}, {"n": 2, "s": "abcd"}]
    parsed = read(fields, *bodies)
    assert [(bad.place, bad.message) for bad in parsed.bad] == [
        (1, "n must not be null"),
        (2, "n must be at least 1"),
        (3, "s must have at most 3 characters"),
    ]


def test_booleans_of_json_are_these_whatever_words_the_field_has() -> None:
    fields = {"b": {"type": "boolean", "true": ["J"], "false": ["N"]}}
    parsed = read(fields, {"b": "J"}, {"b": True}, {"b": False}, {"b": "true"}, {"b": None})
    assert parsed.rows[0].rows.column("b").to_pylist() == [True, True, False, None]
    assert [bad.place for bad in parsed.bad] == [3]


# -- where values are


def test_paths_attributes_and_the_whole_body_become_columns() -> None:
    fields = {
        "id": {"from": "issue.id", "type": "integer"},
        "first": {"from": "issue.labels[0].name"},
        "labels": {"from": "issue.labels", "type": "json"},
        "all": {"from": "$", "type": "json"},
        "event": {"from": "$event_id"},
        "kind": {"from": "$event_type"},
        "at": {"from": "$event_time", "type": "timestamp", "required": False},
        "received": {"from": "$event_received", "type": "timestamp"},
    }
    body = {"issue": {"id": 7, "labels": [{"name": "bug"}]}, "more": 1}
    made = EventReader(spec_of(fields)).read([event(body, time="2026-01-01T00:00:00Z")]).rows[0].rows.to_pylist()[0]
    assert made == {
        "id": 7,
        "first": "bug",
        "labels": '[{"name":"bug"}]',
        "all": '{"issue":{"id":7,"labels":[{"name":"bug"}]},"more":1}',
        "event": "e1",
        "kind": "t",
        "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "received": dt.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=dt.UTC),
    }


def test_a_missing_member_is_null_where_it_is_not_required() -> None:
    fields = {"a": "integer", "b": {"from": "x.b", "required": False}}
    assert row(fields, {"a": 1, "x": {}}) == row(fields, {"a": 1}) == {"a": 1, "b": None}
    assert row(fields, {"a": None, "x": None}) == {"a": None, "b": None}
    bad = refusal(fields, {"x": {"b": "y"}})
    assert (bad.reason, bad.column) == (Reason.SCHEMA_DRIFT, "a")
    assert "nothing stands at 'a'" in bad.message and "`required: false`" in bad.message


@pytest.mark.parametrize(
    ("fields", "more", "body", "words"),
    [
        ({"a": "integer"}, {}, {"a": 1, "b": 2}, "'b'"),
        ({"a": "integer", "*": "string"}, {}, {"a": 1, "_b": 2}, "start with _"),
        ({"a": "integer", "*": "string"}, {}, {"a": 1, "": 2}, "empty"),
        ({"a": {"from": "x"}, "*": "string"}, {}, {"x": 1, "a": 2}, "'a' would go out under the name"),
        ({"a": "integer", "*": "string"}, {"primary_key": ["k"]}, {"a": 1, "b": 2}, "key column missing: 'k'"),
    ],
)
def test_members_that_do_not_fit_are_drift(
    fields: dict[str, Any], more: dict[str, Any], body: object, words: str
) -> None:
    bad = refusal(fields, body, **more)
    assert bad.reason is Reason.SCHEMA_DRIFT
    assert words in bad.message


def test_further_members_are_left_out_or_become_columns_as_the_dataset_says() -> None:
    assert row({"a": "integer"}, {"a": 1, "b": 2}, on_extra="discard_value") == {"a": 1}
    assert row({"a": "integer", "all": {"from": "$", "type": "json"}}, {"a": 1, "b": 2})["all"] == '{"a":1,"b":2}'
    assert row({"a": "integer", "*": "string"}, {"c": {"x": 1}, "b": 2, "a": 1}) == {"a": 1, "b": "2", "c": '{"x":1}'}
    assert row({}, {"c": True, "b": None}) == {"b": None, "c": "true"}


def test_events_with_other_members_are_rows_of_another_schema() -> None:
    """So that a row's key, where that is its content, never depends on the events beside it."""
    parsed = read({}, {"a": 1}, {"b": 1}, {"a": 2}, {"a": 1, "b": None})
    assert {tuple(made.rows.schema.names): made.places.tolist() for made in parsed.rows} == {
        ("a",): [0, 2],
        ("b",): [1],
        ("a", "b"): [3],
    }


def test_a_bad_event_never_takes_others_with_it() -> None:
    chance = random.Random(7)
    bodies: list[Any] = [{"id": n, "v": n / 4} for n in range(200)]
    wrong = [b"", b"[]", b'{"id":1,"id":2}', {"id": "x", "v": 1}, {"v": 1}, {"id": 1, "v": 1, "w": 1}, b'{"id":NaN}']
    places = sorted(chance.sample(range(200), 70))
    for place in places:
        bodies[place] = chance.choice(wrong)
    fields = {"id": "integer", "v": "float"}
    together = read(fields, *bodies)
    assert [bad.place for bad in together.bad] == places
    assert together.rows[0].places.tolist() == [n for n in range(200) if n not in places]
    for place in places:
        (alone,) = read(fields, bodies[place]).bad
        found = next(bad for bad in together.bad if bad.place == place)
        assert (alone.reason, alone.message, alone.fault) == (found.reason, found.message, found.fault)


@pytest.mark.parametrize("from_", ["a..b", "$nothing", "[0]"])
def test_a_spec_that_is_none_for_events_says_so(from_: str) -> None:
    with pytest.raises(ValueError, match="field a: from: "):
        EventReader(spec_of({"a": {"from": from_}}))


# -- keys

FACTS = ObjectFacts("0" * 32, "default", "files", "orders@1", "s3://b/k", "e", "2026-01-01T00:00:00Z", {})
CSV_OWNER, EVENT_OWNER = Owner.of(FACTS), Owner.of_events(DAY)


@pytest.mark.parametrize("dedupe", [{"keys": "all"}, {"keys": ["id"]}, {"keys": ["id", "f", "d", "j", "t"]}])
def test_a_row_of_a_file_and_an_event_with_the_same_values_have_one_key(dedupe: dict[str, Any]) -> None:
    fields = {"id": "integer", "f": "float", "d": "decimal(6,2)", "j": "json", "t": "timestamp"}
    spec = spec_of(fields, dedupe=dedupe, primary_key=["id"])
    plan = Plan.of(spec, tuple(fields))
    csv = b'7,1.0,1.50,"{""b"": 1, ""a"": 2.50}",2024-01-05T10:30:15Z\n'
    from_file = parse_block(csv, Reader(plan), plan).rows.combine_chunks()
    body = b'{"t":"2024-01-05 10:30:15","j":{"a":2.5,"b":1},"d":1.5,"f":1,"id":7}'
    from_event = EventReader(spec).read([event(body)]).rows[0].rows.combine_chunks()
    one = keys(from_file, spec, [(CSV_OWNER, 1)], pa.array([1], pa.int64()))
    other = event_keys(from_event, spec, [(EVENT_OWNER, 1)], pa.array(["anything"]))
    assert (one.key, one.entity) == (other.key, other.entity)


def made_keys(spec: DatasetSpec, *events: Event, owner: Owner = EVENT_OWNER) -> list[tuple[bytes, bytes]]:
    rows = EventReader(spec).read(events).rows[0].rows.combine_chunks()
    found = event_keys(rows, spec, [(owner, len(events))], pa.array([e.identity for e in events]))
    return list(zip(found.entity.to_pylist(), found.key.to_pylist(), strict=True))


def test_without_listed_keys_an_event_is_the_key() -> None:
    spec = spec_of({"id": "integer"}, primary_key=["id"])
    first, again, other, moved = made_keys(
        spec, event({"id": 1}), event({"id": 1}), event({"id": 1}, id="e2"), event({"id": 2}, idempotency="k")
    )
    assert first == again
    assert first[0] == other[0] != moved[0], "one entity"
    assert len({first[1], other[1], moved[1]}) == 3
    (elsewhere,) = made_keys(spec, event({"id": 1}), owner=Owner("default", "orders", source="other"))
    assert elsewhere[0] == first[0] and elsewhere[1] != first[1]
    (keyless,) = made_keys(spec_of({"id": "integer"}), event({"id": 1}))
    assert keyless[0] == keyless[1] == first[1]
