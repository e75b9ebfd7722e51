"""Dead letters of the downloader: built here, so that all of them name object, place and what to do."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from ingestcore.messages.dead_letters import RAW_LIMIT_BYTES
from ingestcore.messages.objects import ObjectFacts, ObjectRef
from ingestcore.reasons import Reason
from ingestcore.stage import At, Origin, Reject
from ingestcore.tabular.cut import Rest, TooLong
from ingestcore.tabular.head import Drift


@dataclass(frozen=True, slots=True)
class Letters:
    """Letters about one object. Each carries the reference: sent to `objects` again, it has the object read anew."""

    at: At
    ref: ObjectRef
    facts: ObjectFacts

    def too_long(self, record: TooLong, max_row_bytes: int) -> Reject:
        """One row: longer than allowed, or the quote that swallows the rest of the object."""
        size = record.end_byte - record.first_byte
        where = f"row {record.row}, bytes {record.first_byte}-{record.end_byte} of {self.ref.uri}"
        return Reject(
            at=self.at,
            origin=Origin.of(self.facts),
            raw=record.raw,
            reason=Reason.RECORD_TOO_LARGE,
            message=f"{where}: {record.why(max_row_bytes)}",
            nbytes=size,
            object=self.facts,
            facts=self._reference() | _range(record.row, record.first_byte, record.end_byte),
            reentry="objects",
        )

    def drift(self, drift: Drift) -> Reject:
        """The whole object. Its bytes are those stored: of gzip nobody knows more."""
        columns = {"columns": orjson.dumps(drift.columns).decode()} if drift.columns else {}
        return self._object(
            Reason.SCHEMA_DRIFT,
            f"{self.ref.uri} does not fit {self.facts.dataset}: {drift.message}",
            drift.raw,
            self.ref.size,
            columns,
        )

    def corrupt(self, rest: Rest, broke: str) -> Reject:
        """What follows the last complete record of a damaged gzip object."""
        return self._object(
            Reason.OBJECT_CORRUPT,
            f"{self.ref.uri}: {broke}. The rows before row {rest.row} were published",
            rest.raw,
            rest.end_byte - rest.first_byte,
            _range(rest.row, rest.first_byte, rest.end_byte),
        )

    def changed(self, why: str, published_bytes: int, nbytes: int) -> Reject:
        """The rest of an object whose listed version is gone. No place in the facts: a second reading of the same
        object is the same letter, wherever it stopped."""
        return self._object(
            Reason.OBJECT_CHANGED,
            f"{why}. Of the version listed {self.ref.first_seen} (ETag {self.ref.etag}) the first {published_bytes} "
            "bytes were taken and stay; the new version, if there is one, is taken when it is listed",
            b"",
            nbytes,
            {"taken_bytes": str(published_bytes)},
        )

    def _object(self, reason: Reason, message: str, raw: bytes, nbytes: int, facts: dict[str, str]) -> Reject:
        return Reject(
            at=self.at,
            origin=Origin.of(self.facts),
            raw=raw[:RAW_LIMIT_BYTES],
            reason=reason,
            message=message,
            rows=0,
            nbytes=nbytes,
            object=self.facts,
            facts=self._reference() | facts,
            reentry="objects",
        )

    def _reference(self) -> dict[str, str]:
        return {"reference": self.ref.encode().decode()}


def _range(row: int, first_byte: int, end_byte: int) -> dict[str, str]:
    return {"row": str(row), "byte_first": str(first_byte), "byte_last": str(end_byte)}
