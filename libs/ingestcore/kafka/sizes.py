"""How large topics are. Kafka's clients can't ask a broker for bytes, so records at both ends of every partition are
looked at, and what lies between is taken to be like them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ingestcore.kafka.sweep import Bounds, Place, bounds, sweep
from ingestcore.settings import Platform
from ingestcore.stage import Input

RECORD_BYTES: Final = 90
"""What a record costs in the log beside key, value and headers: its own head, and its share of a batch's."""
_FIRST_OFFSETS: Final = 4
_LAST_OFFSETS: Final = 12
_READER: Final = {
    # An open transaction must not hold up a look at sizes; little is wanted of each partition.
    "isolation.level": "read_uncommitted",
    "max.partition.fetch.bytes": 1 << 20,
    "queued.max.messages.kbytes": 4 << 10,
}


@dataclass(frozen=True, slots=True)
class Size:
    """One topic, one copy. nbytes: as written by the producers, so an upper bound where these compress;
    first_ms: broker's time of its oldest record, 0: it is empty."""

    nbytes: int
    first_ms: int


def sizes(platform: Platform, topics: Iterable[str]) -> dict[str, Size]:
    """-> by logical topic. Raises Retriable: Kafka is away or a topic missing."""
    names = list(topics)
    whole = bounds(platform, *names) if names else {}
    looked: dict[Place, list[Input]] = {place: [] for place in whole}
    begins, ends = zip(*map(both_ends, whole.values()), strict=True) if whole else ((), ())
    for part in (dict(zip(whole, begins, strict=True)), dict(zip(whole, ends, strict=True))):
        for input in sweep(platform, part, any_format=True, client_options=_READER):
            looked[input.at.topic, input.at.partition].append(input)
    return {name: size_of({p: (whole[p], looked[p]) for p in whole if p[0] == name}) for name in names}


def both_ends(within: Bounds) -> tuple[Bounds, Bounds]:
    """-> the offsets looked at; they do not overlap."""
    first = Bounds(within.start, min(within.end, within.start + _FIRST_OFFSETS))
    return first, Bounds(max(first.end, within.end - _LAST_OFFSETS), within.end)


def size_of(partitions: Mapping[Place, tuple[Bounds, list[Input]]]) -> Size:
    """-> the size of a topic, from its partitions' bounds and the records at both ends of each. Pure.

    Bytes are spread over offsets, not over records: transaction markers take offsets, too.
    """
    nbytes, first_ms = 0.0, 0
    for within, records in partitions.values():
        if not records:
            continue
        first, last = both_ends(within)
        span = (first.end - first.start) + (last.end - last.start)
        nbytes += sum(map(stored_bytes, records)) / span * (within.end - within.start)
        oldest = min(record.timestamp_ms for record in records)
        first_ms = min(first_ms or oldest, oldest)
    return Size(round(nbytes), first_ms)


def stored_bytes(record: Input) -> int:
    headers = sum(len(name.encode()) + len(text.encode()) + 2 for name, text in record.headers.items())
    return RECORD_BYTES + len(record.key) + len(record.value) + headers
