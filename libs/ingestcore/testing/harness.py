"""The stage contract without a broker: the same inputs under any schedule of commits, aborts and kills give the same
rows. Uses the runtime's own progress and checks; only Kafka and time are played.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ingestcore.runtime.progress import Mark, Place, Progress
from ingestcore.runtime.recording import rows_of
from ingestcore.stage import At, Emit, Input, Line, Reject, Stage, Step, Unbalanced, check

_ROUNDS = 10_000
_WAIT_SECONDS = 0.0005


@dataclass
class Committed:
    """What a run has committed so far: all a restarted stage may know of its past."""

    emits: list[Emit] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    tally: list[Line] = field(default_factory=list)
    _placed: dict[str, tuple[int, dict[Place, list[Input]]]] = field(default_factory=dict)

    def inputs(self, topic: str) -> dict[Place, list[Input]]:
        """Emits of a topic as the next stage would read them. Asked after every commit: only what is new is made."""
        made, placed = self._placed.get(topic, (0, {}))
        for emit in self.emits[made:]:
            if emit.topic == topic:
                place = (topic, emit.partition or 0)
                offset = len(placed.setdefault(place, []))
                at = At(topic, place[1], offset)
                headers = {**emit.headers, "rows": str(emit.rows), "pass": "p"}
                placed[place].append(Input(at, bytes(emit.value), headers, emit.key or b"", 1_700_000_000_000))
        self._placed[topic] = len(self.emits), placed
        return placed


class _Crash(Exception):
    """The process dies, or a transaction is refused."""


MakeStage = Callable[[Committed], Stage]


def drive(
    make: MakeStage,
    inputs: Mapping[Place, Sequence[Input]],
    seed: int,
    *,
    faults: bool = True,
    fault_rate: float = 0.03,
) -> Committed:
    """Run a stage over all inputs. -> what was committed.

    make    builds the stage as a new process would, from what is committed
    seed    of the schedule; faults: crashes anywhere, also between the writes of a sink and the commit
    Raises Unbalanced, AssertionError: no progress.
    """
    run = _Run(make, inputs, random.Random(seed), fault_rate if faults else 0.0)
    for _ in range(_ROUNDS):
        try:
            if run.once():
                return run.committed
        except _Crash:
            run.crash()
    raise AssertionError(f"no progress after {_ROUNDS} rounds, seed {seed}")


class _Run:
    def __init__(
        self, make: MakeStage, inputs: Mapping[Place, Sequence[Input]], random_: random.Random, fault_rate: float
    ) -> None:
        self.committed = Committed()
        self._make, self._inputs, self._random, self._fault_rate = make, inputs, random_, fault_rate
        self._store: dict[Place, tuple[int, str]] = dict.fromkeys(inputs, (0, ""))
        self._stage = make(self.committed)
        self._fresh = True
        self._jobs: dict[At, Iterator[Step | None]] = {}

    def crash(self) -> None:
        """Half of the time the process lives (an abort), else a new one takes over."""
        for job in self._jobs.values():
            close = getattr(job, "close", None)
            if close:
                close()
        if self._random.random() < 0.5:
            self._stage = self._make(self.committed)
            self._fresh = True
        else:
            self._stage.aborted()
            self._fresh = self._fresh or self._random.random() < 0.3

    def once(self) -> bool:
        """From what is committed to the end. -> done?"""
        self._progress = Progress()
        for place, (offset, metadata) in self._store.items():
            self._progress.assign(place, offset, metadata)
        if self._fresh:
            self._stage.assigned(sorted(p for _, p in self._inputs))
            self._fresh = False
        self._known: dict[At, int | None] = {}
        self._pending: list[Step] = []
        self._jobs = {}
        queue = [i for place, many in self._inputs.items() for i in many if i.at.offset >= self._store[place][0]]
        # Partitions interleave at random, offsets within one stay in order.
        order = {place: iter([i for i in queue if i.at[:2] == place]) for place in self._inputs}
        turns = [i.at[:2] for i in queue]
        self._random.shuffle(turns)
        waiting = [next(order[place]) for place in turns]
        while waiting or self._jobs:
            self._start(waiting)
            if not self._advance():
                # Its threads are at work: a schedule is made of what the stage does, not of how often it is asked.
                time.sleep(_WAIT_SECONDS)
            elif self._random.random() < 0.2:
                self._commit(final=False)
        self._commit(final=True)
        return all(not part.open for part in self._progress.parts.values())

    def _start(self, waiting: list[Input]) -> None:
        while waiting and len(self._jobs) < self._stage.concurrency:
            input = waiting.pop(0)
            mark: Mark | None = self._progress.admit(input.at, input.key)
            if mark is not None:
                self._known[input.at] = input.rows
                self._jobs[input.at] = self._stage.process(input, mark.token)

    def _advance(self) -> bool:
        """One step of every open job. -> did any move?"""
        moved = False
        for at, job in list(self._jobs.items()):
            try:
                step = next(job)
            except StopIteration:
                del self._jobs[at]
                moved = True
                continue
            if step is not None:
                self._take(step)
                moved = True
                self._maybe_crash()
        return moved

    def _take(self, step: Step) -> None:
        check(step)
        rows = rows_of(step.tally)
        for at in step.covers:
            total = self._progress.note(at, rows.get(at, 0), step.resume)
            if total is not None and self._known[at] not in (None, total):
                raise Unbalanced(f"{at}: {total} rows settled, {self._known[at]} promised")
        self._pending.append(step)

    def _commit(self, *, final: bool) -> None:
        for step in self._stage.settle(final=final):
            self._take(step)
        self._maybe_crash()
        self._store.update(self._progress.commit())
        for step in self._pending:
            self.committed.emits.extend(step.emits)
            self.committed.rejects.extend(step.rejects)
            self.committed.tally.extend(step.tally)
        self._pending.clear()
        if self._random.random() < self._fault_rate / 2:
            # Killed after the commit and before it was told.
            self._fresh = True
            self._stage = self._make(self.committed)
            raise _Crash
        self._stage.committed()

    def _maybe_crash(self) -> None:
        if self._random.random() < self._fault_rate:
            raise _Crash
