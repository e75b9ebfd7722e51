"""`ingest.dlq`: the value is the original bytes, everything else rides in headers (KIP-1191 names where they exist)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ingestcore.messages.objects import ObjectFacts
from ingestcore.reasons import MEANING, Reason

RAW_LIMIT_BYTES = 64 << 10
"""Original bytes kept of a letter that stands for a whole object or a range of it."""


_PLACES: Final = ("row", "byte_first", "event", "input")
"""Facts that say which part of its origin a letter is, most special first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What was refused and why: what a stage says, and a dead letter carries on.

    raw      the original bytes of the row; of an object or a range of it: the first RAW_LIMIT_BYTES at most
    message  one sentence to an operator: what was wrong and what to do
    rows     rows it stands for: 1 for a row, more when quarantined, 0 for an object whose rows nobody counted
    nbytes   source bytes it stands for, where the stage conserves bytes
    facts    place and detail as text: `row`, `byte_first`, `byte_last` (exclusive), `column`, `value`, `rows` …;
             `event`: the same for the same event and bytes; `input`: coordinate of an input that is refused whole
    reentry  topic a repaired letter is sent to; audience: the consumer it is for (a sink's name) or ""
    """

    raw: bytes
    reason: Reason
    message: str
    rows: int = 1
    nbytes: int = 0
    object: ObjectFacts | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    reentry: str = ""
    audience: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter(Refusal):
    """One dead letter.

    stage       the service that refused it
    topic, partition, offset  coordinate of the input it came from (full topic name)
    origin      id of the object, or a source's name
    first_seen  ISO 8601, UTC
    """

    stage: str
    topic: str
    partition: int
    offset: int
    origin: str
    first_seen: str = ""

    @property
    def id(self) -> str:
        """-> 32 hex digits, the same for the same row or event, stage and reason however often it is read again."""
        place = next((text for name in _PLACES if (text := self.facts.get(name))), "")
        parts = (self.origin, place, self.stage, self.reason, self.audience)
        digest = hashlib.sha256()
        for part in parts if place else (*parts, "" if self.object else f"{self.topic}/{self.partition}/{self.offset}"):
            digest.update(len(part.encode()).to_bytes(4, "big") + part.encode())
        return digest.hexdigest()[:32]

    def headers(self) -> dict[str, str]:
        named = {
            "__dlq.errors.topic": self.topic,
            "__dlq.errors.partition": str(self.partition),
            "__dlq.errors.offset": str(self.offset),
            "__dlq.errors.message": self.message,
            "id": self.id,
            "reason": self.reason.value,
            "retryable": "1" if MEANING[self.reason].retryable else "0",
            "stage": self.stage,
            "origin": self.origin,
            "letter_rows": str(self.rows),
            "letter_bytes": str(self.nbytes),
            "reentry": self.reentry,
            "audience": self.audience,
            "first_seen": self.first_seen,
        }
        if self.object:
            named["object"] = self.object.encode()
        return named | {f"fact.{name}": text for name, text in self.facts.items()}

    @classmethod
    def of(cls, value: bytes, headers: Mapping[str, str]) -> DeadLetter:
        """Raises ValueError: a header is missing or unreadable."""
        try:
            return cls(
                raw=value,
                reason=Reason(headers["reason"]),
                message=headers["__dlq.errors.message"],
                stage=headers["stage"],
                topic=headers["__dlq.errors.topic"],
                partition=int(headers["__dlq.errors.partition"]),
                offset=int(headers["__dlq.errors.offset"]),
                origin=headers["origin"],
                rows=int(headers["letter_rows"]),
                nbytes=int(headers["letter_bytes"]),
                object=ObjectFacts.decode(headers["object"]) if "object" in headers else None,
                facts={n.removeprefix("fact."): t for n, t in headers.items() if n.startswith("fact.")},
                reentry=headers["reentry"],
                audience=headers["audience"],
                first_seen=headers["first_seen"],
            )
        except KeyError as error:
            raise ValueError(f"not the headers of a dead letter: {error} is missing") from error
