"""The ledger of events: entries that speak of runs of offsets, and what the audit makes of them."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from ingestcore.ledger import Audit, Hop, ObjectAudit, State, audit
from ingestcore.messages.events import day_of
from ingestcore.messages.ledger import Entry, LedgerRecord
from ingestcore.runtime.recording import Delivery, LedgerBook
from ingestcore.stage import At, Fate, Input, Line, Origin, Step

DAY = day_of(tenant="t", source="hooks", dataset="orders@1", received="2026-01-02T03:04:05Z", provenance={})
ORIGIN = Origin.of(DAY)


def committed(fates: dict[tuple[int, int], Fate], pass_id: str, origin: Origin = ORIGIN) -> list[LedgerRecord]:
    """What the runtime writes for one commit of the event-parser. fates: by partition and offset."""
    book = LedgerBook("event-parser", "event-parser", "0")
    known = {}
    for (partition, offset), fate in fates.items():
        at = At("events", partition, offset)
        known[at] = Delivery(Input(at, b"", {"rows": "1"}), f"{pass_id}-{partition}-{offset}", 0)
        book.add(Step((at,), (Line(at, origin, fate, 1),)))
    records = book.records(known, {"events": "id-events"})
    return [LedgerRecord.decode(record.encode()) for record in records]


def later(topic: str, offset: int, fates: dict[Fate, int], pass_id: str, instance: str) -> LedgerRecord:
    amounts = {fate: (rows, 0) for fate, rows in fates.items()}
    entry = Entry(topic, f"id-{topic}", 0, offset, pass_id, "", 0, True, amounts)
    return LedgerRecord(instance, instance, "0", ORIGIN, (entry,))


def judged(records: list[LedgerRecord], *, idle: bool = True) -> ObjectAudit:
    (found,) = audit(records, sinks=("lake",), idle=idle)
    return found


def test_rows_of_one_commit_are_one_entry_for_each_partition_and_fate() -> None:
    fates = dict.fromkeys([(0, n) for n in range(5, 15)], Fate.EMITTED) | {(1, 3): Fate.EMITTED, (0, 9): Fate.REJECTED}
    (record,) = committed(fates, "p")
    told = {(e.partition, next(iter(e.fates))): (e.offset, e.fates, e.runs, e.pass_id) for e in record.entries}
    assert told == {
        (0, Fate.EMITTED): (5, {Fate.EMITTED: (9, 0)}, ((5, 8), (10, 14)), "p-0-5"),
        (0, Fate.REJECTED): (9, {Fate.REJECTED: (1, 0)}, ((9, 9),), "p-0-9"),
        (1, Fate.EMITTED): (3, {Fate.EMITTED: (1, 0)}, ((3, 3),), "p-1-3"),
    }


def test_blocks_keep_an_entry_each() -> None:
    book = LedgerBook("csv-parser", "csv-parser", "0")
    ats = [At("blocks", 0, n) for n in range(3)]
    book.add(Step(ats, [Line(at, ORIGIN, Fate.EMITTED, 1) for at in ats]))
    (record,) = book.records({at: Delivery(Input(at, b"", {}), "p", 0) for at in ats}, {})
    assert [(e.offset, e.runs) for e in record.entries] == [(0, ()), (1, ()), (2, ())]


def test_a_commit_of_many_scattered_events_fits_into_its_messages() -> None:
    fates = {(p, 7 * n + 1_000_000_000): Fate.EMITTED for p in range(8) for n in range(6_000)}
    records = committed(fates, "p")
    assert max(len(record.encode()) for record in records) < 1 << 20
    assert sum(e.fates[Fate.EMITTED][0] for record in records for e in record.entries) == 48_000
    (found,) = audit(records, sinks=())
    assert found.read == 48_000


def straight() -> list[LedgerRecord]:
    """100 events: 3 bad, 15 duplicates, 82 published and in the lake."""
    fates = {(n % 2, n // 2): Fate.REJECTED if n % 40 == 7 else Fate.EMITTED for n in range(100)}
    records = committed(fates, "a")
    records.append(later("typed", 0, {Fate.EMITTED: 82, Fate.DUPLICATE: 15}, "n1", "normalizer"))
    return [*records, later("normalized", 0, {Fate.DELIVERED: 82}, "s1", "lake")]


def test_every_event_of_a_day_is_told() -> None:
    found = judged(straight())
    assert (found.state, found.hop) == (State.BALANCED, None)
    assert (found.read, found.published, found.duplicates, found.dead, found.blank) == (100, 82, 15, 3, 0)
    assert (found.replayed, found.sinks["lake"].delivered) == (0, 82)
    assert found.origin.uri == "webhook://hooks/2026-01-02"


def test_a_fact_read_twice_counts_once() -> None:
    assert judged(straight() * 2) == judged(straight())


def test_a_reset_to_anywhere_shows_as_replayed_and_changes_nothing_else() -> None:
    again = {(n % 2, n // 2): Fate.REJECTED if n % 40 == 7 else Fate.EMITTED for n in range(31, 100)}
    records = [*straight(), *committed(again, "b")]
    records.append(
        later("typed", 1, {Fate.DUPLICATE: sum(f is Fate.EMITTED for f in again.values())}, "n2", "normalizer")
    )
    found = judged(records)
    assert found.state is State.BALANCED
    assert (found.read, found.published, found.duplicates, found.dead) == (100, 82, 15, 3)
    assert found.replayed == 69


@pytest.mark.parametrize("order", [1, -1])
def test_an_event_is_dead_only_where_no_delivery_made_a_row_of_it(order: int) -> None:
    both = [committed({(0, 4): fate}, fate.value)[0] for fate in (Fate.REJECTED, Fate.EMITTED)][::order]
    records = [*both, later("typed", 0, {Fate.EMITTED: 1}, "n1", "normalizer")]
    found = judged([*records, later("normalized", 0, {Fate.DELIVERED: 1}, "s1", "lake")])
    assert (found.state, found.read, found.dead, found.published, found.replayed) == (State.BALANCED, 1, 0, 1, 1)


@pytest.mark.parametrize(
    ("records", "hop"),
    [(straight()[:-2], Hop.NORMALIZE_EVENTS), (straight()[:-1], Hop.SINK)],
    ids=["typed message lost", "normalized message lost"],
)
def test_missing_rows_are_under_way_while_anyone_works_and_lost_when_all_are_done(
    records: list[LedgerRecord], hop: Hop
) -> None:
    assert (judged(records, idle=False).state, judged(records, idle=False).hop) == (State.IN_PROGRESS, hop)
    assert (judged(records).state, judged(records).hop) == (State.UNBALANCED, hop)


@pytest.mark.parametrize(
    ("more", "hop"),
    [
        (later("typed", 9, {Fate.DUPLICATE: 5}, "n9", "normalizer"), Hop.NORMALIZE_EVENTS),
        (later("normalized", 9, {Fate.DELIVERED: 5}, "s9", "lake"), Hop.SINK),
        (later("typed", 0, {Fate.EMITTED: 3, Fate.DUPLICATE: 94}, "n2", "normalizer"), Hop.DEDUPE),
    ],
    ids=["typed message twice", "normalized message twice", "rows published twice"],
)
def test_rows_from_nowhere_are_an_alarm_at_once(more: LedgerRecord, hop: Hop) -> None:
    found = judged([*straight(), more], idle=False)
    assert (found.state, found.hop) == (State.UNBALANCED, hop)


def test_a_day_that_began_before_the_ledger_is_expired_not_wrong() -> None:
    begins = 1_767_312_000_000  # 2026-01-02T00:00:00Z
    for first, state in ((begins - 1, State.UNBALANCED), (begins + 1, State.EXPIRED)):
        gathered = Audit()
        for number, record in enumerate(straight()[1:]):
            gathered.take(record, first + number)
        (found,) = gathered.objects(sinks=("lake",), idle=True, whole_ledger=False)
        assert found.state is state


def test_any_history_of_commits_and_resets_gives_the_true_counts() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        truth = {(p, o): chance.random() < 0.1 for p in range(3) for o in range(chance.randint(1, 40))}
        ends: dict[int, int] = defaultdict(int)
        for partition, offset in truth:
            ends[partition] = max(ends[partition], offset + 1)
        records, told, sent = [], 0, 0
        here = dict.fromkeys(ends, 0)
        number = 0
        while any(here[p] < ends[p] for p in ends):
            number += 1
            fates = {}
            for partition in ends:
                if chance.random() < 0.05:
                    here[partition] = chance.randint(0, here[partition])
                until = min(ends[partition], here[partition] + chance.randint(0, 9))
                for offset in range(here[partition], until):
                    fates[partition, offset] = Fate.REJECTED if truth[partition, offset] else Fate.EMITTED
                here[partition] = until
            made = committed(fates, f"c{number}")
            records += made * chance.choice([1, 1, 2])
            told += len(fates)
            sent += sum(fate is Fate.EMITTED for fate in fates.values())
        good = sum(not bad for bad in truth.values())
        records.append(later("typed", 0, {Fate.EMITTED: good, Fate.DUPLICATE: sent - good}, "n", "normalizer"))
        found = judged([*records, later("normalized", 0, {Fate.DELIVERED: good}, "s", "lake")])
        assert found.state is State.BALANCED, seed
        counted = (found.read, found.dead, found.published, found.duplicates, found.replayed)
        assert counted == (len(truth), len(truth) - good, good, 0, told - len(truth)), seed
