"""What the runtime adds to a step on its way to Kafka: ledger records, dead letters, headers. Pure."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Final

from ingestcore.messages.dead_letters import DeadLetter, Refusal
from ingestcore.messages.ledger import Entry, LedgerRecord
from ingestcore.stage import At, Emit, Fate, Input, Line, Origin, Reject, Step
from ingestcore.topics import FORMAT, TOPICS

LEDGER_HEADERS: Final = {"format": str(FORMAT), "rows": "0"}

_ENTRIES_PER_RECORD: Final = 1_000
"""About 250 KB; the topic takes 1 MiB."""
_RUNS_LIKE_AN_ENTRY: Final = 10
"""So many runs of offsets take as much room as an entry."""
_RUNS_PER_ENTRY: Final = 5_000
_SOURCES_TOLD: Final = 16
"""Of a message's sources in its header: that is for health, which needs no more."""


class LedgerBook:
    """Ledger lines of one commit, gathered per origin and input."""

    def __init__(self, stage: str, instance: str, replica: str) -> None:
        self._who = (stage, instance, replica)
        self._fates: dict[tuple[Origin, At], dict[Fate, tuple[int, int]]] = {}
        self._finished: set[At] = set()

    def add(self, step: Step) -> None:
        for line in step.tally:
            fates = self._fates.setdefault((line.origin, line.at), {})
            rows, nbytes = fates.get(line.fate, (0, 0))
            fates[line.fate] = (rows + line.rows, nbytes + line.nbytes)
        if step.resume is None:
            self._finished.update(step.covers)

    def records(self, delivery: Mapping[At, Delivery], topic_ids: Mapping[str, str]) -> list[LedgerRecord]:
        """-> records of one origin each.

        delivery   what the runtime knows of each input of this commit
        topic_ids  by logical topic; a source's name is its own id
        """
        by_origin: dict[Origin, list[Entry]] = defaultdict(list)
        for (origin, at), fates in self._fates.items():
            known = delivery[at]
            by_origin[origin].append(
                Entry(
                    topic=at.topic,
                    topic_id=topic_ids.get(at.topic, at.topic),
                    partition=at.partition,
                    offset=at.offset,
                    pass_id=known.pass_id,
                    upstream=known.upstream,
                    sequence=known.sequence,
                    last=at in self._finished,
                    fates=fates,
                )
            )
        return [
            LedgerRecord(*self._who, origin, part)
            for origin, entries in by_origin.items()
            for part in _parts(_with_runs(entries))
        ]

    def inputs(self) -> set[At]:
        """Inputs this commit has entries of."""
        return {at for _, at in self._fates}

    def clear(self) -> None:
        self._fates.clear()
        self._finished.clear()


def _with_runs(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Entries of one origin: those of single rows in a topic of such are put together by partition and fate."""
    alike: dict[tuple[str, int, Fate], list[Entry]] = defaultdict(list)
    for entry in entries:
        spec = TOPICS.get(entry.topic)
        if spec is not None and spec.one_row and entry.last and not entry.sequence and len(entry.fates) == 1:
            alike[entry.topic, entry.partition, next(iter(entry.fates))].append(entry)
        else:
            yield entry
    for (_, _, fate), many in alike.items():
        many.sort(key=lambda entry: entry.offset)
        for i in range(0, len(many), _RUNS_PER_ENTRY):
            some = many[i : i + _RUNS_PER_ENTRY]
            amounts = [entry.fates[fate] for entry in some]
            total = sum(rows for rows, _ in amounts), sum(nbytes for _, nbytes in amounts)
            yield replace(some[0], fates={fate: total}, runs=tuple(_runs([entry.offset for entry in some])))


def _runs(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending offsets -> first and last of each run."""
    first = last = -2
    for offset in offsets:
        if offset != last + 1:
            if last >= 0:
                yield first, last
            first = offset
        last = offset
    if last >= 0:
        yield first, last


def _parts(entries: Iterable[Entry]) -> Iterator[tuple[Entry, ...]]:
    """-> as many as fit into one record."""
    part: list[Entry] = []
    room = _ENTRIES_PER_RECORD
    for entry in entries:
        cost = 1 + len(entry.runs) // _RUNS_LIKE_AN_ENTRY
        if part and cost > room:
            yield tuple(part)
            part, room = [], _ENTRIES_PER_RECORD
        part.append(entry)
        room -= cost
    if part:
        yield tuple(part)


class Delivery:
    """One input as it is being worked on: what headers and ledger entries need of it."""

    __slots__ = ("first_seen", "pass_id", "rows", "sequence", "sources", "timestamp_ms", "traceparent", "upstream")

    def __init__(self, input: Input, pass_id: str, sequence: int) -> None:
        self.rows = input.rows
        self.timestamp_ms = input.timestamp_ms
        self.pass_id = pass_id
        self.sequence = sequence
        self.upstream = input.headers.get("pass", "")
        self.first_seen = input.headers.get("first_seen", "")
        self.traceparent = input.headers.get("traceparent", "")
        self.sources = tuple(filter(None, input.headers.get("sources", "").split(",")))


def headers(step: Step, deliveries: Iterable[Delivery], now_iso: str) -> dict[str, str]:
    """-> headers every message of a step carries: format, first_seen (earliest of the covers), traceparent (of the
    first cover's trace, with a span of its own), sources (whose rows), pass (of a step that covers one input)."""
    known = list(deliveries)
    first_seen = min((d.first_seen for d in known if d.first_seen), default=now_iso)
    parent = next((d.traceparent for d in known if d.traceparent), "")
    trace = parent.split("-")[1] if parent.count("-") == 3 else os.urandom(16).hex()
    added = {
        "format": str(FORMAT),
        "first_seen": first_seen,
        "traceparent": f"00-{trace}-{os.urandom(8).hex()}-01",
    }
    sources = sorted({line.origin.source for line in step.tally})
    if sources:
        added["sources"] = ",".join(sources[:_SOURCES_TOLD])
    if len(known) == 1:
        added["pass"] = known[0].pass_id
    return added


def dead_letter(reject: Reject, stage: str, topic: str, first_seen: str) -> DeadLetter:
    """-> the letter of a reject; `topic` is the full name of its input's topic."""
    refusal = {part.name: getattr(reject, part.name) for part in fields(Refusal)}
    _, partition, offset = reject.at
    return DeadLetter(
        stage=stage,
        topic=topic,
        partition=partition,
        offset=offset,
        origin=reject.origin.id,
        first_seen=first_seen,
        **refusal,
    )


def emitted(emit: Emit, added: Mapping[str, str], *, counted: bool = True) -> dict[str, str]:
    """-> all headers of an emitted message. `counted`: its rows are known, and are promised to who reads it."""
    return {**emit.headers, **({"rows": str(emit.rows)} if counted else {}), **added}


def lettered(letter: DeadLetter, added: Mapping[str, str]) -> dict[str, str]:
    """-> all headers of a dead letter."""
    return {**added, **letter.headers(), "rows": "1"}


def rows_of(tally: Iterable[Line]) -> dict[At, int]:
    """-> rows of a tally by input."""
    total: dict[At, int] = defaultdict(int)
    for line in tally:
        total[line.at] += line.rows
    return total
