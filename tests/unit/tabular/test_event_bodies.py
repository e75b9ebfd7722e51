"""Bodies of events: what is read, what is refused and why, and where `from:` leads."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestcore.datasets.event_paths import ATTRIBUTES, MISSING, path_of
from ingestcore.messages.events import STRUCTURED, Event, day_of
from ingestcore.tabular.event_body import MAX_DEPTH, Fault, Unfit, as_json, exact_payload, payload, read_object

RECEIVED = "2026-01-02T03:04:05.678Z"
DAY = day_of(tenant="default", source="shop", dataset="orders@1", received=RECEIVED, provenance={})
EVENT = Event(id="e1", source="/shop", type="t", body=b"{}", object=DAY, received=RECEIVED)

BODY = {
    "issue": {"id": 7, "fields": [{"name": "a"}, {"name": None}], "a.b": {"c": 1}},
    "x[0]": 2,
    "Cost $": 3,
    "n": None,
}


@pytest.mark.parametrize(
    ("from_", "value"),
    [
        ("issue.id", 7),
        ("$.issue.id", 7),
        ("issue.fields[0].name", "a"),
        ("issue.fields[1].name", None),
        ("issue.fields[2].name", MISSING),
        ("issue.fields.name", MISSING),
        ("issue.id.more", MISSING),
        ("issue.id[0]", MISSING),
        ('issue["a.b"].c', 1),
        ('["x[0]"]', 2),
        ('$["x[0]"]', 2),
        ("Cost $", 3),
        ("n", None),
        ("n.id", MISSING),
        ("nothing", MISSING),
        ("issue.fields", [{"name": "a"}, {"name": None}]),
        ("$", BODY),
    ],
)
def test_a_path_leads_to_its_value(from_: str, value: object) -> None:
    assert path_of("field", from_).find(BODY) == value


def test_without_from_a_field_is_the_member_of_its_name() -> None:
    assert path_of("x[0]", None).find(BODY) == 2
    assert path_of("issue.id", None).find(BODY) is MISSING


def test_attributes_are_no_part_of_the_body() -> None:
    assert {path_of("f", name).attribute for name in ATTRIBUTES} == set(ATTRIBUTES)


@pytest.mark.parametrize(
    "from_", ["", "a..b", "a.", ".a", "a[x]", "a[0", "a[-1]", "[0]", "$.", "$..a", "a[0]b", '["a]', '["\\x"]', "$x"]
)
def test_what_is_no_path_is_refused_with_advice(from_: str) -> None:
    with pytest.raises(ValueError, match=r"from: |empty path"):
        path_of("field", from_)


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", Fault.EMPTY),
        (b" \n", Fault.EMPTY),
        (b"{", Fault.INVALID_JSON),
        (b'{"a":1}x', Fault.INVALID_JSON),
        (b'{"a":1}{"a":1}', Fault.INVALID_JSON),
        (b"{'a':1}", Fault.INVALID_JSON),
        (b'{"a":01}', Fault.INVALID_JSON),
        (b'{"a":1,}', Fault.INVALID_JSON),
        (b'\xef\xbb\xbf{"a":1}', Fault.INVALID_JSON),
        (b'{"a":"\xff"}', Fault.NOT_UTF8),
        (b'{"a":"\xed\xa0\x80"}', Fault.NOT_UTF8),
        ('{"a":1}'.encode("utf-16"), Fault.NOT_UTF8),
        (b'{"a":NaN}', Fault.NOT_A_NUMBER),
        (b'{"a":[Infinity]}', Fault.NOT_A_NUMBER),
        (b'{"a":-Infinity}', Fault.NOT_A_NUMBER),
        (b'{"a":1e400}', Fault.NUMBER_OUT_OF_RANGE),
        (b'{"a":-1e400}', Fault.NUMBER_OUT_OF_RANGE),
        (b'{"a":"\\ud800"}', Fault.LONE_SURROGATE),
        (b'{"a":"\\udc00"}', Fault.LONE_SURROGATE),
        (b'{"\\ud800x":1}', Fault.LONE_SURROGATE),
        (b'{"a":"\x00"}', Fault.NUL),
        (b'{"a":1}\x00', Fault.NUL),
        (b'{"a":"x\\u0000y"}', Fault.NUL),
        (b'{"a":[{"\\u0000":1}]}', Fault.NUL),
        (b'{"a":1,"a":1}', Fault.DUPLICATE_NAME),
        (b'{"x":{"a":1,"b":2,"a":{"c":1}}}', Fault.DUPLICATE_NAME),
        (b'{"a":1,"\\u0061":2}', Fault.DUPLICATE_NAME),
        (b'{"a":"\\u003a","a":"\\u003A:"}', Fault.DUPLICATE_NAME),
        (b'{"a":%s,"a":1}' % (b"1" * 300), Fault.DUPLICATE_NAME),
        (b"[1]", Fault.NOT_AN_OBJECT),
        (b'"a"', Fault.NOT_AN_OBJECT),
        (b"null", Fault.NOT_AN_OBJECT),
        (b"true", Fault.NOT_AN_OBJECT),
        (b"1", Fault.NOT_AN_OBJECT),
        (nested(MAX_DEPTH + 1), Fault.TOO_DEEP),
        (nested(10_000), Fault.TOO_DEEP),
        (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", Fault.TOO_DEEP),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", Fault.TOO_DEEP),
    ],
)
def test_what_is_no_object_is_refused_with_its_fault(body: bytes, fault: Fault) -> None:
    with pytest.raises(Unfit) as caught:
        read_object(body)
    assert caught.value.fault is fault
    assert str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b' {"a": "x:\\u003a:y", "b": {"a": ":"}} \n',
        b'{"a":"\\\\u0000 is an escape"}',
        b'{"a":"\\ud83d\\ude00"}',
        b'{"a":1e-400,"b":-0}',
        nested(MAX_DEPTH),
        b'{"a":[' + b"[]," * 500 + b"[]]}",
        b'{"":1}',
        b'{"a":"\\u003a","b":1234567890123456}',
    ],
)
def test_an_object_is_read_as_it_is(body: bytes) -> None:
    assert read_object(body) == json.loads(body)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), JSONS), st.booleans()
)
def test_every_sound_object_is_read(value: dict[str, Any], ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert read_object(body) == value
    assert json.loads(as_json(exact_payload(replace(EVENT, body=body)))) == value


def envelope(**more: Any) -> Event:
    body = json.dumps({"specversion": "1.0", "id": "e1", "source": "/shop", "type": "t", **more}).encode()
    return replace(EVENT, body=body, content_type=f"{STRUCTURED}; charset=utf-8")


def test_of_a_structured_event_the_data_counts() -> None:
    assert payload(envelope(data={"a": 1})) == {"a": 1}
    assert payload(envelope(data_base64=base64.b64encode(b'{"a":1.50}').decode())) == {"a": 1.5}
    assert as_json(exact_payload(envelope(data_base64=base64.b64encode(b'{"a":1.50}').decode()))) == b'{"a":1.50}'
    assert payload(replace(envelope(data={"a": 1}), content_type="application/json"))["specversion"] == "1.0"


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({}, Fault.NO_DATA),
        ({"data": [1]}, Fault.NOT_AN_OBJECT),
        ({"data": None}, Fault.NOT_AN_OBJECT),
        ({"data_base64": "!"}, Fault.INVALID_JSON),
        ({"data_base64": 1}, Fault.INVALID_JSON),
        ({"data_base64": base64.b64encode(b'{"a":1,"a":1}').decode()}, Fault.DUPLICATE_NAME),
    ],
)
def test_a_structured_event_without_an_object_is_refused(more: dict[str, Any], fault: Fault) -> None:
    with pytest.raises(Unfit) as caught:
        payload(envelope(**more))
    assert caught.value.fault is fault


def test_numbers_are_told_as_they_are_written_where_that_is_asked_for() -> None:
    body = b'{"a":1.50,"b":[1E2,123456789012345678901234567890],"c":{"d":-0.0,"e":18446744073709551615}}'
    assert as_json(exact_payload(replace(EVENT, body=body))) == body
