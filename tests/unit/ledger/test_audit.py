"""What `ingest ledger` says about one object, case by case."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import orjson
import pytest
from rich.console import Console

from ingestcore.cli.looking.ledger import document, show
from ingestcore.ledger import Audit, Hop, ObjectAudit, State, Totals, audit
from ingestcore.messages.ledger import Entry, LedgerRecord
from ingestcore.messages.objects import ObjectRef
from ingestcore.stage import Fate, Origin

REF = ObjectRef("default", "s3-main", "orders", "lake", "raw/orders.csv", "etag", 1000, "", "")
ORIGIN = Origin(REF.id, "default", "s3-main", "orders@1", REF.uri)

Fates = dict[Fate, tuple[int, int]]


def rows(**by_fate: int) -> Fates:
    return {Fate(name): (count, 0) for name, count in by_fate.items()}


@dataclass
class Facts:
    """Builds ledger records the way the stages write them."""

    origin: Origin = ORIGIN
    records: list[LedgerRecord] = field(default_factory=list)

    def add(
        self,
        stage: str,
        topic: str,
        offset: int,
        pass_id: str,
        fates: Fates,
        *,
        instance: str = "",
        upstream: str = "",
        sequence: int = 0,
        last: bool = True,
    ) -> Facts:
        entry = Entry(topic, f"id-{topic}", 0, offset, pass_id, upstream, sequence, last, fates)
        self.records.append(LedgerRecord(stage, instance or stage, "0", self.origin, (entry,)))
        return self

    def read(self, pass_id: str, fates: Fates, offset: int = 0, sequence: int = 0, last: bool = True) -> Facts:
        return self.add("chunk-downloader", "objects", offset, pass_id, fates, sequence=sequence, last=last)

    def parse(self, pass_id: str, fates: Fates, *, of: str, offset: int = 0) -> Facts:
        return self.add("csv-parser", "blocks", offset, pass_id, fates, upstream=of)

    def normalize(self, pass_id: str, fates: Fates, offset: int = 0) -> Facts:
        return self.add("normalizer", "typed", offset, pass_id, fates)

    def deliver(self, pass_id: str, fates: Fates, offset: int = 0, sink: str = "lake") -> Facts:
        return self.add("parquet-sink", "normalized", offset, pass_id, fates, instance=sink)


def straight() -> Facts:
    """100 rows: 3 bad, 2 blank, 15 duplicates, 80 published and in the lake."""
    facts = Facts().read("d1", {Fate.EMITTED: (100, 980), Fate.BLANK: (0, 20)})
    facts.parse("p1", rows(emitted=95, rejected=3, blank=2), of="d1")
    return facts.normalize("n1", rows(emitted=80, duplicate=15)).deliver("s1", rows(delivered=80))


def judged(facts: Facts, *, idle: bool = True, sinks: tuple[str, ...] = ("lake",), whole: bool = True) -> ObjectAudit:
    (found,) = audit(facts.records, [REF], sinks=sinks, idle=idle, whole_ledger=whole)
    return found


def test_every_row_of_an_object_is_told() -> None:
    found = judged(straight())
    assert found.state is State.BALANCED
    assert (found.read, found.published, found.duplicates, found.dead, found.blank) == (100, 80, 15, 3, 2)
    assert (found.replayed, found.nbytes, found.size, found.sinks["lake"].delivered) == (0, 1000, 1000, 80)


def test_a_fact_read_twice_counts_once() -> None:
    facts = straight()
    facts.records += facts.records
    assert judged(facts) == judged(straight())


def test_a_long_download_adds_up_over_its_commits() -> None:
    facts = Facts().read("d1", {Fate.EMITTED: (40, 400)}, last=False)
    facts.read("d1", {Fate.EMITTED: (60, 600)}, sequence=1)
    facts.parse("p1", rows(emitted=40), of="d1").parse("p2", rows(emitted=60), of="d1", offset=1)
    facts.normalize("n1", rows(emitted=100)).deliver("s1", rows(delivered=100))
    found = judged(facts)
    assert (found.state, found.read, found.nbytes) == (State.BALANCED, 100, 1000)


def test_each_reset_shows_as_replayed_rows_and_changes_nothing_else() -> None:
    facts = straight()
    facts.deliver("s2", rows(delivered=80))  # the sink: 80 rows
    facts.normalize("n2", rows(duplicate=95))  # the normalizer: 95
    facts.parse("p2", rows(emitted=95, rejected=3, blank=2), of="d1")  # the parser: 100
    facts.normalize("n3", rows(duplicate=95), offset=1)
    facts.read("d2", {Fate.EMITTED: (100, 980), Fate.BLANK: (0, 20)})  # the downloader: 100
    facts.parse("p3", rows(emitted=95, rejected=3, blank=2), of="d2", offset=1)
    facts.normalize("n4", rows(duplicate=95), offset=2)
    found = judged(facts)
    assert found.state is State.BALANCED
    assert (found.read, found.published, found.duplicates, found.dead, found.blank) == (100, 80, 15, 3, 2)
    assert found.sinks["lake"].delivered == 80
    assert found.replayed == 80 + 95 + 100 + 100


def test_a_changed_object_does_not_undo_what_was_read_before() -> None:
    facts = straight().read("d2", {Fate.REJECTED: (0, 1000)}, offset=1)
    found = judged(facts)
    assert (found.state, found.read, found.published, found.duplicates) == (State.BALANCED, 100, 80, 15)


def test_an_object_cut_short_is_incomplete_though_its_rows_add_up() -> None:
    facts = Facts().read("d1", {Fate.EMITTED: (60, 600), Fate.REJECTED: (0, 400)})
    facts.parse("p1", rows(emitted=60), of="d1").normalize("n1", rows(emitted=60)).deliver("s1", rows(delivered=60))
    found = judged(facts)
    assert (found.state, found.read, found.published) == (State.INCOMPLETE, 60, 60)
    # The object vanished after that: the pass that came furthest speaks for it.
    found = judged(facts.read("d2", {Fate.REJECTED: (0, 1000)}, offset=1))
    assert (found.state, found.read, found.published, found.duplicates) == (State.INCOMPLETE, 60, 60, 0)


def test_an_empty_object_balances() -> None:
    found = judged(Facts().read("d1", {Fate.EMITTED: (0, 0), Fate.BLANK: (0, 1000)}))
    assert (found.state, found.read, found.published) == (State.BALANCED, 0, 0)


def test_a_row_too_large_is_a_dead_letter_of_the_downloader() -> None:
    facts = Facts().read("d1", {Fate.EMITTED: (9, 90), Fate.REJECTED: (1, 910)})
    facts.parse("p1", rows(emitted=9), of="d1").normalize("n1", rows(emitted=9)).deliver("s1", rows(delivered=9))
    found = judged(facts)
    assert (found.state, found.read, found.dead, found.published) == (State.BALANCED, 10, 1, 9)


def test_a_row_the_normalizer_gave_up_on_is_dead_until_another_pass_publishes_it() -> None:
    facts = Facts().read("d1", {Fate.EMITTED: (10, 1000)}).parse("p1", rows(emitted=10), of="d1")
    facts.normalize("n1", rows(rejected=10))
    found = judged(facts)
    assert (found.state, found.dead, found.duplicates) == (State.BALANCED, 10, 0)
    facts.parse("p2", rows(emitted=10), of="d1").normalize("n2", rows(emitted=10), offset=1)
    found = judged(facts.deliver("s1", rows(delivered=10)))
    assert (found.state, found.dead, found.published, found.duplicates) == (State.BALANCED, 0, 10, 0)


def test_every_fate_at_a_sink_accounts_for_published_rows() -> None:
    facts = Facts().read("d1", {Fate.EMITTED: (10, 1000)}).parse("p1", rows(emitted=10), of="d1")
    facts.normalize("n1", rows(emitted=10)).deliver("s1", rows(delivered=10))
    facts.deliver("w1", rows(delivered=4, stale=3, rejected=2, not_for_us=1), sink="warehouse")
    found = judged(facts, sinks=("lake", "warehouse"))
    tally = found.sinks["warehouse"]
    assert found.state is State.BALANCED
    assert (tally.delivered, tally.stale, tally.dead, tally.not_for_us) == (4, 3, 2, 1)


def test_a_sink_that_left_the_configuration_is_shown_and_not_judged() -> None:
    found = judged(straight().deliver("o1", rows(delivered=7), sink="old"))
    assert found.state is State.BALANCED
    assert found.sinks["old"].delivered == 7


def test_letters_in_the_dead_letter_lake_and_a_listers_steps_are_no_rows() -> None:
    facts = straight()
    facts.add("parquet-sink", "dlq", 0, "q1", rows(delivered=1), instance="dlq")
    facts.add("s3-lister", "s3-main", 0, "l1", rows(emitted=1))
    found = judged(facts, sinks=("lake",))
    assert found == judged(straight())


STAGES = ("chunk-downloader", "csv-parser", "normalizer", "parquet-sink")


def up_to(stage: str) -> Facts:
    """The straight run with the stages after this one missing."""
    facts = straight()
    facts.records = [record for record in facts.records if STAGES.index(record.stage) <= STAGES.index(stage)]
    return facts


@pytest.mark.parametrize(
    ("facts", "hop"),
    [
        (up_to("chunk-downloader"), Hop.PARSE),
        (up_to("csv-parser"), Hop.NORMALIZE),
        (up_to("normalizer"), Hop.SINK),
        (Facts(), Hop.DOWNLOAD),
        (Facts().read("d1", {Fate.EMITTED: (40, 400)}, last=False), Hop.DOWNLOAD),
    ],
    ids=["block lost", "typed message lost", "normalized message lost", "listing lost", "download stopped"],
)
def test_missing_rows_are_under_way_while_anyone_works_and_lost_when_all_are_done(facts: Facts, hop: Hop) -> None:
    found = judged(facts, idle=False)
    assert found.hop is hop
    assert found.state in (State.IN_PROGRESS, State.PENDING)
    found = judged(facts, idle=True)
    assert (found.state, found.hop) == (State.UNBALANCED, hop)


@pytest.mark.parametrize(
    ("facts", "hop"),
    [
        (straight().parse("p9", rows(emitted=5), of="d1", offset=9), Hop.PARSE),
        (straight().normalize("n9", rows(duplicate=5), offset=9), Hop.NORMALIZE),
        (straight().deliver("s9", rows(delivered=5), offset=9), Hop.SINK),
        (straight().normalize("n2", rows(emitted=3, duplicate=92)), Hop.DEDUPE),
        (Facts().read("d1", {Fate.EMITTED: (100, 999)}), Hop.DOWNLOAD),
    ],
    ids=["block twice", "typed message twice", "normalized message twice", "rows published twice", "bytes missing"],
)
def test_rows_from_nowhere_are_an_alarm_at_once(facts: Facts, hop: Hop) -> None:
    found = judged(facts, idle=False)
    assert (found.state, found.hop) == (State.UNBALANCED, hop)
    assert found.note


def test_more_rows_published_than_read_is_an_alarm() -> None:
    facts = Facts().read("d1", {Fate.EMITTED: (10, 1000)})
    facts.parse("p1", rows(emitted=10), of="d1").parse("p2", rows(emitted=10), of="d1")
    facts.normalize("n1", rows(emitted=10)).normalize("n2", rows(emitted=10), offset=1)
    found = judged(facts.deliver("s1", rows(delivered=20)))
    assert (found.state, found.hop, found.duplicates) == (State.UNBALANCED, Hop.DEDUPE, -10)


def test_bytes_of_a_compressed_object_are_not_compared_with_its_size() -> None:
    ref = ObjectRef("default", "s3-main", "orders", "lake", "raw/orders.csv.gz", "etag", 300, "", "")
    facts = Facts(Origin(ref.id, "default", "s3-main", "orders@1", ref.uri)).read("d1", {Fate.EMITTED: (0, 1000)})
    (found,) = audit(facts.records, [ref], sinks=())
    assert (found.state, found.size, found.nbytes) == (State.BALANCED, 300, 1000)


def test_an_object_whose_first_facts_are_gone_by_retention_is_expired_not_wrong() -> None:
    facts = straight()
    facts.records = facts.records[1:]
    assert judged(facts, whole=False).state is State.EXPIRED
    assert judged(facts, whole=True).state is State.UNBALANCED


def test_the_same_object_under_two_tenants_is_two_objects() -> None:
    other = ObjectRef("acme", "s3-main", "orders", "lake", "raw/orders.csv", "etag", 1000, "", "")
    facts = straight()
    half = Facts(Origin(other.id, "acme", "s3-main", "orders@1", other.uri)).read("d7", rows(emitted=0), last=False)
    found = audit([*facts.records, *half.records], [REF, other], sinks=("lake",))
    assert [(o.origin.tenant, o.state) for o in found] == [
        ("acme", State.IN_PROGRESS),
        ("default", State.BALANCED),
    ]


def test_dataset_versions_of_an_object_are_judged_apart() -> None:
    newer = Facts(ORIGIN._replace(dataset="orders@2"))
    newer.read("d2", {Fate.EMITTED: (100, 1000)}).parse("p9", rows(emitted=98, rejected=2), of="d2", offset=9)
    newer.normalize("n9", rows(emitted=1, duplicate=97), offset=9).deliver("s9", rows(delivered=1), offset=9)
    first, second = audit([*straight().records, *newer.records], [REF], sinks=("lake",), idle=True)
    assert (first.state, second.state) == (State.BALANCED, State.BALANCED)
    assert (first.published, second.published, second.duplicates) == (80, 1, 97)


def test_a_version_that_stopped_half_way_is_superseded_by_the_next() -> None:
    older = Facts().read("d1", {Fate.EMITTED: (10, 100)}, last=False).parse("p1", rows(emitted=10), of="d1")
    older.normalize("n1", rows(emitted=10)).deliver("s1", rows(delivered=10))
    newer = Facts(ORIGIN._replace(dataset="orders@2")).read("d2", {Fate.EMITTED: (10, 1000)})
    newer.parse("p2", rows(emitted=10), of="d2", offset=1).normalize("n2", rows(duplicate=10), offset=1)
    states = [o.state for o in audit([*older.records, *newer.records], [REF], sinks=("lake",), idle=True)]
    assert states == [State.SUPERSEDED, State.BALANCED]


def test_an_object_refused_before_a_version_was_chosen_is_shown_until_one_reads_it() -> None:
    refused = Facts(ORIGIN._replace(dataset="orders")).read("d0", {Fate.REJECTED: (0, 1000)})
    (found,) = audit(refused.records, [REF], sinks=("lake",), idle=True)
    assert found.state is State.INCOMPLETE
    (found,) = audit([*refused.records, *straight().records], [REF], sinks=("lake",), idle=True)
    assert (found.state, found.origin.dataset) == (State.BALANCED, "orders@1")


def test_totals_and_json_say_what_the_table_says() -> None:
    found = judged(straight())
    totals = Totals.of([found, found])
    assert (totals.objects, totals.read, totals.published, totals.delivered) == (2, 200, 160, {"lake": 160})
    assert totals.states == {State.BALANCED: 2}
    told = orjson.loads(orjson.dumps(document([found], settled=True)))
    assert told["objects"][0]["uri"] == REF.uri
    assert told["objects"][0]["sinks"]["lake"]["delivered"] == 80
    assert told["totals"]["duplicates"] == 15
    assert told["totals"]["states"] == {"balanced": 1}


def test_the_brokers_time_of_the_newest_fact_is_when_something_happened_last() -> None:
    gathered = Audit()
    for moment, record in zip((5, 9, 7), straight().records, strict=False):
        gathered.take(record, moment)
    listed_only = replace(REF, key="raw/other.csv")
    gathered.listed(listed_only, 3)
    gathered.listed(listed_only, 8)
    updated = {found.origin.uri: found.updated_ms for found in gathered.objects()}
    assert updated == {REF.uri: 9, listed_only.uri: 3}


def test_the_table_names_hop_and_reason_of_an_unbalanced_object() -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(console, [judged(up_to("normalizer"))])
    text = console.export_text()
    assert "s3://lake/raw/orders.csv" in text
    assert "UNBALANCED at normalizer -> sink: 0 of 80 rows for lake taken, 80 missing" in text
