"""The Postgres sink. Pure: it decides what is held, written, waited for and refused; the database comes in.

Inputs are held until the commit and written before it. A row is written where it is newer than what is there, so that
writing it again, after a crash or an operator's reset, changes nothing: Kafka's offsets are the only memory, but for
rows that came late (`late`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import pyarrow as pa

from ingestcore.datasets.postgres_sink import PostgresSink
from ingestcore.datasets.registry import NotSeenYet
from ingestcore.datasets.spec import DatasetSpec, SinkSpec
from ingestcore.messages.rows import OBJECT, read
from ingestcore.reasons import Reason
from ingestcore.stage import At, Fate, Input, Line, Origin, Reject, Step
from services.postgres_sink.breaker import Breaker, Circuit
from services.postgres_sink.chunk import Chunk, Slice, facts_of, slices_of
from services.postgres_sink.failures import Away, CircuitOpen, TimedOut
from services.postgres_sink.letters import letter
from services.postgres_sink.outcome import Outcome
from services.postgres_sink.table import table_of


class Writer(Protocol):
    """A database, or what plays one."""

    spec: PostgresSink

    def write(self, chunk: Chunk) -> Outcome:
        """Raises Away, TimedOut, OperatorNeeded."""

    def committed(self) -> None: ...

    def aborted(self) -> None: ...

    def close(self) -> None: ...


class PostgresSinkStage:
    """One sink. See `Stage` for who calls what.

    spec      the sink's spec in force; raises NotSeenYet when it was removed
    dataset   the spec of `name@version`
    topic_id  of `normalized`
    open      makes the database's client; nothing is connected yet
    clock     monotonic seconds
    """

    concurrency = 1

    def __init__(
        self,
        sink: str,
        spec: Callable[[], SinkSpec],
        dataset: Callable[[str], DatasetSpec],
        topic_id: Callable[[], str],
        open: Callable[[PostgresSink], Writer],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._sink, self._read_spec, self._dataset, self._open = sink, spec, dataset, open
        self._read_topic_id, self._topic_id = topic_id, ""
        self._spec = spec()
        self._writer = open(self._spec.database)
        self._breaker = Breaker(
            lambda: self._spec.database.open_after, lambda: self._spec.database.half_open_after, clock
        )
        self._held: list[tuple[Input, pa.RecordBatch]] = []
        self._counted: Counter[str] = Counter()

    # -- assignment
    def assigned(self, partitions: Sequence[int]) -> None:
        self._topic_id = self._read_topic_id()

    def revoked(self, partitions: Sequence[int]) -> None: ...

    def committed(self) -> None:
        self._writer.committed()

    def aborted(self) -> None:
        self._writer.aborted()
        self._held.clear()

    # -- inputs
    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        self._follow_spec()
        batch = read(input.value)
        if not self._spec.takes(_name(input)):
            yield Step((input.at,), _lines(input.at, batch, Fate.NOT_FOR_US))
        else:
            self._held.append((input, batch))

    def settle(self, *, final: bool) -> Iterator[Step]:
        """Write what is held. All is in the database before the step is yielded. Raises Away, TimedOut, CircuitOpen,
        OperatorNeeded, NotSeenYet."""
        if not self._held:
            return
        tally: Counter[tuple[At, Origin, Fate]] = Counter()
        rejects: list[Reject] = []
        for input, batch in self._held:
            for line in _lines(input.at, batch, Fate.DELIVERED):
                tally[line[:3]] += line.rows
        for chunk in self._chunks():
            for row, reject, fate in self._judged(chunk):
                part, within = chunk.locate(row)
                origin = Origin.of(_facts(part.batch, within))
                tally[part.input.at, origin, Fate.DELIVERED] -= 1
                tally[part.input.at, origin, fate] += 1
                if reject is not None:
                    rejects.append(reject)
        lines = [Line(*place, rows) for place, rows in tally.items() if rows]
        self._count(lines)
        covers = [input.at for input, _ in self._held]
        self._held = []
        yield Step(covers, lines, rejects=rejects)

    def _chunks(self) -> Iterator[Chunk]:
        """-> what is held, each table's rows in order: of one dataset version and columns."""
        place, limit = self._spec.database, self._spec.database.batch_size
        by_table: dict[str, list[tuple[Input, pa.RecordBatch]]] = {}
        for input, batch in self._held:
            by_table.setdefault(place.table or _name(input), []).append((input, batch))
        runs = ((name, run) for name, held in by_table.items() for run in groupby(held, _shape))
        for name, ((dataset, schema), held) in runs:
            table = table_of(place.schema_, name, self._dataset(dataset), schema)
            gathered: list[Slice] = []
            for part in (part for input, batch in held for part in slices_of(input, batch, limit)):
                if gathered and sum(s.batch.num_rows for s in gathered) + part.batch.num_rows > limit:
                    yield Chunk(dataset, table, gathered, self._topic_id)
                    gathered = []
                gathered.append(part)
            if gathered:
                yield Chunk(dataset, table, gathered, self._topic_id)

    # -- rows
    def _judged(self, chunk: Chunk) -> Iterator[tuple[int, Reject | None, Fate]]:
        """Write a chunk. -> its rows that are not delivered."""
        found = self._written(chunk)
        if isinstance(found, Reason):
            message = f"{chunk.table.label}: the database is away (on_outage: dead_letter)"
            for row in range(chunk.rows):
                yield row, letter(chunk, row, found, message, self._sink), Fate.REJECTED
            return
        for row, late in found.stale.items():
            message = f"{chunk.table.label} holds a higher {chunk.table.revision} of this entity"
            reject = letter(chunk, row, Reason.OLDER_REVISION, message, self._sink, Fate.STALE) if late else None
            yield row, reject, Fate.STALE
        for row, said in found.refused.items():
            message = f"{chunk.table.label}: {said}"
            yield row, letter(chunk, row, Reason.CONSTRAINT_VIOLATION, message, self._sink), Fate.REJECTED

    def _written(self, chunk: Chunk) -> Outcome | Reason:
        """-> what became of the rows; a reason: the database is away, and they are not waited for."""
        waits = self._spec.database.on_outage == "pause"
        if self._breaker.state() is Circuit.OPEN:
            if not waits:
                return Reason.CIRCUIT_OPEN
            raise self._left_alone(f"Postgres of sink {self._sink} has failed again and again")
        try:
            found = self._writer.write(chunk)
        except (Away, TimedOut) as error:
            self._breaker.failed()
            if self._breaker.state() is not Circuit.OPEN:
                raise
            if waits:
                raise self._left_alone(str(error)) from error
            return Reason(error.reason)
        self._breaker.succeeded()
        return found

    def _left_alone(self, why: str) -> CircuitOpen:
        seconds = self._breaker.seconds_left()
        return CircuitOpen(f"{why}: the circuit breaker is open, next try in {seconds:.0f} s", seconds)

    # -- settings
    def _follow_spec(self) -> None:
        """Take the spec in force; another database is gone to only with empty hands."""
        if self._held:
            return
        try:
            spec = self._read_spec()
        except NotSeenYet:
            return  # the sink was removed: go on as it was until this process is stopped
        if spec.database != self._spec.database:
            self._writer.close()
            self._writer = self._open(spec.database)
        self._spec = spec

    # -- for health
    def circuit_open(self) -> bool:
        return self._breaker.state() is not Circuit.CLOSED

    def status(self) -> dict[str, Any]:
        return {
            "circuit": self._breaker.state().value,
            "next_try_seconds": round(self._breaker.seconds_left(), 1),
            "held_rows": sum(batch.num_rows for _, batch in list(self._held)),
            "rows_settled": dict(self._counted),
            "schema": self._spec.database.schema_,
        }

    def _count(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._counted[line.fate.value] += line.rows


def _name(input: Input) -> str:
    return input.headers["dataset"].rpartition("@")[0]


def _shape(held: tuple[Input, pa.RecordBatch]) -> tuple[str, pa.Schema]:
    input, batch = held
    return input.headers["dataset"], batch.schema


def _facts(batch: pa.RecordBatch, row: int) -> Any:
    return facts_of(batch.column(OBJECT)[row].as_py())


def _lines(at: At, batch: pa.RecordBatch, fate: Fate) -> list[Line]:
    """-> a line for each object with rows in the batch."""
    counts = Counter(batch.column(OBJECT).indices.to_pylist())
    texts = batch.column(OBJECT).dictionary.to_pylist()
    return [Line(at, Origin.of(facts_of(texts[code])), fate, rows) for code, rows in counts.items()]
