"""What all parts of a trace read from: topics as they are now, the configuration, the stores it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from ingestcore.datasets.postgres_sink import PostgresSink
from ingestcore.datasets.registry import Registry
from ingestcore.datasets.spec import DatasetSpec, S3Access
from ingestcore.kafka import admin
from ingestcore.kafka.looking import first_after, pick
from ingestcore.kafka.sweep import Bounds, bounds, sweep
from ingestcore.ledger.facts import Inputs
from ingestcore.messages.blocks import Block
from ingestcore.settings import Platform
from ingestcore.stage import Input
from ingestcore.stores.objects import ObjectStore
from ingestcore.trace.lake import SinkFiles
from ingestcore.trace.story import Story, Where
from ingestcore.trace.trail import Trail

OpenStore = Callable[[S3Access | None], ObjectStore]
Spot = tuple[int, int]
"""Partition and offset."""


@dataclass
class Subject:
    """The row that is traced, as far as it is known.

    columns    of its object's header; key, partition: of its typed row
    blank, bad  as the parser judges its bytes
    published  its normalized record, and the broker's time of it
    entity     values of its primary key, by column
    """

    trail: Trail
    number: int
    story: Story
    spec: DatasetSpec | None = None
    block: Block | None = None
    columns: tuple[str, ...] | None = None
    key: bytes = b""
    partition: int | None = None
    blank: bool = False
    bad: bool = False
    published: tuple[Where, int] | None = None
    entity: dict[str, Any] = field(default_factory=dict)

    def learn_entity(self, batch: pa.RecordBatch, index: int) -> None:
        """Take it from a typed or normalized message that holds the row."""
        names = self.spec.primary_key if self.spec else ()
        self.entity = {name: batch.column(name)[index].as_py() for name in names if name in batch.schema.names}


class Reads:
    """specs: in force, references resolved, so that stores can be opened by them."""

    def __init__(self, platform: Platform, specs: Registry, open_store: OpenStore) -> None:
        self.platform, self.specs, self.open_store = platform, specs, open_store

    @cached_property
    def topics(self) -> dict[str, admin.TopicState]:
        return admin.describe(self.platform)

    @cached_property
    def bounds(self) -> dict[tuple[str, int], Bounds]:
        return bounds(self.platform, "events", "blocks", "typed", "normalized", "dlq")

    def spots(
        self, inputs: Inputs | None, topic: str, partition: int | None = None, by: str | None = None
    ) -> list[Spot]:
        """-> where the inputs on record are, as far as the topic is still the same one. by: pass of their producer."""
        return sorted(
            (number, offset)
            for (topic_id, number, offset), _ in (inputs.places(by) if inputs else ())
            if topic_id == self.topics[topic].topic_id and partition in (None, number)
        )

    def picked(self, topic: str, spots: Sequence[Spot]) -> Iterator[Input]:
        """The records there, as far as retention has left them. Raises Retriable."""
        wanted: dict[tuple[str, int], set[int]] = {}
        for partition, offset in spots:
            if offset >= self.bounds[topic, partition].start:
                wanted.setdefault((topic, partition), set()).add(offset)
        return pick(self.platform, wanted) if wanted else iter(())

    def all_of(self, topic: str, partition: int | None = None) -> Iterator[Input]:
        """Every record of a topic, or of one partition. Raises Retriable."""
        within = {at: b for at, b in self.bounds.items() if at[0] == topic and partition in (None, at[1])}
        return sweep(self.platform, within, any_format=True)

    def since(self, topic: str, time_ms: int, partition: int | None = None) -> Iterator[Input]:
        """The records that are not older than this, by the broker's time. Raises Retriable."""
        within = {at: b for at, b in self.bounds.items() if at[0] == topic and partition in (None, at[1])}
        begin = first_after(self.platform, within, time_ms)
        later = {at: Bounds(max(b.start, begin[at]), b.end) for at, b in within.items()}
        return sweep(self.platform, later, any_format=True)

    def has_lost(self, topic: str) -> bool:
        """Whether retention has removed anything of it."""
        return any(b.start for (name, _), b in self.bounds.items() if name == topic)

    def say_gone(self, story: Story, topic: str, spots: Sequence[Spot], otherwise: str) -> None:
        """Note that retention took what was looked for; if it did not, note `otherwise`."""
        gone = sum(offset < self.bounds[topic, partition].start for partition, offset in spots)
        if gone:
            story.note(f"retention has removed {gone} of {len(spots)} messages of {topic} that may have held the row")
        elif otherwise:
            story.note(otherwise)

    def sinks(self, source: str, table: str | None = None) -> Iterator[SinkFiles]:
        """-> the files of every sink that reads `source`, and takes a dataset if one is named."""
        for name, spec in self.specs.sinks().items():
            if spec.parquet and spec.from_ == source and (table is None or spec.takes(table)):
                place = self.specs.sink(name).lake
                yield SinkFiles(self.open_store(place), name, place.uri)

    def databases(self, table: str) -> Iterator[tuple[str, PostgresSink]]:
        """-> the sinks that keep rows of a dataset in Postgres. Raises SecretMissing, Unusable."""
        for name, spec in self.specs.sinks().items():
            if spec.postgres and spec.takes(table):
                yield name, self.specs.sink(name).database
