"""Which rows came late is told exactly, on a real Postgres and a model of Kafka: batches are cut at random, the sink
ends or loses its database anywhere between the two commits, and reads again from what Kafka holds as committed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from devstack import Stack
from ingestcore.stage import Fate, Input
from ingestcore.testing.database_world import DatabaseWorld, Run, fates, reasons
from services.postgres_sink.database import Database
from services.postgres_sink.failures import Away
from services.postgres_sink.stage import PostgresSinkStage

Row = tuple[int, int | None]
"""Entity and revision."""
ENTITIES = 12
REVISIONS = 9
ROWS_A_MESSAGE = 7


class Unsteady(Database):
    """A database that is lost before or after some of its commits."""

    def __init__(self, world: DatabaseWorld, chance: random.Random, rate: Callable[[], float]) -> None:
        super().__init__("warehouse", world.sink_spec().database, 5.0)
        self._chance, self._rate = chance, rate

    def write(self, chunk: Any) -> Any:
        before, after = (self._chance.random() < self._rate() for _ in range(2))
        if before:
            raise Away("lost before it was asked")
        found = super().write(chunk)
        if after:
            raise Away("lost before it answered")
        return found


class Consumption:
    """A sink that reads a partition, and what Kafka has of it: the offset to go on from and the letters."""

    def __init__(self, world: DatabaseWorld, inputs: Sequence[Input], seed: int) -> None:
        self.world, self.inputs = world, inputs
        self.chance = random.Random(seed)
        self.committed, self.letters, self.faults = 0, set[str](), True
        self.stage = self._new_stage()

    def _new_stage(self) -> PostgresSinkStage:
        self.world.spec["batch_size"] = self.chance.choice([2, 5, 1000])
        stage = PostgresSinkStage(
            "warehouse",
            self.world.sink_spec,
            self.world.dataset,
            lambda: self.world.topic_id,
            lambda place: Unsteady(self.world, self.chance, lambda: 0.1 if self.faults else 0.0),
            clock=lambda: self.world.now,
        )
        stage.assigned([0])
        return stage

    def run(self, offset: int = 0) -> None:
        """From an offset to the end."""
        self.committed = offset
        while self.committed < len(self.inputs):
            if not self._turn():
                self._end()

    def _turn(self) -> bool:
        """One transaction of Kafka. -> whether it was committed and the sink knows."""
        count = self.chance.randint(1, 5)
        try:
            for input in self.inputs[self.committed : self.committed + count]:
                assert not list(self.stage.process(input, None))
            (step,) = self.stage.settle(final=False)
        except Away:
            return False
        end = self.chance.random() if self.faults else 1.0
        if end < 0.2:
            return False
        assert sum(fates(step).values()) == sum(input.rows or 0 for input in self.inputs if input.at in step.covers)
        assert fates(step).get(Fate.REJECTED, 0) == 0
        self.letters |= {row for _, row in reasons(step.rejects)}
        self.committed += len(step.covers)
        if end < 0.3:
            return False
        self.stage.committed()
        return True

    def _end(self) -> None:
        """The process ends, or rolls back and goes on."""
        if self.chance.random() < 0.5:
            self.stage._writer.close()
            self.stage = self._new_stage()
        else:
            self.stage.aborted()


def drawn(seed: int) -> list[Row]:
    chance = random.Random(seed)
    rows: list[Row] = [
        (id, chance.choice([None, *range(1, REVISIONS)])) for id in range(ENTITIES) for _ in range(REVISIONS)
    ]
    chance.shuffle(rows)
    return rows


def messages(world: DatabaseWorld, rows: Sequence[Row], chance: random.Random) -> list[Input]:
    """-> rows numbered through, in messages of two versions of the dataset."""
    world.datasets["orders@2"] = world.datasets["orders@1"]
    made = []
    for first in range(0, len(rows), ROWS_A_MESSAGE):
        ids, revisions = zip(*rows[first : first + ROWS_A_MESSAGE], strict=True)
        columns = {"id": list(ids), "revision": pa.array(revisions, pa.int64())}
        made.append(world.rows(columns, first_row=first, dataset=f"orders@{chance.choice([1, 1, 2])}"))
    return made


def came_late(rows: Sequence[Row]) -> set[str]:
    """-> numbers of the rows that come after a higher revision of their entity."""
    highest: dict[int, int] = {}
    late = set()
    for number, (id, revision) in enumerate(rows):
        if (revision or 0) < highest.get(id, 0):
            late.add(str(number))
        highest[id] = max(revision or 0, highest.get(id, 0))
    return late


@pytest.mark.parametrize("seed", range(20))
def test_every_late_row_has_its_letter_and_no_other(postgres: Stack, seed: int) -> None:
    """Also where Postgres has the newer rows and Kafka nothing of it, and after resets that bring deleted rows back."""
    world, rows = DatabaseWorld(postgres.endpoints.postgres), drawn(seed)
    sink = Consumption(world, messages(world, rows, random.Random(seed)), seed)
    sink.run()
    late = came_late(rows)
    assert sink.letters == late and len(late) > ENTITIES
    select = "SELECT id, revision FROM orders ORDER BY id"
    highest = [(id, max(revision or 0 for other, revision in rows if other == id)) for id in range(ENTITIES)]
    assert world.sql(select) == highest
    for _ in range(3):
        world.sql("DELETE FROM orders WHERE id = ANY(%s)", sink.chance.sample(range(ENTITIES), 4))
        sink.run(sink.chance.choice([0, 0, 3]))
        assert sink.letters == late
    sink.run()
    assert world.sql(select) == highest and sink.letters == late


def test_a_late_row_is_noted_until_kafka_has_its_letter(postgres: Stack) -> None:
    world = DatabaseWorld(postgres.endpoints.postgres)
    sink = Consumption(world, [], 0)
    sink.faults = False
    run, notes = Run(sink.stage), "SELECT _sink, _topic_id, _partition, _offset, _index FROM _ingest_late"

    def rows(*revisions: int) -> Input:
        return world.rows({"id": [1] * len(revisions), "revision": list(revisions)})

    run.give(rows(5))
    assert world.sql(notes) == []
    assert len(run.give(rows(6, 4, 7)).rejects) == 1
    assert world.sql(notes) == [("warehouse", "topic-1", 0, 1, 1)]
    run.give(rows(8))
    assert world.sql(notes) == []
    world.sql("INSERT INTO _ingest_late VALUES ('warehouse', 'old', 0, 0, 0, now() - interval '31 days')")
    world.sql("INSERT INTO _ingest_late VALUES ('another', 'old', 0, 0, 0, now() - interval '31 days')")
    Run(sink._new_stage()).give(rows(1))
    assert world.sql(notes + " ORDER BY 1") == [("another", "old", 0, 0, 0), ("warehouse", "topic-1", 0, 3, 0)]
