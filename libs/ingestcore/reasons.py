"""Reason codes of dead letters: one list, with what an operator needs to know about each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a record was dead-lettered. The value is what stands in headers, metrics and files."""

    SCHEMA_DRIFT = "SCHEMA_DRIFT"
    VALIDATION_FAIL = "VALIDATION_FAIL"
    OLDER_REVISION = "OLDER_REVISION"
    SINK_TIMEOUT = "SINK_TIMEOUT"
    CONSTRAINT_VIOLATION = "CONSTRAINT_VIOLATION"
    CONNECTION_ERROR = "CONNECTION_ERROR"
    RATE_LIMITED = "RATE_LIMITED"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    OBJECT_CORRUPT = "OBJECT_CORRUPT"
    OBJECT_CHANGED = "OBJECT_CHANGED"
    RECORD_TOO_LARGE = "RECORD_TOO_LARGE"
    QUARANTINED = "QUARANTINED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason says and asks for. `retryable`: the same bytes may pass later without being changed."""

    summary: str
    retryable: bool
    advice: str


MEANING: dict[Reason, Meaning] = {
    Reason.SCHEMA_DRIFT: Meaning(
        "Input doesn't match expected schema",
        False,
        "Compare the header in the letter with the dataset's fields; add the column, rename it with `from:`, or set "
        "`on_extra: discard_value`; then apply the spec and redrive.",
    ),
    Reason.VALIDATION_FAIL: Meaning(
        "Data validation failed",
        False,
        "The letter names column, value and row. Mend the producer, or widen the type or rule, then redrive.",
    ),
    Reason.OLDER_REVISION: Meaning(
        "Record has older revision than existing",
        False,
        "Nothing to do: the sink already holds a newer version. Purge when no longer of interest.",
    ),
    Reason.SINK_TIMEOUT: Meaning(
        "Sink operation timed out", True, "Check the sink's health and load, then redrive to that sink."
    ),
    Reason.CONSTRAINT_VIOLATION: Meaning(
        "Database constraint violation",
        False,
        "The letter carries the database's message. Mend the row or the constraint, then redrive to that sink.",
    ),
    Reason.CONNECTION_ERROR: Meaning(
        "Network/connection failure", True, "Check network, DNS and the peer, then redrive."
    ),
    Reason.RATE_LIMITED: Meaning("Rate limit exceeded", True, "Check quotas; redrive at a lower rate."),
    Reason.CIRCUIT_OPEN: Meaning(
        "Circuit breaker is open",
        True,
        "Wait until the sink is healthy and the breaker closes, then redrive.",
    ),
    Reason.OBJECT_CORRUPT: Meaning(
        "Object is damaged or cut short",
        False,
        "Rows before the break were published; the letter says at which byte it broke. Upload a sound copy: rows "
        "already published are recognised as duplicates where the dataset has `dedupe.keys`.",
    ),
    Reason.OBJECT_CHANGED: Meaning(
        "Object changed or vanished between listing and reading",
        True,
        "Nothing of the old version is mixed with the new one; the new version is taken when it is listed.",
    ),
    Reason.RECORD_TOO_LARGE: Meaning(
        "Record is longer than max_row_bytes, or a quote was never closed",
        False,
        "Look at the byte range in the letter: usually an unclosed quote. Mend the file or raise `max_row_bytes`.",
    ),
    Reason.QUARANTINED: Meaning(
        "More bad rows in a block than the storm limit",
        False,
        "One letter stands for many rows: it lists their numbers and byte ranges. Usually the spec is wrong for "
        "this file: mend the spec, then redrive or upload again.",
    ),
    Reason.INTERNAL_ERROR: Meaning(
        "The input made a stage fail repeatedly while others passed",
        True,
        "A defect of the platform: keep the letter, report it with the stage and the error in it, redrive after "
        "the upgrade.",
    ),
}
