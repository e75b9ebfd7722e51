"""ProvenanceMetadata: where a row comes from, as every sink carries it. `provenance.schema.json` is the judge."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import orjson
from jsonschema import Draft202012Validator

from ingestcore.messages.events import ENDPOINT, URI_SCHEME
from ingestcore.messages.objects import ObjectFacts

SCHEMA_FILE: Final = "provenance.schema.json"
DEFAULT_PURPOSE: Final = "default"
DEFAULT_INGESTED_BY: Final = "ingest-platform"


def source_metadata(facts: ObjectFacts) -> dict[str, Any]:
    """-> the entry of an object's rows, all but `contentHash`. Fields nobody set are absent.

    Of a day of events `ingestedAt` and `observedAt` stand for those of each event, which only the event knows.
    """
    given, of_events = facts.provenance, facts.uri.startswith(URI_SCHEME)
    known: dict[str, Any] = {
        "sourceId": facts.source,
        "sourceType": "HTTP" if of_events else "S3",
        "sourceUri": ENDPOINT.format(source=facts.source) if of_events else facts.uri,
        "hashAlgorithm": "SHA-256",
        "ingestedAt": facts.first_seen,
        "purpose": given.get("purpose") or DEFAULT_PURPOSE,
        "ingestedBy": given.get("ingestedBy") or DEFAULT_INGESTED_BY,
        "batchId": given.get("batchId") or facts.id,
        "transformations": [f"{'event' if of_events else 'csv'}-parse:{facts.dataset}", "dedupe"],
    }
    for name in ("observedAt", "classification", "parentId"):
        if given.get(name):
            known[name] = given[name]
    return known


def provenance_problem(entry: Mapping[str, Any]) -> str | None:
    """-> what is wrong with a whole entry (absent fields may be null), in words for an operator; None: nothing."""
    present = {name: value for name, value in entry.items() if value is not None}
    error = next(iter(sorted(_validator().iter_errors(present), key=lambda e: list(map(str, e.path)))), None)
    if error is None:
        return None
    where = ".".join(map(str, error.path))
    if error.validator == "pattern":
        wanted = error.schema.get("description") if isinstance(error.schema, Mapping) else None
        return f"provenance.{where}: {error.instance!r} is not of the right form: {wanted or error.validator_value}"
    return f"provenance{'.' + where if where else ''}: {error.message}"


def source_provenance_problem(provenance: Mapping[str, str]) -> str | None:
    """-> what is wrong with a source's `provenance:`, judged by an entry made of it; None: nothing."""
    empty = sorted(name for name, text in provenance.items() if not text)
    if empty:
        return f"provenance.{empty[0]} is empty: write a value or leave it out"
    facts = ObjectFacts(
        id="0" * 32,
        tenant="default",
        source="source",
        dataset="dataset@1",
        uri="s3://bucket/key",
        etag="",
        first_seen="2000-01-01T00:00:00Z",
        provenance=dict(provenance),
    )
    return provenance_problem(source_metadata(facts) | {"contentHash": "0" * 64})


@cache
def _validator() -> Draft202012Validator:
    schema = orjson.loads(_schema_bytes())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _schema_bytes() -> bytes:
    """From the installed package, else from the checkout's `schemas/`."""
    packaged = resources.files("ingestcore") / "schemas" / SCHEMA_FILE
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).resolve().parents[3] / "schemas" / SCHEMA_FILE).read_bytes()
