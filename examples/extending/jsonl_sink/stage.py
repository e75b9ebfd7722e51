"""Holds messages until the commit, then writes each into a file named by its place in Kafka: writing it again, after a
crash or an operator's reset, leaves the same file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pyarrow as pa

from ingestcore.messages.objects import ObjectFacts
from ingestcore.messages.rows import OBJECT, read
from ingestcore.stage import Fate, Input, Line, Origin, Stateless, Step


class JsonLines(Stateless):
    """A sink keeps no state of its own but what it holds until `settle`.

    topic_id  of `normalized`: a topic made anew has another, so its offsets are other files
    """

    def __init__(self, folder: Path, topic_id: Callable[[], str]) -> None:
        self._folder, self._topic_id = folder, topic_id
        self._held: list[Input] = []

    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        self._held.append(input)
        yield from ()

    def settle(self, *, final: bool) -> Iterator[Step]:
        for input in self._held:
            batch = read(input.value)
            self._write(input, batch)
            owners = Counter(batch.column(OBJECT).dictionary_decode().to_pylist())
            yield Step((input.at,), [_delivered(input, facts, rows) for facts, rows in owners.items()])
        self._held = []

    def aborted(self) -> None:
        self._held = []

    def _write(self, input: Input, batch: pa.RecordBatch) -> None:
        own = [name for name in batch.schema.names if not name.startswith("_")]
        lines = [orjson.dumps(row, default=str) for row in batch.select(own).to_pylist()]
        folder = self._folder / input.headers["dataset"].partition("@")[0]
        folder.mkdir(exist_ok=True)
        name = f"{self._topic_id()}-{input.at.partition}-{input.at.offset:020}.jsonl"
        temporary = folder / f".{name}"
        temporary.write_bytes(b"".join(line + b"\n" for line in lines))
        temporary.replace(folder / name)


def _delivered(input: Input, facts: str, rows: int) -> Line:
    return Line(input.at, Origin.of(ObjectFacts.decode(facts)), Fate.DELIVERED, rows)
