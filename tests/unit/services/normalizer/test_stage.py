"""The normalizer as a stage: exactly one row per key goes on, every row is accounted for, whatever the schedule."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from ingestcore.datasets.provenance import provenance_problem
from ingestcore.datasets.registry import Registry
from ingestcore.messages import rows
from ingestcore.stage import At, Fate, Input, Origin, Owner, Step, check
from ingestcore.testing.changelog import TransactionalLog
from ingestcore.testing.harness import Committed, drive
from ingestcore.testing.typed_rows import DATASET, facts_of, typed_batch, typed_input
from services.normalizer import NormalizerSettings, capacity_of
from services.normalizer.changelog import CHANGELOG, RECORD_BYTES
from services.normalizer.partitions import OwnedPartitions
from services.normalizer.stage import Normalizer
from services.normalizer.state import FilterPlan

PARTITIONS = 2
Place = tuple[str, int]


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def _key(number: int) -> bytes:
    return number.to_bytes(4, "big") * 4


class CommittedChangelog:
    """`TopicAccess` over what a run has committed."""

    def __init__(self, committed: Committed) -> None:
        self._committed = committed
        self._owned_from: dict[int, int] = {}

    def topic_id(self, topic: str) -> str:
        return "id"

    def partitions(self, topic: str) -> int:
        return PARTITIONS

    def end(self, topic: str, partition: int) -> int:
        return len(self._records(partition))

    def start(self, topic: str, partition: int) -> int:
        return 0

    def produced(self, topic: str, partition: int) -> list[tuple[int, int]]:
        records = self._records(partition)[self._owned_from.get(partition, 0) :]
        return [(record.at.offset, record.timestamp_ms) for record in records][-1:]

    def replay(self, topic: str, partition: int, first: int | None = None, last: int | None = None) -> Iterator[Input]:
        records = self._records(partition)
        self._owned_from[partition] = len(records)
        yield from records[first or 0 :]

    def _records(self, partition: int) -> list[Input]:
        return self._committed.inputs(CHANGELOG).get((CHANGELOG, partition), [])


def _stage(
    topics: CommittedChangelog | TransactionalLog,
    folder: Path,
    gather_bytes: int = 0,
    report: Callable[[Mapping[Owner, int], Mapping[int, int]], None] = lambda duplicates, keys: None,
) -> Normalizer:
    keys = OwnedPartitions(topics, folder, lambda: FilterPlan(50, 0.01), memtable_keys=40)
    return Normalizer(
        keys,
        gather_bytes=gather_bytes,
        window=lambda dataset: None,
        produced=lambda p: topics.produced(CHANGELOG, p),
        report=report,
    )


def _alone(tmp_path: Path, gather_bytes: int = 0) -> Normalizer:
    stage = _stage(TransactionalLog(PARTITIONS), tmp_path, gather_bytes)
    stage.assigned(range(PARTITIONS))
    return stage


def _run(stage: Normalizer, *inputs: Input) -> list[Step]:
    """Process and settle, checked as the runtime does."""
    steps = [step for input in inputs for step in stage.process(input, None) if step is not None]
    steps += stage.settle(final=False)
    for step in steps:
        check(step)
    return steps


def _published(emits: Sequence[object]) -> list[pa.RecordBatch]:
    return [rows.read(emit.value) for emit in emits if emit.topic == "normalized"]  # type: ignore[attr-defined]


def _random_inputs(seed: int) -> dict[Place, list[Input]]:
    """Batches of many sizes, objects and two datasets, with repeats within and between them."""
    rng = random.Random(seed)
    objects = [facts_of(f"part-{n}.csv", dataset) for n in range(4) for dataset in (DATASET, "other@2")]
    inputs: dict[Place, list[Input]] = {}
    for partition in range(PARTITIONS):
        for offset in range(12):
            dataset = rng.choice((DATASET, "other@2"))
            own = [facts for facts in objects if facts.dataset == dataset]
            count = rng.choice((0, 1, 5, 40))
            # The partition is made from the key, so partitions share no keys; nor do datasets.
            numbers = [rng.randrange(60) * 4 + partition * 2 + (dataset == DATASET) for _ in range(count)]
            batch = typed_batch([_key(n) for n in numbers], [rng.choice(own) for _ in numbers])
            inputs.setdefault(("typed", partition), []).append(typed_input(partition, offset, batch, dataset))
    return inputs


@pytest.mark.parametrize("seed", range(40))
def test_any_schedule_publishes_each_key_once_and_accounts_for_every_row(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    inputs = _random_inputs(seed)
    gather_bytes = rng.choice((0, 3000, 1 << 20))

    def make(committed: Committed) -> Normalizer:
        # A new process finds its own disk, an older one, or none.
        return _stage(CommittedChangelog(committed), tmp_path / str(rng.randrange(3)), gather_bytes)

    committed = drive(make, inputs, seed)
    read = [(input.at, input.headers["dataset"], rows.read(input.value)) for many in inputs.values() for input in many]
    keys_in = {key for _, _, batch in read for key in batch.column(rows.KEY).to_pylist()}
    published = Counter(key for batch in _published(committed.emits) for key in batch.column(rows.KEY).to_pylist())
    assert published == dict.fromkeys(keys_in, 1)
    logged = b"".join(emit.value for emit in committed.emits if emit.topic == CHANGELOG)
    assert sorted(logged[i : i + 16] for i in range(0, len(logged), 16)) == sorted(keys_in)

    told: Counter[tuple[At, str]] = Counter()
    for line in committed.tally:
        assert line.fate in (Fate.EMITTED, Fate.DUPLICATE) and line.rows > 0
        told[line.at, line.origin.uri] += line.rows
    expected = Counter(
        (at, Origin.of(facts_of(_name(text), dataset)).uri)
        for at, dataset, batch in read
        for text in batch.column(rows.OBJECT).to_pylist()
    )
    assert told == expected


def _name(facts: str) -> str:
    from ingestcore.messages.objects import ObjectFacts

    return ObjectFacts.decode(facts).uri.removeprefix("s3://lake/")


def test_a_row_passes_unchanged_and_learns_its_provenance(tmp_path: Path) -> None:
    facts = facts_of("a.csv", purpose="INV-7", ingestedBy="data-eng", classification="internal")
    other = facts_of("b.csv")
    hashes = ["a" * 64, "b" * 64, "a" * 64]
    batch = typed_batch([_key(1), _key(2), _key(3)], [facts, facts, other], [7, 8, 1], hashes)
    step, _ = _run(_alone(tmp_path), typed_input(0, 0, batch))
    assert step.emits[0].headers == {"dataset": DATASET} and step.emits[0].partition == 0
    out = rows.read(step.emits[0].value)
    assert out.schema.names == ["text", "number", *(field.name for field in rows.NORMALIZED_FIELDS)]
    assert [out.schema.field(field.name) for field in rows.NORMALIZED_FIELDS] == list(rows.NORMALIZED_FIELDS)
    assert out.schema.field("text").metadata == {b"pii": b"no"}
    for name in ("text", "number", rows.KEY, rows.OBJECT, rows.ROW):
        assert out.column(name).to_pylist() == batch.column(name).to_pylist()
    entries = out.column(rows.PROVENANCE).to_pylist()
    assert entries[0] == {
        "sourceId": "s3-main",
        "sourceType": "S3",
        "sourceUri": "s3://lake/a.csv",
        "contentHash": "a" * 64,
        "hashAlgorithm": "SHA-256",
        "ingestedAt": "2024-05-01T12:00:00.000Z",
        "observedAt": None,
        "purpose": "INV-7",
        "classification": "internal",
        "parentId": None,
        "transformations": [f"csv-parse:{DATASET}", "dedupe"],
        "ingestedBy": "data-eng",
        "batchId": facts.id,
    }
    assert entries[1] == entries[0] | {"contentHash": "b" * 64}
    assert (entries[2]["sourceUri"], entries[2]["purpose"], entries[2]["contentHash"]) == (
        other.uri,
        "default",
        "a" * 64,
    )
    assert [provenance_problem(entry) for entry in entries] == [None] * 3
    assert len(out.column(rows.PROVENANCE).dictionary) == 3


@pytest.mark.parametrize("objects", [1, 3, 1500])
def test_each_pair_of_object_and_segment_has_one_entry(objects: int, tmp_path: Path) -> None:
    """Few pairs are counted in a table, many are sorted: both ways say the same."""
    rng = random.Random(objects)
    facts = [facts_of(f"{number}.csv") for number in range(objects)]
    of_row = [rng.choice(facts) for _ in range(2000)]
    hashes = [f"{rng.randrange(objects):064x}" for _ in range(2000)]
    batch = typed_batch([_key(number) for number in range(2000)], of_row, hashes=hashes)
    step, _ = _run(_alone(tmp_path), typed_input(0, 0, batch))
    column = rows.read(step.emits[0].value).column(rows.PROVENANCE)
    assert len(column.dictionary) == len(set(zip((f.uri for f in of_row), hashes, strict=True)))
    told = [(entry["sourceUri"], entry["contentHash"]) for entry in column.to_pylist()]
    assert told == [(f.uri, digest) for f, digest in zip(of_row, hashes, strict=True)]


def test_of_equal_rows_in_one_batch_the_first_passes(tmp_path: Path) -> None:
    batch = typed_batch([_key(n) for n in (1, 2, 1, 3, 2)], [facts_of("a.csv")] * 5)
    step, changelog = _run(_alone(tmp_path), typed_input(0, 0, batch))
    assert _published(step.emits)[0].column(rows.ROW).to_pylist() == [1, 2, 4]
    assert [(line.fate, line.rows) for line in step.tally] == [(Fate.EMITTED, 3), (Fate.DUPLICATE, 2)]
    assert changelog.covers == () and changelog.emits[0].topic == CHANGELOG and changelog.emits[0].rows == 0


def test_a_batch_of_duplicates_makes_no_message(tmp_path: Path) -> None:
    stage = _alone(tmp_path)
    batch = typed_batch([_key(1), _key(2)], [facts_of("a.csv")] * 2)
    _run(stage, typed_input(0, 0, batch))
    stage.committed()
    again = typed_batch([_key(2), _key(1)], [facts_of("b.csv")] * 2)
    (step,) = _run(stage, typed_input(0, 1, again))
    assert step.emits == () and [(line.fate, line.rows) for line in step.tally] == [(Fate.DUPLICATE, 2)]
    assert step.tally[0].origin == Origin.of(facts_of("b.csv"))


def test_an_empty_batch_is_finished_without_a_message(tmp_path: Path) -> None:
    (step,) = _run(_alone(tmp_path), typed_input(0, 0, typed_batch([], [])))
    assert (step.covers, step.tally, step.emits) == ([At("typed", 0, 0)], [], ())


def test_keys_are_known_only_in_their_partition(tmp_path: Path) -> None:
    """`_entity` picks the partition, so the same key never comes in two; each partition has its own state."""
    stage = _alone(tmp_path)
    batch = typed_batch([_key(1)], [facts_of("a.csv")])
    steps = _run(stage, typed_input(0, 0, batch), typed_input(1, 0, batch))
    assert [emit.partition for step in steps for emit in step.emits if emit.topic == CHANGELOG] == [0, 1]


def test_small_inputs_share_a_message(tmp_path: Path) -> None:
    stage = _alone(tmp_path, gather_bytes=1 << 20)
    inputs = [
        typed_input(0, offset, typed_batch([_key(offset), _key(0)], [facts_of("a.csv"), facts_of(f"{offset}.csv")]))
        for offset in range(10)
    ]
    assert [step for input in inputs for step in stage.process(input, None)] == []
    step, _ = _run(stage)
    assert list(step.covers) == [input.at for input in inputs]
    (batch,) = _published(step.emits)
    assert batch.num_rows == 10
    assert [entry["sourceUri"] for entry in batch.column(rows.PROVENANCE).to_pylist()] == ["s3://lake/a.csv"] * 10
    by_input = {at: sum(line.rows for line in step.tally if line.at == at) for at in step.covers}
    assert by_input == dict.fromkeys(step.covers, 2)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(lambda: typed_batch([_key(2)], [facts_of("a.csv")]).rename_columns(
            ["words", "number", *(field.name for field in rows.TYPED_FIELDS)]), id="other columns"),
        pytest.param(lambda: typed_batch([_key(n) for n in range(100)], [facts_of("a.csv")] * 100), id="too many rows"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_kept_apart(
    second: Callable[[], pa.RecordBatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.normalizer.piles.MAX_ROWS", 100)
    stage = _alone(tmp_path, gather_bytes=1 << 30)
    first = typed_input(0, 0, typed_batch([_key(1)], [facts_of("a.csv")]))
    steps = _run(stage, first, typed_input(0, 1, second()))
    assert [list(step.covers) for step in steps[:2]] == [[At("typed", 0, 0)], [At("typed", 0, 1)]]


def test_datasets_and_partitions_are_gathered_apart(tmp_path: Path) -> None:
    stage = _alone(tmp_path, gather_bytes=1 << 20)
    inputs = [
        typed_input(partition, offset, typed_batch([_key(offset)], [facts_of("a.csv", dataset)]), dataset)
        for offset, (partition, dataset) in enumerate([(0, "a@1"), (0, "a@2"), (1, "a@1"), (0, "a@1")])
    ]
    steps = [step for step in _run(stage, *inputs) if step.covers]
    assert [[at.offset for at in step.covers] for step in steps] == [[0, 3], [1], [2]]
    assert [step.emits[0].headers["dataset"] for step in steps] == ["a@1", "a@2", "a@1"]


def test_a_large_input_is_not_copied_together_with_small_ones(tmp_path: Path) -> None:
    stage = _alone(tmp_path, gather_bytes=20_000)
    small = typed_input(0, 0, typed_batch([_key(1)], [facts_of("a.csv")]))
    large = typed_input(0, 1, typed_batch([_key(n) for n in range(2, 500)], [facts_of("a.csv")] * 498))
    steps = [step for input in (small, large) for step in stage.process(input, None) if step is not None]
    assert [[at.offset for at in step.covers] for step in steps] == [[0], [1]]


def test_an_abort_forgets_held_inputs_and_pending_keys(tmp_path: Path) -> None:
    stage = _alone(tmp_path, gather_bytes=1 << 20)
    input = typed_input(0, 0, typed_batch([_key(1)], [facts_of("a.csv")]))
    list(stage.process(input, None))
    stage.aborted()
    assert list(stage.settle(final=False)) == []
    _run(stage, input)
    stage.aborted()
    step, changelog = _run(stage, input)
    assert sum(emit.rows for emit in step.emits) == 1 and len(changelog.emits) == 1


def test_revoked_partitions_leave_no_state(tmp_path: Path) -> None:
    stage = _alone(tmp_path)
    _run(stage, typed_input(0, 0, typed_batch([_key(1)], [facts_of("a.csv")])))
    stage.committed()
    stage.revoked([0])
    stage.aborted()
    assert list(stage._keys._owned) == [1]  # type: ignore[attr-defined]


def test_a_large_commit_splits_its_changelog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RECORD_BYTES % 16 == 0
    monkeypatch.setattr("services.normalizer.state.RECORD_BYTES", 160)
    batch = typed_batch([_key(n) for n in range(25)], [facts_of("a.csv")] * 25)
    _, changelog = _run(_alone(tmp_path), typed_input(0, 0, batch))
    assert [len(emit.value) for emit in changelog.emits] == [160, 160, 80]


def test_duplicates_and_keys_are_reported_when_committed(tmp_path: Path) -> None:
    reports: list[tuple[Mapping[Owner, int], Mapping[int, int]]] = []
    stage = _stage(TransactionalLog(PARTITIONS), tmp_path, report=lambda *told: reports.append(told))
    stage.assigned([0])
    batch = typed_batch([_key(n) for n in (1, 1, 2)], [facts_of("a.csv")] * 3)
    _run(stage, typed_input(0, 0, batch))
    stage.aborted()
    for offset in range(2):
        _run(stage, typed_input(0, offset, batch))
        stage.committed()
    stage.revoked([0])
    owner = Origin.of(facts_of("a.csv")).owner
    assert reports == [({}, {0: 0}), ({owner: 1}, {0: 2}), ({owner: 3}, {0: 2}), ({}, {})]


def _without(name: str) -> Input:
    batch = typed_batch([_key(1)], [facts_of("a.csv")])
    return typed_input(0, 0, batch.drop_columns([name]))


def _nulls(name: str) -> Input:
    batch = typed_batch([_key(1)], [facts_of("a.csv")])
    number = batch.schema.get_field_index(name)
    field = batch.schema.field(number).with_nullable(True)
    return typed_input(0, 0, batch.set_column(number, field, pa.nulls(1, field.type)))


def _facts_text(text: str) -> Input:
    batch = typed_batch([_key(1)], [facts_of("a.csv")])
    number = batch.schema.get_field_index(rows.OBJECT)
    column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([text]))
    return typed_input(0, 0, batch.set_column(number, batch.schema.field(number), column))


@pytest.mark.parametrize(
    ("input", "says"),
    [
        pytest.param(
            Input(At("typed", 0, 0), b"no Arrow", {"dataset": DATASET, "rows": "1"}), "not an Arrow", id="bytes"
        ),
        pytest.param(Input(At("typed", 0, 0), b"", {"rows": "0"}), "header `dataset`", id="no dataset"),
        *(pytest.param(_without(f.name), f"one column {f.name}", id=f"without {f.name}") for f in rows.TYPED_FIELDS),
        *(pytest.param(_nulls(n), f"{n} must not", id=f"null {n}") for n in (rows.KEY, rows.OBJECT, rows.HASH)),
        pytest.param(_facts_text("{}"), "object facts", id="object without facts"),
        pytest.param(_facts_text("half {"), "object facts", id="facts that are no JSON"),
    ],
)
def test_a_message_that_is_no_typed_batch_is_refused_and_leaves_no_trace(
    input: Input, says: str, tmp_path: Path
) -> None:
    stage = _alone(tmp_path, gather_bytes=1 << 20)
    with pytest.raises(ValueError, match=says):
        list(stage.process(input, None))
    assert list(stage.settle(final=False)) == []


def test_the_filter_is_sized_by_settings_and_by_datasets_that_say_so() -> None:
    specs = Registry()
    settings = NormalizerSettings(filter_capacity=1000, filter_error_rate=0.02)
    assert capacity_of(settings, specs) == (1000, 0.02)
    specs.feed("dataset/a@1", b'{"dedupe": {"capacity": 5000, "error_rate": 0.005}}')
    specs.feed("dataset/b@1", b'{"dedupe": {"keys": "all"}}')
    for name in ("a", "b"):
        specs.feed(f"dataset/{name}", b'{"version": 1}')
    assert capacity_of(settings, specs) == (5000, 0.005)
