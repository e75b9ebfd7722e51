"""The Parquet sink under crashes, frozen owners, resets and twins: every row is in the files once."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestcore.stage import Fate, Gap, Input
from ingestcore.stores.objects import Unavailable
from ingestcore.testing.by_hand import fates, feed, offsets, settle
from ingestcore.testing.harness import drive
from ingestcore.testing.sink_world import (
    ORDERS,
    MemoryBucket,
    SinkWorld,
    dead_letter,
    normalized,
    object_facts,
    rows_input,
)
from services.parquet_sink import wiring
from services.parquet_sink.settings import ParquetSinkSettings
from services.parquet_sink.stage import ParquetSink


def open_sink(world: SinkWorld, **settings: Any) -> ParquetSink:
    return world.opened(wiring.open_sink, ParquetSinkSettings(**settings))


@pytest.fixture
def world(tmp_path: Path) -> SinkWorld:
    return SinkWorld(tmp_path / "state", {0: [rows_input(offset) for offset in range(6)], 1: []})


# -- nothing is written twice


def test_a_done_range_is_delivered_again_without_writing(world: SinkWorld) -> None:
    sink = open_sink(world)
    feed(sink, *world.topics.inputs[0])
    settle(sink, final=True)
    before = dict(world.bucket.objects)
    again = open_sink(world)
    steps = feed(again, *world.topics.inputs[0])
    assert offsets(steps) == [0, 1, 2, 3, 4, 5]
    assert fates(steps) == {Fate.DELIVERED: 60}
    assert settle(again, final=True) == []
    assert world.bucket.objects == before


def test_settings_changed_and_offsets_reset_leave_files_byte_for_byte(world: SinkWorld) -> None:
    sink = open_sink(world)
    for input in world.topics.inputs[0]:
        feed(sink, input)
        settle(sink, final=True)
    before = world.files()
    world.specs.parquet |= {"batch_size": 3, "max_bytes": 1}
    again = open_sink(world)
    feed(again, *world.topics.inputs[0])
    settle(again, final=True)
    assert world.files() == before


@pytest.mark.parametrize("operation", ["claim put", "first file put", "second file put", "done put"])
@pytest.mark.parametrize("lived", [True, False], ids=["same process", "another process"])
def test_whatever_step_fails_the_rows_are_there_once(tmp_path: Path, operation: str, lived: bool) -> None:
    """The step is done but its answer lost, as when the process is killed right after it."""
    acme = object_facts("a", tenant="acme")
    columns = pa.table({"id": pa.array(range(900, 904), pa.int64()), "text": ["x"] * 4})
    world = SinkWorld(
        tmp_path / "state", {0: [rows_input(0), normalized(1, columns, [ORDERS, acme], which=[0, 1, 0, 1])]}
    )
    sink = open_sink(world, upload_threads=1)
    number = ["claim put", "first file put", "second file put", "done put"].index(operation)
    fail_after(world.bucket, number)
    feed(sink, *world.topics.inputs[0])
    with pytest.raises(Unavailable):
        settle(sink, final=True)
    world.bucket.before = lambda operation, key: None
    sink.aborted()
    assert world.temporary() == []
    world.specs.parquet["batch_size"] = 3
    if not lived:
        sink = open_sink(world)
    steps = feed(sink, *world.topics.inputs[0]) + settle(sink, final=True)
    assert offsets(steps) == [0, 1]
    assert world.column("id") == Counter([*range(10), *range(900, 904)])
    assert len(world.files()) == 2
    assert all(groups(data) == 1 for data in world.files().values()), "the layout recorded in the claim counts"
    assert world.temporary() == []


def fail_after(bucket: MemoryBucket, puts: int) -> None:
    """Let the put of this number through and lose its answer."""
    left = puts

    def before(operation: str, key: str) -> None:
        nonlocal left
        if operation == "put_new":
            left -= 1
            if left < -1:
                raise Unavailable("killed")

    real = bucket.put_new

    def put_new(where: str, key: str, data: bytes | Path) -> bool:
        written = real(where, key, data)
        if left < 0:
            bucket.put_new = real  # type: ignore[method-assign]
            raise Unavailable("the answer is lost")
        return written

    bucket.before = before
    bucket.put_new = put_new  # type: ignore[assignment, method-assign]


def groups(data: bytes) -> int:
    return int(pq.ParquetFile(io.BytesIO(data)).metadata.num_row_groups)


def test_an_owner_that_was_replaced_while_it_held_inputs_writes_only_what_is_left(world: SinkWorld) -> None:
    frozen, successor = open_sink(world), open_sink(world)
    feed(frozen, *world.topics.inputs[0])
    feed(successor, *world.topics.inputs[0][:4])
    settle(successor, final=True)
    steps = settle(frozen, final=True)
    assert offsets(steps) == [0, 1, 2, 3, 4, 5]
    assert fates(steps) == {Fate.DELIVERED: 60}
    assert world.column("id") == Counter(i for n in range(6) for i in range(n * 1000, n * 1000 + 10))
    assert len(world.files()) == 2
    assert world.temporary() == []


def test_a_successor_finishes_what_a_frozen_owner_claimed_and_both_agree(world: SinkWorld) -> None:
    frozen = open_sink(world)
    feed(frozen, *world.topics.inputs[0][:4])
    blocked = Freeze(world.bucket, "put_new", "lake/orders")
    with pytest.raises(Unavailable):
        settle(frozen, final=True)
    blocked.lift()
    successor = open_sink(world)
    assert world.topics.replays == [(0, 0, 3)]
    feed(successor, *world.topics.inputs[0])
    settle(successor, final=True)
    assert sum(world.column("id").values()) == 60 == len(world.column("id"))


class Freeze:
    """Every operation of this kind on these keys fails until it is lifted."""

    def __init__(self, bucket: MemoryBucket, kind: str, part: str) -> None:
        self._bucket = bucket

        def before(operation: str, key: str) -> None:
            if operation == kind and part in key:
                raise Unavailable("the store is away")

        bucket.before = before

    def lift(self) -> None:
        self._bucket.before = lambda operation, key: None


def test_an_input_dead_lettered_instead_is_nobodys_and_can_be_written_later(world: SinkWorld) -> None:
    """The runtime quarantined offset 2: the claim around it must not swallow it, nor must a replay touch it."""
    inputs = world.topics.inputs[0]
    sink = open_sink(world)
    feed(sink, *inputs[:2], *inputs[3:])
    blocked = Freeze(world.bucket, "put_new", "lake/orders")
    with pytest.raises(Unavailable):
        settle(sink, final=True)
    blocked.lift()
    world.topics.inputs[0][2] = Input(inputs[2].at, b"not arrow", inputs[2].headers)
    successor = open_sink(world)
    assert sum(world.column("id").values()) == 50
    feed(successor, rows_input(2))
    settle(successor, final=True)
    assert sum(world.column("id").values()) == 60 == len(world.column("id"))


def test_records_gone_by_retention_stop_the_sink_with_advice(world: SinkWorld) -> None:
    sink = open_sink(world)
    feed(sink, *world.topics.inputs[0])
    blocked = Freeze(world.bucket, "put_new", "lake/orders")
    with pytest.raises(Unavailable):
        settle(sink, final=True)
    blocked.lift()
    world.topics.log_start[0] = 3
    with pytest.raises(Gap, match=r"0/00000000\.json claims offsets 0-5 .* starts at 3.*00000000\.done"):
        open_sink(world)
    assert world.temporary() == []
    world.bucket.objects["lake/_ingest/claims/topic-id/0/00000000.done"] = b""
    assert fates(feed(open_sink(world), *world.topics.inputs[0][3:])) == {Fate.DELIVERED: 30}


def test_a_recreated_topic_starts_a_log_of_its_own(world: SinkWorld) -> None:
    sink = open_sink(world)
    feed(sink, *world.topics.inputs[0])
    settle(sink, final=True)
    world.topics.id = "another"
    again = open_sink(world)
    feed(again, *world.topics.inputs[0])
    settle(again, final=True)
    assert {len(list(group)) for group in (world.bucket.keys("/topic-id-0-"), world.bucket.keys("/another-0-"))} == {1}


def test_two_sinks_at_one_place_never_take_each_others_inputs(world: SinkWorld) -> None:
    visits = object_facts("b", dataset="visits@3")
    columns = pa.table({"id": pa.array(range(50, 54), pa.int64()), "text": ["x"] * 4})
    inputs = [rows_input(0), normalized(1, columns, [visits]), rows_input(2), normalized(3, columns, [visits])]
    world.specs.more = {"datasets": ["orders"]}
    first = open_sink(world)
    feed(first, *inputs)
    settle(first, final=True)
    world.specs.more = {"datasets": ["visits"]}
    second = open_sink(world)
    steps = feed(second, *inputs) + settle(second, final=True)
    assert fates(steps) == {Fate.DELIVERED: 28}
    assert [len(world.bucket.keys(f"lake/{table}/")) for table in ("orders", "visits")] == [1, 1]


# -- the contract


@pytest.mark.parametrize("seed", range(8))
def test_any_schedule_of_commits_aborts_and_kills_writes_every_row_once(tmp_path: Path, seed: int) -> None:
    world = SinkWorld(tmp_path / "state", {p: [rows_input(n, 3, partition=p) for n in range(12)] for p in (0, 1)})
    world.specs.parquet["max_bytes"] = 4000
    first_run_and_reset(world, "normalized", seed)
    assert world.column("id") == Counter((p * 100 + n) * 1000 + i for p in (0, 1) for n in range(12) for i in range(3))


@pytest.mark.parametrize("seed", range(8))
def test_any_schedule_writes_every_dead_letter_once_however_often_it_came(tmp_path: Path, seed: int) -> None:
    inputs = {p: [dead_letter(n, b"raw", ORDERS, row=n % 7 + 100 * p, partition=p) for n in range(12)] for p in (0, 1)}
    world = SinkWorld(tmp_path / "state", inputs)
    world.specs.parquet["max_bytes"] = 4000
    world.specs.more = {"from": "dlq"}
    tally = first_run_and_reset(world, "dlq", seed)
    assert world.column("id") == Counter({input.headers["id"] for many in inputs.values() for input in many})
    assert tally == {Fate.DELIVERED: 14, Fate.DUPLICATE: 10}


def first_run_and_reset(world: SinkWorld, topic: str, seed: int) -> Counter[Fate]:
    """Run under faults, reset to earliest, run again under others. -> fates of the second run."""

    def make(_: object) -> ParquetSink:
        return wiring.open_sink(world.context(ParquetSinkSettings()), clock=world.clock)

    inputs = {(topic, p): many for p, many in world.topics.inputs.items()}
    drive(make, inputs, seed)
    files = world.files()
    world.specs.parquet["batch_size"] = 2
    committed = drive(make, inputs, seed + 1000)
    assert world.files() == files
    found: Counter[Fate] = Counter()
    for line in committed.tally:
        found[line.fate] += line.rows
    return found
