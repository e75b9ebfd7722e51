"""What was found out about one row, and in which words it is told. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Fate(StrEnum):
    """Where a row stands. UNKNOWN: what would tell is gone."""

    PUBLISHED = "published"
    DUPLICATE = "duplicate"
    DEAD_LETTER = "dead letter"
    BLANK = "blank"
    IN_PROGRESS = "in progress"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Where:
    """A row in a topic. index: among the rows of the message, from 0."""

    topic: str
    partition: int
    offset: int
    index: int = 0

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}, row {self.index} of the message"


@dataclass(frozen=True, slots=True)
class Raw:
    """A row's original bytes. first, last: byte range (last exclusive) in the object, inflated if it is compressed."""

    first: int
    last: int
    data: bytes
    found_in: str


@dataclass(frozen=True, slots=True)
class Hash:
    """`contentHash`: SHA-256 of the 4 MiB-aligned segment the row starts in. recorded: as rows carry it; computed: of
    the bytes in S3 now; each is empty, or None, where it is not to be had."""

    segment: int | None
    recorded: str
    computed: str

    @property
    def matches(self) -> bool | None:
        return self.recorded == self.computed if self.recorded and self.computed else None


@dataclass(frozen=True, slots=True)
class InLake:
    """A Parquet file that holds the row."""

    sink: str
    file: str
    row_group: int


@dataclass(frozen=True, slots=True)
class InTable:
    """A row of a database table. key: the columns that find it; newer: it holds a later row of the same entity."""

    sink: str
    table: str
    key: Mapping[str, Any]
    newer: bool = False

    def __str__(self) -> str:
        named = ", ".join(f"{name} = {value}" for name, value in self.key.items())
        later = "; a newer row of its entity stands there" if self.newer else ""
        return f"{self.table} where {named} (sink {self.sink}){later}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event a row was made of, as it was accepted. partition, offset: in `events`."""

    id: str
    type: str
    received: str
    client: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class First:
    """The row that was published under the key of this one."""

    uri: str
    row: int
    where: Where


@dataclass
class Story:
    """One row. What is not known is empty, and `notes` say why.

    dataset  `name@version`; etag: of the object's version it was read from
    s3       what became of that version: `there`, or a sentence
    block    partition, offset and number of its block
    event    of rows of events, which have neither object nor block: `uri` is a day of a source, `row` an offset
    moments  broker's time of the steps, milliseconds since 1970, as far as they are known: accepted, parsed, published
    """

    uri: str
    row: int
    object_id: str = ""
    dataset: str = ""
    source: str = ""
    tenant: str = ""
    etag: str = ""
    raw: Raw | None = None
    s3: str = ""
    hash: Hash | None = None
    block: tuple[int, int, int] | None = None
    key: str = ""
    typed: list[Where] = field(default_factory=list)
    fate: Fate = Fate.UNKNOWN
    why: str = ""
    normalized: list[Where] = field(default_factory=list)
    first: First | None = None
    letters: list[dict[str, Any]] = field(default_factory=list)
    lake: list[InLake] = field(default_factory=list)
    tables: list[InTable] = field(default_factory=list)
    event: Accepted | None = None
    moments: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def as_dict(self) -> dict[str, Any]:
        """-> for JSON. Bytes are text, or `{"hex": …}` where they are none."""
        told = asdict(self)
        if self.raw:
            told["raw"]["data"] = _text(self.raw.data)
        if self.hash:
            told["hash"]["matches"] = self.hash.matches
        if self.block:
            told["block"] = dict(zip(("partition", "offset", "number"), self.block, strict=True))
        return told

    def lines(self) -> Iterator[tuple[str, str]]:
        """-> (title, text) in the order of a row's way."""
        yield "row", f"{self.row} of {self.uri}"
        if self.event:
            yield (
                "event",
                f"{self.event.id} of type {self.event.type}, from {self.event.client or 'nobody knows where'}",
            )
            yield "accepted", f"{self.event.received}, events[{self.event.partition}]@{self.event.offset}"
        yield "object", _joined(id=self.object_id, dataset=self.dataset, source=self.source, tenant=self.tenant)
        if self.raw:
            of = "event" if self.event else "object"
            yield "bytes", f"{self.raw.first}-{self.raw.last} of the {of}, from {self.raw.found_in}"
            yield "text", repr(_shown(self.raw.data))
        if self.s3:
            yield "in S3", self.s3 + (f", ETag {self.etag}" if self.etag else "")
        if self.hash:
            matches = {True: "verified", False: "DIFFERS from the bytes in S3", None: "not verified"}[self.hash.matches]
            segment = "" if self.hash.segment is None else f" (segment {self.hash.segment})"
            yield "contentHash", f"{self.hash.recorded or self.hash.computed}{segment}, {matches}"
        if self.block:
            yield "block", f"blocks[{self.block[0]}]@{self.block[1]}, number {self.block[2]} of the object"
        if self.key:
            yield "key", self.key
        for where in self.typed:
            yield "typed", str(where)
        yield "fate", f"{self.fate}" + (f": {self.why}" if self.why else "")
        for where in self.normalized:
            yield "normalized", str(where)
        if self.first:
            yield "first", f"row {self.first.row} of {self.first.uri}, {self.first.where}"
        for letter in self.letters:
            yield "dead letter", f"{letter['reason']} by {letter['stage']}: {letter['message']} (id {letter['id']})"
        for held in self.lake:
            yield "in the lake", f"{held.file}, row group {held.row_group} (sink {held.sink})"
        for row in self.tables:
            yield "in Postgres", str(row)
        for text in self.notes:
            yield "note", text


def _joined(**parts: str) -> str:
    return ", ".join(f"{name} {text}" for name, text in parts.items() if text) or "nothing is known of it"


def _text(data: bytes) -> str | Mapping[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"hex": data.hex()}


_MOST_SHOWN = 500


def _shown(data: bytes) -> str:
    text = data[:_MOST_SHOWN].decode("utf-8", "backslashreplace").rstrip("\r\n")
    return text if len(data) <= _MOST_SHOWN else f"{text}… ({len(data)} bytes)"
