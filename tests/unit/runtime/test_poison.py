"""Whose rows a poison input held, as far as it can still say."""

import pyarrow as pa
import pytest

from ingestcore.messages import rows
from ingestcore.messages.objects import ObjectFacts, ObjectRef
from ingestcore.runtime.poison import condemn
from ingestcore.stage import At, Input, check

REF = ObjectRef("t", "s", "d", "bucket", "a.csv", "e1", 9, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")


def facts(name: str) -> ObjectFacts:
    return ObjectFacts(name * 32, "t", "s", "d@1", f"s3://bucket/{name}", "e", "2026-01-01T00:00:00Z", {})


def typed(*owners: str) -> bytes:
    column = pa.array([facts(name).encode() for name in owners]).dictionary_encode()
    return bytes(rows.write(pa.RecordBatch.from_arrays([column], names=[rows.OBJECT])))


@pytest.mark.parametrize(
    ("topic", "value", "headers", "owners"),
    [
        ("blocks", b"x", {"object": facts("a").encode(), "rows": "7"}, {"a" * 32: 7}),
        ("objects", REF.encode(), {}, {REF.id: 0}),
        ("typed", typed("a", "b", "a"), {"rows": "3"}, {"a" * 32: 2, "b" * 32: 1}),
        ("typed", b"not arrow", {"rows": "3"}, {"typed/1/5": 3}),
        ("objects", b"not a reference", {}, {"objects/1/5": 0}),
    ],
)
def test_the_letter_and_the_ledger_name_every_object_with_rows_in_it(
    topic: str, value: bytes, headers: dict[str, str], owners: dict[str, int]
) -> None:
    step = condemn(Input(At(topic, 1, 5), value, headers), "csv-parser", "boom")
    check(step)
    assert {line.origin.id: line.rows for line in step.tally} == owners
    (letter,) = step.rejects
    assert (letter.raw, letter.rows, letter.reentry) == (value, sum(owners.values()), topic)
    assert "boom" in letter.message
