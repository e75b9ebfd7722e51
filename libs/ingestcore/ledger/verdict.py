"""What the audit says about an object, and how it judges one account hop by hop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from ingestcore.ledger.facts import Account, Delivery, Inputs
from ingestcore.messages.events import URI_SCHEME
from ingestcore.stage import Fate, Origin

_COMPRESSED: Final = (".gz", ".gzip")


class State(StrEnum):
    """Where an object stands.

    PENDING      listed, not yet opened
    IN_PROGRESS  some of its rows are still between two stages
    BALANCED     every row is accounted for
    INCOMPLETE   every row that was read is accounted for, but the object, or the rest of it, is a dead letter
    SUPERSEDED   this dataset version stopped half-way and a newer one has read the object
    EXPIRED      its first facts are older than the ledger's retention: nothing can be said
    UNBALANCED   rows are missing or doubled; `hop` says where
    """

    PENDING = "pending"
    IN_PROGRESS = "in progress"
    BALANCED = "balanced"
    INCOMPLETE = "incomplete"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    UNBALANCED = "UNBALANCED"


class Hop(StrEnum):
    """Between which two stages the numbers do not meet."""

    DOWNLOAD = "listed -> chunk-downloader"
    PARSE = "chunk-downloader -> csv-parser"
    NORMALIZE = "csv-parser -> normalizer"
    NORMALIZE_EVENTS = "event-parser -> normalizer"
    DEDUPE = "normalizer"
    SINK = "normalizer -> sink"


@dataclass(frozen=True, slots=True)
class SinkTally:
    """Rows of one object at one sink, each normalized message counted once."""

    delivered: int = 0
    stale: int = 0
    dead: int = 0
    shed: int = 0
    not_for_us: int = 0

    @property
    def rows(self) -> int:
        return self.delivered + self.stale + self.dead + self.shed + self.not_for_us


@dataclass(frozen=True, slots=True)
class ObjectAudit:
    """The account of one object under one dataset version, in rows unless said otherwise.

    read        records of the pass that speaks for the object, blank ones included
    duplicates  read - blank - dead - shed - published; negative: rows were published twice
    dead        dead letters of the downloader, the parser and the normalizer, in rows
    replayed    rows a stage was given again, after a reset or a repeated listing
    nbytes      bytes the pass accounts for; of a compressed object as the downloader counts them
    size        bytes as listed; None: the listing was not given
    updated_ms  broker's time of its newest fact, or of its listing; milliseconds since 1970
    hop, note   where it does not balance or what is awaited, and one sentence about it
    """

    origin: Origin
    state: State
    hop: Hop | None = None
    note: str = ""
    read: int = 0
    published: int = 0
    duplicates: int = 0
    dead: int = 0
    blank: int = 0
    shed: int = 0
    replayed: int = 0
    nbytes: int = 0
    size: int | None = None
    updated_ms: int = 0
    sinks: Mapping[str, SinkTally] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """-> for JSON; the origin's fields stand beside the numbers."""
        stored = asdict(self)
        del stored["origin"]
        return {**self.origin._asdict(), **stored}


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over objects. `states`: how many objects are in each state."""

    objects: int
    read: int
    published: int
    duplicates: int
    dead: int
    blank: int
    shed: int
    replayed: int
    nbytes: int
    delivered: Mapping[str, int]
    states: Mapping[State, int]

    @classmethod
    def of(cls, audits: Iterable[ObjectAudit]) -> Totals:
        found = list(audits)
        names = ("read", "published", "duplicates", "dead", "blank", "shed", "replayed", "nbytes")
        sums: dict[str, int] = {name: sum(getattr(a, name) for a in found) for name in names}
        sinks = sorted({name for a in found for name in a.sinks})
        return cls(
            objects=len(found),
            delivered={s: sum(a.sinks[s].delivered for a in found if s in a.sinks) for s in sinks},
            states={s: n for s in State if (n := sum(a.state is s for a in found))},
            **sums,
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"states": {state.value: count for state, count in self.states.items()}}


class Finding(NamedTuple):
    """A hop whose two sides differ. `wrong`: no work to come can mend it."""

    hop: Hop
    wrong: bool
    note: str


class Intake(NamedTuple):
    """What came in before the rows were typed.

    read      records, blank ones included; dead: of which dead letters
    sent      typed rows, by all deliveries together; onward: the hop they are on
    whole     nothing more is to come of it, as far as is known
    findings  hops before that whose sides differ
    """

    read: int
    blank: int
    shed: int
    dead: int
    sent: int
    onward: Hop
    whole: bool
    findings: tuple[Finding, ...] = ()


def judge(
    account: Account, *, size: int | None, sinks: Collection[str], idle: bool, whole_ledger: bool, superseded: bool
) -> ObjectAudit:
    """-> the verdict on one account.

    size          bytes of the object as listed, where known
    sinks         names of the sinks that must have every published row
    idle          every consumer group has read its topic to the end: what is not there yet will not come
    whole_ledger  nothing of the ledger has been removed by retention
    superseded    a newer dataset version has read the object
    """
    reading = account.reading()
    of_events = account.events.any or account.origin.uri.startswith(URI_SCHEME)
    intake = _events(account) if of_events else _object(account, reading, size, superseded)
    published = sum(d.rows(Fate.EMITTED) for d in account.typed.deliveries())
    rest = intake.read - intake.blank - intake.shed - intake.dead - published
    # A row the normalizer gave up on may have been published by another pass: it is dead only while it is missing.
    dead_late = min(sum(d.rows(Fate.REJECTED) for d in account.typed.counted()), max(rest, 0))
    known = sum(d.rows(Fate.DUPLICATE) for d in account.typed.counted())
    tallies = {name: _tally(account.sinks.get(name)) for name in sorted({*sinks, *account.sinks})}
    judged = {name: tally for name, tally in tallies.items() if name in sinks}
    findings = [
        *intake.findings,
        *_rows(intake.onward, intake.sent, sum(d.rows() for d in account.typed.counted()), "typed rows"),
        *_doubled(intake.whole, rest, account.typed.emitted_again()),
        *(f for name, tally in judged.items() for f in _rows(Hop.SINK, published, tally.rows, f"rows for {name}")),
    ]
    state, hop, note = _state(account, reading, findings, idle, whole_ledger, superseded)
    return ObjectAudit(
        origin=account.origin,
        state=state,
        hop=hop,
        note=note,
        read=intake.read,
        published=published,
        # Half-way through a pass the rest is mostly rows still under way.
        duplicates=known if state is State.IN_PROGRESS else rest - dead_late,
        dead=intake.dead + dead_late,
        blank=intake.blank,
        shed=intake.shed,
        replayed=_replayed(account, reading),
        nbytes=reading.nbytes if reading else 0,
        size=size,
        updated_ms=account.updated_ms,
        sinks=tallies,
    )


def _object(account: Account, reading: Delivery | None, size: int | None, superseded: bool) -> Intake:
    """Rows of an object: what the pass that speaks for it read."""
    blocks = list(account.blocks.counted(reading.pass_id)) if reading else []
    both = [*blocks, *([reading] if reading else [])]
    return Intake(
        read=reading.rows(Fate.EMITTED, Fate.REJECTED, Fate.BLANK, Fate.SHED) if reading else 0,
        blank=sum(d.rows(Fate.BLANK) for d in both),
        shed=sum(d.rows(Fate.SHED) for d in both),
        dead=sum(d.rows(Fate.REJECTED) for d in both),
        sent=sum(d.rows(Fate.EMITTED) for d in account.blocks.deliveries()),
        onward=Hop.NORMALIZE,
        whole=reading is not None and reading.last,
        findings=(
            *_download(reading, account, size, superseded),
            *_rows(
                Hop.PARSE,
                reading.rows(Fate.EMITTED) if reading else 0,
                sum(d.rows() for d in blocks),
                "rows of blocks",
            ),
        ),
    )


def _events(account: Account) -> Intake:
    """Events of a day: each is one row, and its offset says which."""
    events = account.events
    return Intake(events.read, 0, 0, events.dead, events.sent, Hop.NORMALIZE_EVENTS, True)


def _state(
    account: Account,
    reading: Delivery | None,
    findings: list[Finding],
    idle: bool,
    whole_ledger: bool,
    superseded: bool,
) -> tuple[State, Hop | None, str]:
    if "/" in account.origin.id:
        return State.INCOMPLETE, None, "a stage gave up on this message whole: see its dead letter"
    if not whole_ledger and account.headless:
        return State.EXPIRED, None, "its first facts are older than the ledger's retention"
    for finding in findings:
        if finding.wrong or idle:
            return State.UNBALANCED, finding.hop, finding.note
    if findings:
        return State.IN_PROGRESS, findings[0].hop, findings[0].note
    passes = account.passes()
    if not idle and not superseded and passes and not passes[-1].last:
        return State.IN_PROGRESS, Hop.DOWNLOAD, "it is being read again"
    if superseded and reading is not None and not reading.last:
        return State.SUPERSEDED, None, "a newer dataset version has read the object"
    if reading is not None and not reading.whole:
        return State.INCOMPLETE, None, "the object, or the rest of it, is a dead letter"
    return State.BALANCED, None, ""


def _download(reading: Delivery | None, account: Account, size: int | None, superseded: bool) -> Iterable[Finding]:
    """The object is read to its end, and every byte of a plain object is accounted for. More bytes than listed: it
    was compressed, whatever its name says."""
    if reading is None:
        yield Finding(Hop.DOWNLOAD, True, "later stages saw rows of it, no download is on record")
    elif not reading.last:
        if not superseded and not any(d.last for d in account.passes()):
            yield Finding(Hop.DOWNLOAD, False, f"{reading.nbytes} bytes read so far")
    elif size is not None and reading.nbytes < size and not account.origin.uri.lower().endswith(_COMPRESSED):
        yield Finding(Hop.DOWNLOAD, True, f"listed with {size} bytes, {reading.nbytes} bytes accounted for")


def _rows(hop: Hop, sent: int, taken: int, what: str) -> Iterable[Finding]:
    """Rows one stage sent and the next one took. More taken than sent can't be work under way."""
    if taken > sent:
        yield Finding(hop, True, f"{taken} {what} taken, only {sent} sent: {taken - sent} appeared from nowhere")
    elif taken < sent:
        yield Finding(hop, False, f"{taken} of {sent} {what} taken, {sent - taken} missing")


def _doubled(whole: bool, rest: int, again: int) -> Iterable[Finding]:
    """Two alarms. The sum sees only a surplus: rows published twice can hide behind true duplicates."""
    if again:
        yield Finding(Hop.DEDUPE, True, f"{again} rows of messages already done were published again: rows doubled")
    elif whole and rest < 0:
        yield Finding(Hop.DEDUPE, True, f"{-rest} more rows published or dead-lettered than were read: rows doubled")


def _replayed(account: Account, reading: Delivery | None) -> int:
    """Each repetition counted once, at the stage it began at: what a repeated pass sends on is new to the next."""
    again = sum(d.rows() for d in account.reads.deliveries()) - (reading.rows() if reading else 0)
    stages = (account.blocks, account.typed, *account.sinks.values())
    return again + account.events.replayed + sum(inputs.replayed() for inputs in stages)


def _tally(inputs: Inputs | None) -> SinkTally:
    counted = list(inputs.counted()) if inputs else []
    return SinkTally(
        delivered=sum(d.rows(Fate.DELIVERED) for d in counted),
        stale=sum(d.rows(Fate.STALE, Fate.DUPLICATE) for d in counted),
        dead=sum(d.rows(Fate.REJECTED) for d in counted),
        shed=sum(d.rows(Fate.SHED) for d in counted),
        not_for_us=sum(d.rows(Fate.NOT_FOR_US) for d in counted),
    )
