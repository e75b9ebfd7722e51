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
    """What a reason says and asks for.

    summary    one line
    retryable  the same bytes may pass later without being changed
    advice     what an operator should do
    cause      what has happened, and what has not
    bytes_at   where the original bytes are, besides in the letter's own fields
    stages     services that give it, ANY_STAGE: all; none: no service of this version does
    """

    summary: str
    retryable: bool
    advice: str
    cause: str
    bytes_at: str
    stages: tuple[str, ...] = ()


ANY_STAGE = "*"

_WHOLE_ROW = "the letter holds the whole record, line end included; `byte_first` and `byte_last` say where it stands"
_WHOLE_INPUT = "the letter holds the row as the sink was given it"


MEANING: dict[Reason, Meaning] = {
    Reason.SCHEMA_DRIFT: Meaning(
        "Input doesn't match expected schema",
        False,
        "Compare the header in the letter with the dataset's fields; add the column, rename it with "
        "`from:`, or set `on_extra: discard_value`; then apply the spec and have it read again.",
        "The header of an object lacks a required column, has one that the dataset refuses, or can't "
        "be read at all. None of the object's rows was published. Or one event lacks a required member, or has one "
        "that the dataset refuses; other events went on.",
        "the letter holds the header record (64 KiB at most), the rows are in the object itself, "
        "which `reference` in its facts names; of an event it holds the whole body",
        ("chunk-downloader", "event-parser"),
    ),
    Reason.VALIDATION_FAIL: Meaning(
        "Data validation failed",
        False,
        "The letter names column, value and row. Mend the producer, or widen the type or rule, then have it read"
        " again.",
        "A value is not of its field's type or breaks a rule, the row has another number of "
        "columns than the header, or the body of an event is no JSON object (`fault` says why). Other rows went on.",
        f"{_WHOLE_ROW}; of an event it holds the whole body",
        ("csv-parser", "event-parser"),
    ),
    Reason.OLDER_REVISION: Meaning(
        "Record has older revision than existing",
        False,
        "Nothing to do: the sink already holds a newer version. Purge when no longer of interest.",
        "The sink holds the same entity with a higher `revision`: this row came late. The newer one stays.",
        _WHOLE_INPUT,
        ("postgres-sink",),
    ),
    Reason.SINK_TIMEOUT: Meaning(
        "Sink operation timed out",
        True,
        "Check the sink's health and load, then have that sink read it again.",
        "The sink did not answer in time, also when asked again. Nothing is known to be wrong with the row.",
        _WHOLE_INPUT,
        ("postgres-sink",),
    ),
    Reason.CONSTRAINT_VIOLATION: Meaning(
        "Database constraint violation",
        False,
        "The letter carries the database's message. Mend the row or the constraint, then have that sink read it again.",
        "The database refused this row alone; the rows beside it were written.",
        _WHOLE_INPUT,
        ("postgres-sink",),
    ),
    Reason.CONNECTION_ERROR: Meaning(
        "Network/connection failure",
        True,
        "Check network, DNS and the peer, then have it read again.",
        "The peer could not be reached for longer than the retries last. Nothing is known to be wrong with the row.",
        _WHOLE_INPUT,
        ("postgres-sink",),
    ),
    Reason.RATE_LIMITED: Meaning(
        "Rate limit exceeded",
        True,
        "Check quotas, then have it read again.",
        "The peer asked for a lower rate for longer than the retries last. Nothing is known to be wrong with the row.",
        _WHOLE_INPUT,
    ),
    Reason.CIRCUIT_OPEN: Meaning(
        "Circuit breaker is open",
        True,
        "Wait until the sink is healthy and the breaker closes, then have it read again.",
        "After many failures in a row the sink is left alone for a while; the row was not even sent.",
        _WHOLE_INPUT,
        ("postgres-sink",),
    ),
    Reason.OBJECT_CORRUPT: Meaning(
        "Object is damaged or cut short",
        False,
        "Rows before the break were published; the letter says at which byte it broke. Upload a sound"
        " copy: rows already published are recognised as duplicates where the dataset has "
        "`dedupe.keys`.",
        "The compressed bytes break off or do not fit their checksum. What follows the break can't be read by anyone.",
        "the letter holds what was left before the break (64 KiB at most); the object itself is as it was",
        ("chunk-downloader",),
    ),
    Reason.OBJECT_CHANGED: Meaning(
        "Object changed or vanished between listing and reading",
        True,
        "Nothing of the old version is mixed with the new one; the new version is taken when it is listed.",
        "Between listing and reading somebody wrote over the object or deleted it. The rows taken before that stay.",
        "nowhere but in the bucket, if it keeps old versions: the letter names the ETag that was listed",
        ("chunk-downloader",),
    ),
    Reason.RECORD_TOO_LARGE: Meaning(
        "Record is longer than max_row_bytes, or a quote was never closed",
        False,
        "Look at the byte range in the letter: usually an unclosed quote. Mend the file or raise `max_row_bytes`.",
        "One record has more bytes than a row may have. A quote that is never closed takes the whole "
        "rest of the object.",
        "the letter holds the record's first 64 KiB; `byte_first` and `byte_last` say where all of it"
        " stands in the object",
        ("chunk-downloader",),
    ),
    Reason.QUARANTINED: Meaning(
        "More bad rows in a block than the storm limit",
        False,
        "One letter stands for many rows: it lists their numbers and byte ranges. Usually the spec is"
        " wrong for this file: mend the spec, then have it read again.",
        "After so many letters of their own the bad rows of a block share one. The good rows of the block went on.",
        "the letter holds the records one after the other (900 kB at most, `raw_rows` says how many);"
        " `bytes` lists the ranges of all of them in the object",
        ("csv-parser",),
    ),
    Reason.INTERNAL_ERROR: Meaning(
        "The input made a stage fail, or its process end, repeatedly while others passed",
        True,
        "A defect of the platform, or too little memory for this input: keep the letter, report it with the stage "
        "and the error in it, have it read again after the upgrade (or with more memory).",
        "The stage failed on this input alone, or its process ended, again and again, while others passed. It was set"
        " aside so that they could.",
        "the letter holds the input message as it was; `topic`, `partition` and `offset` say where it came from",
        (ANY_STAGE,),
    ),
}
