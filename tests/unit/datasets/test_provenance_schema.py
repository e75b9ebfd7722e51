"""ProvenanceMetadata: the JSON Schema, the Arrow type and the entries made of a source's facts agree."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestcore.datasets import provenance
from ingestcore.datasets.provenance import provenance_problem, source_metadata, source_provenance_problem
from ingestcore.messages.rows import PROVENANCE_TYPE
from ingestcore.testing.typed_rows import facts_of

SCHEMA: dict[str, Any] = orjson.loads(provenance._schema_bytes())
WHOLE = {
    "sourceId": "s3-main",
    "sourceType": "S3",
    "sourceUri": "s3://lake/raw/a b+%.csv",
    "contentHash": "0" * 64,
    "hashAlgorithm": "SHA-256",
    "ingestedAt": "2024-05-01T12:00:00Z",
    "purpose": "INV-7",
    "ingestedBy": "data-eng",
}


def test_schema_and_arrow_type_have_the_same_fields() -> None:
    assert set(SCHEMA["properties"]) == {field.name for field in PROVENANCE_TYPE}
    assert set(SCHEMA["required"]) == {field.name for field in PROVENANCE_TYPE if not field.nullable}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ingestedAt": "2024-05-01T12:00:00.123456+02:00"},
        {"sourceType": "HTTP"},
        {"sourceType": "MANUAL"},
        {"observedAt": "2024-02-29T00:00:00Z", "classification": "secret", "parentId": "p", "batchId": "b"},
        {"transformations": []},
        {"observedAt": None, "transformations": None},
    ],
    ids=str,
)
def test_valid_entries_pass(change: dict[str, Any]) -> None:
    assert provenance_problem(WHOLE | change) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"purpose": None}, "'purpose' is a required property"),
        ({"ingestedBy": None}, "'ingestedBy' is a required property"),
        ({"contentHash": None}, "'contentHash' is a required property"),
        ({"sourceType": "FTP"}, "provenance.sourceType: 'FTP' is not one of"),
        ({"contentHash": "0" * 63}, "64 lower-case hex digits"),
        ({"contentHash": "G" * 64}, "64 lower-case hex digits"),
        ({"hashAlgorithm": "MD5"}, "provenance.hashAlgorithm"),
        ({"ingestedAt": "yesterday"}, "ISO 8601"),
        ({"ingestedAt": "2024-05-01"}, "ISO 8601"),
        ({"ingestedAt": "2024-05-01T12:00:00"}, "ISO 8601"),
        ({"observedAt": "2024-13-01T12:00:00Z"}, "ISO 8601"),
        ({"purpose": ""}, "provenance.purpose"),
        ({"transformations": "csv"}, "provenance.transformations"),
        ({"colour": "red"}, "'colour' was unexpected"),
    ],
    ids=str,
)
def test_invalid_entries_are_named(change: dict[str, Any], says: str) -> None:
    problem = provenance_problem(WHOLE | change)
    assert problem is not None and says in problem


def test_without_provenance_a_source_has_defaults() -> None:
    entry = source_metadata(facts_of("a.csv"))
    assert (entry["purpose"], entry["ingestedBy"]) == ("default", "ingest-platform")
    assert entry["batchId"] == facts_of("a.csv").id


_NAMES = ("purpose", "classification", "ingestedBy", "parentId", "batchId")


@given(st.dictionaries(st.sampled_from(_NAMES), st.text(min_size=1, max_size=20)))
def test_every_entry_made_of_an_accepted_source_is_valid(given_: dict[str, str]) -> None:
    assert source_provenance_problem(given_) is None
    entry = source_metadata(facts_of("a.csv", **given_)) | {"contentHash": "f" * 64}
    assert provenance_problem(entry) is None
    assert {name: entry[name] for name in given_} == given_


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"observedAt": "last week"}, "provenance.observedAt: 'last week' is not of the right form: ISO 8601"),
        ({"purpose": ""}, "provenance.purpose is empty: write a value or leave it out"),
    ],
)
def test_a_sources_provenance_is_judged_before_any_row(given_: dict[str, str], says: str) -> None:
    problem = source_provenance_problem(given_)
    assert problem is not None and says in problem
