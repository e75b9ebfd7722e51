"""Facts of one object, gathered from the ledger: every entry once, deliveries of one input told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from sys import intern

from ingestcore.ledger.runs import Runs
from ingestcore.messages.ledger import Entry
from ingestcore.stage import Fate, Origin

Place = tuple[str, int, int]
"""Topic id, partition, offset of an input."""


@dataclass(slots=True)
class Delivery:
    """One delivery of one input: what one pass of a stage over it has committed so far.

    upstream  pass id of the input's producer, from the message
    newest    arrival number of its newest entry
    whole     no dead letter stands for rows nobody counted (a whole object or the rest of one)
    older     the delivery of the same input before this one
    """

    pass_id: str
    upstream: str
    older: Delivery | None
    newest: int = 0
    sequence: int = -1
    last: bool = False
    whole: bool = True
    fates: Mapping[Fate, tuple[int, int]] = field(default_factory=dict)

    def rows(self, *fates: Fate) -> int:
        """-> rows with one of these fates; of all fates when none is named."""
        return sum(rows for fate, (rows, _) in self.fates.items() if not fates or fate in fates)

    @property
    def nbytes(self) -> int:
        return sum(nbytes for _, nbytes in self.fates.values())

    def add(self, entry: Entry, arrival: int) -> None:
        self.newest = arrival
        self.sequence = entry.sequence
        self.last = self.last or entry.last
        if Fate.REJECTED in entry.fates and entry.fates[Fate.REJECTED][0] == 0:
            self.whole = False
        # Most deliveries are one entry: keep its mapping as it is.
        self.fates = _sum(self.fates, entry.fates) if self.fates else entry.fates


class Inputs:
    """The distinct inputs of one stage that held rows of one object, with all their deliveries."""

    def __init__(self) -> None:
        self._latest: dict[Place, Delivery] = {}

    def take(self, entry: Entry, arrival: int) -> None:
        """Take a fact. One that was taken before changes nothing."""
        place = (intern(entry.topic_id), entry.partition, entry.offset)
        latest = self._latest.get(place)
        known = next((d for d in _chain(latest) if d.pass_id == entry.pass_id), None)
        if known is None:
            known = self._latest[place] = Delivery(entry.pass_id, intern(entry.upstream), latest)
        if entry.sequence > known.sequence:
            known.add(entry, arrival)

    def deliveries(self) -> Iterator[Delivery]:
        """-> every delivery of every input."""
        for latest in self._latest.values():
            yield from _chain(latest)

    def counted(self, upstream: str | None = None) -> Iterator[Delivery]:
        """-> one delivery per input, the one that speaks for it: it read the most; of equals, the latest.

        upstream: only inputs made by that pass.
        """
        yield from (delivery for _, delivery in self.places(upstream))

    def places(self, upstream: str | None = None) -> Iterator[tuple[Place, Delivery]]:
        """-> the same, each with the input it speaks for."""
        for place, latest in self._latest.items():
            if upstream is None or latest.upstream == upstream:
                yield place, max(_chain(latest), key=Delivery.rows)

    def replayed(self) -> int:
        """-> rows this stage was given again: rows of the deliveries that do not speak for their input."""
        return sum(d.rows() for d in self.deliveries()) - sum(d.rows() for d in self.counted())

    def emitted_again(self) -> int:
        """-> rows that deliveries sent on although an earlier delivery of the same input was finished."""
        again = 0
        for latest in self._latest.values():
            if latest.older is not None:
                first = min((d.newest for d in _chain(latest) if d.last), default=latest.newest)
                again += sum(d.rows(Fate.EMITTED) for d in _chain(latest) if d.newest > first)
        return again


class Account:
    """All facts about one object, or one day of events, under one dataset version.

    headless  its first fact was not the start of a download, or of a day: earlier ones are missing
    updated_ms  broker's time of its newest fact
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.headless: bool | None = None
        self.updated_ms = 0
        self.reads = Inputs()
        self.blocks = Inputs()
        self.events = Runs()
        self.typed = Inputs()
        self.sinks: dict[str, Inputs] = {}

    def take(self, instance: str, entry: Entry, arrival: int) -> None:
        """Sort a fact by the topic its input came from: that says which hop it speaks of."""
        if self.headless is None:
            self.headless = entry.topic not in ("objects", "events") or entry.sequence != 0
        if entry.topic == "objects":
            self.reads.take(entry, arrival)
        elif entry.topic == "blocks":
            self.blocks.take(entry, arrival)
        elif entry.topic == "events":
            self.events.take(entry)
        elif entry.topic == "typed":
            self.typed.take(entry, arrival)
        elif entry.topic == "normalized":
            self.sinks.setdefault(instance, Inputs()).take(entry, arrival)

    def passes(self) -> list[Delivery]:
        """-> passes over the object, oldest first."""
        return sorted(self.reads.deliveries(), key=lambda d: d.newest)

    def reading(self) -> Delivery | None:
        """-> the pass that speaks for the object: the latest finished one that read it whole. A later pass may find
        the object changed or damaged; so without a whole one, the pass that came furthest."""
        passes = self.passes()
        whole = [d for d in passes if d.last and d.whole]
        if whole:
            return whole[-1]
        if any(d.last for d in passes):
            return max(reversed(passes), key=Delivery.rows)
        return passes[-1] if passes else None


def _chain(latest: Delivery | None) -> Iterator[Delivery]:
    """-> deliveries of one input, latest first."""
    while latest is not None:
        yield latest
        latest = latest.older


def _sum(a: Mapping[Fate, tuple[int, int]], b: Mapping[Fate, tuple[int, int]]) -> dict[Fate, tuple[int, int]]:
    nothing = (0, 0)
    return {
        fate: (a.get(fate, nothing)[0] + b.get(fate, nothing)[0], a.get(fate, nothing)[1] + b.get(fate, nothing)[1])
        for fate in {**a, **b}
    }
