"""The csv-parser's stage: what leaves it for a block, how small blocks are gathered, what an abort forgets."""

from __future__ import annotations

import functools
import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from ingestcore.datasets.registry import NotSeenYet, Registry
from ingestcore.datasets.spec import DatasetSpec, Dialect
from ingestcore.messages.blocks import SEGMENT_BYTES, Block
from ingestcore.messages.objects import ObjectFacts, object_id
from ingestcore.messages.rows import MAX_ROWS, TYPED_FIELDS, read
from ingestcore.reasons import Reason
from ingestcore.stage import At, Emit, Fate, Input, Reject, Step, Unbalanced, check
from ingestcore.tabular.row_ends import record_ends
from ingestcore.testing.harness import drive
from services.csv_parser.stage import CsvParser

PARTITIONS = 4
FIELDS: dict[str, Any] = {
    "primary_key": ["id"],
    "fields": {"id": {"type": "string", "nullable": False}, "n": "integer", "s": "string"},
}
COLUMNS = ("id", "n", "s")


def registry(**datasets: dict[str, Any]) -> Registry:
    specs = Registry()
    for name, described in datasets.items():
        specs.feed(f"dataset/{name}@1", DatasetSpec.model_validate(described).canonical())
    return specs


def parser(**settings: Any) -> CsvParser:
    return CsvParser(registry(things=FIELDS, others=FIELDS), PARTITIONS, **settings)


def facts_of(name: str, dataset: str = "things") -> ObjectFacts:
    return ObjectFacts(
        id=object_id("acme", "drop", f"{dataset}@1", "lake", name, "etag"),
        tenant="acme",
        source="drop",
        dataset=f"{dataset}@1",
        uri=f"s3://lake/{name}",
        etag="etag",
        first_seen="2024-05-01T12:00:00.000Z",
        provenance={},
    )


def blocks_of(
    data: bytes,
    name: str = "a.csv",
    *,
    size: int = 1 << 20,
    dataset: str = "things",
    columns: tuple[str, ...] = COLUMNS,
    header_bytes: int = 0,
    offset: int = 0,
) -> list[Input]:
    """An object's blocks as the downloader cuts them. `header_bytes`: bytes of the object before its first record."""
    ends = record_ends(data, Dialect()).tolist()
    if not ends or ends[-1] < len(data):
        ends.append(len(data))
    inputs: list[Input] = []
    start = first = 0
    for place, end in enumerate(ends):
        following = ends[place + 1] if place + 1 < len(ends) else None
        if following is not None and following - start <= size:
            continue
        begin, stop = start + header_bytes, end + header_bytes
        segments = range(begin // SEGMENT_BYTES, (stop - 1) // SEGMENT_BYTES + 1)
        block = Block(
            object=facts_of(name, dataset),
            columns=columns,
            number=len(inputs),
            first_row=first + 1,
            first_byte=begin,
            last=following is None,
            segments=tuple((n, hashlib.sha256(f"{name} {n}".encode()).hexdigest()) for n in segments),
        )
        at = At("blocks", 0, offset + len(inputs))
        inputs.append(Input(at, data[start:end], block.headers() | {"rows": str(place + 1 - first)}))
        start, first = end, place + 1
    return inputs


def run(stage: CsvParser, inputs: Iterable[Input]) -> list[Step]:
    """Steps of all inputs and of the commit after them, each checked."""
    steps = [step for input in inputs for step in stage.process(input, None) if step is not None]
    steps += stage.settle(final=False)
    for step in steps:
        check(step)
    return steps


def emits(steps: Sequence[Step]) -> list[Emit]:
    return [emit for step in steps for emit in step.emits]


def rejects(steps: Sequence[Step]) -> list[Reject]:
    return [reject for step in steps for reject in step.rejects]


def rows(sent: Iterable[Emit]) -> list[dict[str, Any]]:
    return [row for emit in sent for row in read(bytes(emit.value)).to_pylist()]


def told(steps: Sequence[Step]) -> Counter[Fate]:
    counts: Counter[Fate] = Counter()
    for step in steps:
        for line in step.tally:
            counts[line.fate] += line.rows
    return counts


def test_a_row_leaves_with_its_values_keys_object_hash_and_number() -> None:
    steps = run(parser(), blocks_of(b"a,1,x\n\nb,,\n", header_bytes=7))
    out = sorted(rows(emits(steps)), key=lambda row: row["_row"])
    assert [(row["id"], row["n"], row["s"], row["_row"]) for row in out] == [("a", 1, "x", 1), ("b", None, None, 3)]
    assert {row["_object"] for row in out} == {facts_of("a.csv").encode()}
    assert {row["_hash"] for row in out} == {hashlib.sha256(b"a.csv 0").hexdigest()}
    assert len({row["_key"] for row in out}) == len({row["_entity"] for row in out}) == 2
    assert told(steps) == {Fate.EMITTED: 2, Fate.BLANK: 1}


def test_a_message_has_the_datasets_columns_then_the_platforms() -> None:
    (emit,) = emits(run(parser(), blocks_of(b"a,1,x\n")))
    batch = read(bytes(emit.value))
    assert batch.schema.names == [*COLUMNS, *(field.name for field in TYPED_FIELDS)]
    assert list(batch.schema)[3:] == list(TYPED_FIELDS)
    assert emit.headers == {"dataset": "things@1"}
    assert (emit.topic, emit.rows, emit.key) == ("typed", 1, None)


def test_a_row_goes_to_the_partition_of_its_entity() -> None:
    data = b"".join(b"k%d,1,\n" % i for i in range(300))
    for emit in emits(run(parser(), blocks_of(data))):
        owners = {int.from_bytes(row["_entity"][:4], "big") % PARTITIONS for row in rows([emit])}
        assert owners == {emit.partition}


def test_rows_of_a_block_that_crosses_a_segment_carry_the_hash_of_the_segment_they_start_in() -> None:
    inputs = blocks_of(b"a,1,\n" * 6, header_bytes=SEGMENT_BYTES - 13)
    out = rows(emits(run(parser(), inputs)))
    hashes = [hashlib.sha256(f"a.csv {n}".encode()).hexdigest() for n in (0, 1)]
    # Records start at bytes -13, -8, -3, +2 … of the edge.
    assert [row["_hash"] for row in sorted(out, key=lambda row: row["_row"])] == [hashes[0]] * 3 + [hashes[1]] * 3


def test_a_bad_row_is_a_dead_letter_with_its_bytes_and_place() -> None:
    steps = run(parser(), blocks_of(b'a,1,\r\nb,x,"q\nr"\r\nc,3,\r\n', header_bytes=9))
    (letter,) = rejects(steps)
    assert letter.raw == b'b,x,"q\nr"\r\n'
    assert letter.reason is Reason.VALIDATION_FAIL
    assert letter.message == "row 2: n is not a whole number of at most 64 bits"
    assert letter.facts == {"row": "2", "byte_first": "15", "byte_last": "26", "column": "n", "value": "x"}
    assert (letter.rows, letter.reentry, letter.object) == (1, "blocks", facts_of("a.csv"))
    assert told(steps) == {Fate.EMITTED: 2, Fate.REJECTED: 1}


def test_the_value_stands_in_the_facts_only() -> None:
    (letter,) = rejects(run(parser(), blocks_of(b"a,hush-hush,\n")))
    assert "hush" not in letter.message
    assert letter.facts["value"] == "hush-hush"


def storm(lines: int, bad: Sequence[int]) -> bytes:
    return b"".join((b"k%d,x,\n" if i in bad else b"k%d,1,\n") % i for i in range(1, lines + 1))


def test_past_the_storm_limit_further_bad_rows_of_a_block_are_one_letter() -> None:
    bad = [2, 3, 5, 8, 9, 10, 20, 22]
    data = storm(30, bad)
    steps = run(parser(storm_limit=3), blocks_of(data))
    letters = rejects(steps)
    assert [letter.facts["row"] for letter in letters] == ["2", "3", "5", "8"]
    last = letters[-1]
    assert (last.reason, last.rows) == (Reason.QUARANTINED, 5)
    assert (last.facts["rows"], last.facts["count"], last.facts["row_last"]) == ("8-10,20,22", "5", "22")
    spans = [tuple(map(int, span.split("-"))) for span in last.facts["bytes"].split(",")]
    assert b"".join(data[start:end] for start, end in spans) == last.raw == b"k8,x,\nk9,x,\nk10,x,\nk20,x,\nk22,x,\n"
    assert data[int(last.facts["byte_first"]) : int(last.facts["byte_last"])].startswith(b"k8,")
    assert told(steps) == {Fate.EMITTED: 22, Fate.REJECTED: 8}


def test_good_rows_of_a_storm_pass_whatever_the_blocks() -> None:
    chance = random.Random(3)
    data = storm(400, chance.sample(range(1, 401), 300))
    outcomes = []
    for size in (40, 500, 1 << 20):
        steps = run(parser(storm_limit=5), blocks_of(data, size=size))
        outcomes.append((sorted(row["_row"] for row in rows(emits(steps))), told(steps)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_huge_storm_keeps_its_letter_small_and_accounts_for_every_row() -> None:
    count = 60_000
    data = b"".join(b"k%d,x,%s\n" % (i, b"p" * 40) if i % 2 else b"k%d,1,\n" % i for i in range(count))
    letter = rejects(run(parser(storm_limit=2), blocks_of(data, size=1 << 23)))[-1]
    assert len(letter.raw) <= 900_000 and letter.raw.endswith(b"\n")
    assert letter.raw.count(b"\n") == int(letter.facts["raw_rows"])
    runs = [run_.partition("-") for run_ in letter.facts["rows"].split(",")]
    listed = sum(int(last or first) - int(first) + 1 for first, _, last in runs)
    assert letter.rows == count // 2 - 2 == listed + int(letter.facts["rows_unlisted"])
    assert len(letter.facts["bytes"].split(",")) == len(runs)
    assert sum(len(text) for text in letter.facts.values()) < 200_000


def test_small_blocks_are_held_until_enough_is_gathered_then_one_step_covers_them() -> None:
    stage = parser(gather_bytes=100)
    inputs = [blocks_of(b"a%d,1,\n" % i, f"{i}.csv", offset=i)[0] for i in range(40)]
    steps = [list(stage.process(input, None)) for input in inputs]
    first = next(i for i, some in enumerate(steps) if some)
    (step,) = steps[first]
    assert step is not None
    assert list(step.covers) == [input.at for input in inputs[: first + 1]]
    assert sum(emit.rows for emit in step.emits) == first + 1
    assert len({row["_object"] for row in rows(step.emits)}) == first + 1


def test_a_message_names_only_the_objects_it_has_rows_of() -> None:
    inputs = [blocks_of(b"a%d,1,\n" % i, f"{i}.csv", offset=i)[0] for i in range(40)]
    for emit in emits(run(parser(), inputs)):
        batch = read(bytes(emit.value))
        assert len(batch.column("_object").dictionary) == len(set(batch.column("_object").to_pylist()))
        assert len(batch.column("_hash").dictionary) == len(set(batch.column("_hash").to_pylist()))


def test_a_commit_releases_what_is_held() -> None:
    stage = parser()
    (input,) = blocks_of(b"a,1,\n")
    assert list(stage.process(input, None)) == []
    (step,) = stage.settle(final=False)
    assert list(step.covers) == [input.at]
    assert list(stage.settle(final=True)) == []


def test_a_large_block_is_not_held() -> None:
    (input,) = blocks_of(b"a,1,\n" * 100)
    (step,) = parser(large_bytes=300).process(input, None)
    assert step is not None and list(step.covers) == [input.at]


def test_datasets_and_columns_do_not_share_messages() -> None:
    free: dict[str, Any] = {}
    stage = CsvParser(registry(things=FIELDS, free=free), PARTITIONS)
    inputs = [
        *blocks_of(b"a,1,\n", "1", offset=0),
        *blocks_of(b"a,1,\n", "2", offset=1, dataset="free"),
        *blocks_of(b"x\n", "3", offset=2, dataset="free", columns=("z",)),
    ]
    sent = emits(run(stage, inputs))
    assert sorted((emit.headers["dataset"], len(read(bytes(emit.value)).schema.names)) for emit in sent) == [
        ("free@1", 6),
        ("free@1", 8),
        ("things@1", 8),
    ]


def test_messages_stay_within_their_limits() -> None:
    count = MAX_ROWS + 5
    data = b"a,1,\n" * count
    sent = emits(run(parser(message_bytes=8 << 20), blocks_of(data, size=1 << 23)))
    assert [emit.rows for emit in sent] == [MAX_ROWS, 5]
    wide = b"".join(b"k%d,1,%s\n" % (i % 3, b"v" * 1000) for i in range(3000))
    sizes = [len(emit.value) for emit in emits(run(parser(message_bytes=200_000), blocks_of(wide, size=1 << 23)))]
    assert max(sizes) < 300_000 and sum(sizes) > 3_000_000


def test_long_rows_side_by_side_do_not_make_a_huge_message() -> None:
    lines = [b"k,1,%s\n" % (b"v" * (20_000 if 500 <= i < 550 else 1)) for i in range(4000)]
    sent = emits(run(parser(message_bytes=100_000), blocks_of(b"".join(lines), size=1 << 23)))
    assert max(len(emit.value) for emit in sent) < 250_000
    assert [row["_row"] for row in rows(sent)] == list(range(1, 4001))


def test_an_abort_forgets_what_is_held() -> None:
    stage = parser()
    (input,) = blocks_of(b"a,1,\n")
    assert list(stage.process(input, None)) == []
    stage.aborted()
    assert list(stage.settle(final=False)) == []
    assert len(rows(emits(run(stage, [input])))) == 1


def test_an_unknown_dataset_version_is_waited_for_and_nothing_else_is_lost() -> None:
    specs = registry(things=FIELDS)
    stage = CsvParser(specs, PARTITIONS)
    known, unknown = blocks_of(b"a,1,\n"), blocks_of(b"b,1,\n", "b", dataset="others", offset=1)
    assert list(stage.process(known[0], None)) == []
    with pytest.raises(NotSeenYet, match="others@1"):
        list(stage.process(unknown[0], None))
    stage.aborted()
    specs.feed("dataset/others@1", DatasetSpec.model_validate(FIELDS).canonical())
    assert len(rows(emits(run(stage, [*known, *unknown])))) == 2


@pytest.mark.parametrize("promised", ["0", "2", "4"])
def test_a_block_with_other_than_the_promised_rows_stops_the_stage(promised: str) -> None:
    (input,) = blocks_of(b"a,1,\nb,x,\n\n")
    told_otherwise = Input(input.at, input.value, {**input.headers, "rows": promised})
    with pytest.raises(Unbalanced, match=f"{promised} rows were promised, 3 were found"):
        list(parser().process(told_otherwise, None))


def test_a_block_without_the_hash_of_its_segment_is_refused() -> None:
    (input,) = blocks_of(b"a,1,\n")
    with pytest.raises(ValueError, match="lack the hash"):
        list(parser().process(Input(input.at, input.value, {**input.headers, "segments": "[]"}), None))


def test_an_empty_block_is_covered() -> None:
    (filled,) = blocks_of(b"a,1,\n")
    (step,) = run(parser(), [Input(filled.at, b"", {**filled.headers, "rows": "0", "segments": "[]"})])
    assert (list(step.covers), list(step.tally), list(step.emits)) == ([filled.at], [], [])


def test_every_schedule_of_commits_aborts_and_kills_gives_the_same_rows() -> None:
    chance = random.Random(9)
    inputs: list[Input] = []
    for number in range(12):
        lines = [b"k%d,%s,\n" % (chance.randrange(50), chance.choice([b"1", b"x", b""])) for _ in range(30)]
        inputs += blocks_of(b"\n".join(lines), f"{number}.csv", size=200, offset=len(inputs))
    steps = run(parser(), inputs)

    def result(sent: Iterable[Emit], refused: Iterable[Reject]) -> tuple[list[Any], list[Any]]:
        out = sorted((row["_object"], row["_row"], row["_key"]) for row in rows(sent))
        return out, sorted((letter.origin.id, int(letter.facts["row"]), letter.raw) for letter in refused)

    expected = result(emits(steps), rejects(steps))
    for seed in range(12):
        make = functools.partial(parser, gather_bytes=chance.choice([1, 300, 4000]))
        done = drive(lambda _, make=make: make(), {("blocks", 0): inputs}, seed)  # type: ignore[misc]
        assert result(done.emits, done.rejects) == expected


def test_objects_without_a_spec_run_as_text() -> None:
    stage = CsvParser(registry(drop={}), PARTITIONS)
    (emit,) = emits(run(stage, blocks_of(b"a,007,\n", dataset="drop")))
    batch = read(bytes(emit.value))
    assert batch.schema.types[:3] == [pa.string()] * 3
    assert batch.to_pylist()[0]["n"] == "007"
    assert batch.column("_entity").equals(batch.column("_key"))
