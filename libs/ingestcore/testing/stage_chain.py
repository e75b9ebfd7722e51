"""The whole chain of stages without servers: objects in memory in, everything that is committed out.

Stages are built by their own `SERVICE.build`, over an object store in memory and topics made of what was committed.
"""

from __future__ import annotations

import collections
import gzip
import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson

from ingestcore.datasets.registry import Registry
from ingestcore.messages.events import Event, day_of
from ingestcore.messages.objects import ObjectRef
from ingestcore.observe.metrics import Metrics
from ingestcore.runtime.service import Context, discover
from ingestcore.settings import Platform
from ingestcore.stage import At, Gap, Input, Stage
from ingestcore.testing.harness import Committed, drive
from ingestcore.testing.memory_store import MemoryStore, etag_of

SERVICES = discover()
PARTITIONS = 3

SPECS: dict[str, Any] = {
    "source/s": {"s3": {"bucket": "raw"}, "provenance": {"purpose": "p", "ingestedBy": "me"}},
    "sink/lake": {"parquet": {"uri": "s3://out/x/", "max_age": 0, "batch_size": 50}},
    "dataset/orders@1": {
        "primary_key": ["id"],
        "fields": {"id": "integer", "amount": {"type": "float", "min": 0}, "note": "string"},
    },
    "dataset/orders": {"version": 1},
    "dataset/logs@1": {"csv": {"comment": "#"}},
    "dataset/logs": {"version": 1},
    "dataset/payments@1": {
        "primary_key": ["id"],
        "fields": {
            "id": {"from": "payment.id", "type": "integer"},
            "amount": {"from": "payment.amount", "type": "decimal(9,2)", "min": 0},
            "event": {"from": "$event_id"},
            "rest": {"from": "$", "type": "json"},
        },
    },
    "dataset/visits@1": {},
}


def registry() -> Registry:
    found = Registry()
    for key, value in SPECS.items():
        found.feed(key, orjson.dumps(value))
    return found


def orders(count: int, seed: int) -> bytes:
    """Every 9th row repeats the one before, every 50th is bad, some notes hold newlines in quotes."""
    lines = ["id,amount,note"]
    for i in range(count):
        number = seed * 100_000 + i - (i % 9 == 8)
        if i % 50 == 7:
            lines.append(f"{number},not a number,x")
        else:
            note = f'"line one\nline {number % 7}"' if number % 13 == 0 else f"note {number} " + "x" * (number % 40)
            lines.append(f"{number},{number / 4},{note}")
    return ("\n".join(lines) + "\n").encode()


@cache
def objects() -> dict[str, bytes]:
    logs = b"# head\nlevel,text\n" + b"".join(b"info,%d\n\n# c\n" % i for i in range(300))
    return {
        "orders/a.csv": orders(5_000, 1),
        "orders/b.csv.gz": gzip.compress(orders(3_000, 2)),
        "orders/empty.csv": b"",
        "orders/head.csv": b"id,amount,note\n",
        "orders/again.csv": orders(1_500, 1),
        "logs/a.csv": logs.removeprefix(b"# head\n"),
        "orders/drift.csv": b"id,price\n1,2\n",
        "orders/cut.csv.gz": gzip.compress(orders(2_000, 3))[:-200],
    }


class CommittedTopics:
    """`TopicAccess` over what a run has committed and over a stage's inputs: a stand-in for the broker."""

    def __init__(self, committed: Committed, inputs: dict[tuple[str, int], list[Input]]) -> None:
        self._committed, self._inputs = committed, inputs

    def topic_id(self, topic: str) -> str:
        return f"id-{topic}"

    def partitions(self, topic: str) -> int:
        return PARTITIONS

    def _log(self, topic: str, partition: int) -> list[Input]:
        if (topic, partition) in self._inputs:
            return self._inputs[topic, partition]
        return self._committed.inputs(topic).get((topic, partition), [])

    def replay(self, topic: str, partition: int, first: int | None = None, last: int | None = None) -> Iterator[Input]:
        log = self._log(topic, partition)
        if first is not None and first > len(log):
            raise Gap(f"{topic}[{partition}]: {first} is beyond the end")
        for input in log:
            if (first is None or input.at.offset >= first) and (last is None or input.at.offset <= last):
                yield input

    def start(self, topic: str, partition: int) -> int:
        return 0

    def end(self, topic: str, partition: int) -> int:
        return len(self._log(topic, partition))

    def produced(self, topic: str, partition: int) -> list[tuple[int, int]]:
        return [(record.at.offset, record.timestamp_ms) for record in self._log(topic, partition)][-1:]


Inputs = dict[tuple[str, int], list[Input]]


class World:
    """What outlives a process: the object store and local state folders."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.store = MemoryStore("raw", "out")
        for key, data in objects().items():
            self.store.put("raw", key, data)
        self._folder, self._random, self._number = folder, random.Random(seed), itertools.count()
        self._last: Path | None = None

    def state(self) -> Path:
        """A new process finds its disk as its predecessor left it, or an empty one."""
        fresh = self._folder / str(next(self._number))
        if self._last is not None and self._random.random() < 0.6:
            shutil.copytree(self._last, fresh)
        else:
            fresh.mkdir(parents=True)
        self._last = fresh
        return fresh

    def maker(
        self, service: str, inputs: Inputs, *, sink: str = "lake", specs: Registry | None = None, **settings: Any
    ) -> Callable[[Committed], Stage]:
        """sink: its name, for a service that runs once per sink; specs: other ones than `registry()`."""
        declared = SERVICES[service]
        instance = sink if declared.per == "sink" else service

        def make(committed: Committed) -> Stage:
            context = Context(
                platform=Platform(partitions=PARTITIONS, max_row_bytes=64 << 10),
                settings=declared.settings(**settings),
                instance=instance,
                specs=specs or registry(),
                topics=CommittedTopics(committed, inputs),
                metrics=Metrics(),
                state=self.state(),
                store=lambda _: self.store,
            )
            return declared.build(context)  # type: ignore[return-value]

        return make


def listed() -> Inputs:
    placed: Inputs = collections.defaultdict(list)
    for number, (key, data) in enumerate(objects().items()):
        dataset = key.partition("/")[0]
        ref = ObjectRef(
            "default",
            "s",
            dataset,
            "raw",
            key,
            etag_of(data),
            len(data),
            "2026-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
        )
        place = ("objects", number % 2)
        at = At("objects", place[1], len(placed[place]))
        placed[place].append(Input(at, ref.encode(), {}, bytes.fromhex(ref.id)))
    return dict(placed)


def received() -> Inputs:
    """Events of two datasets. Every 9th is delivered twice, every 25th is bad, members differ where all are taken."""
    placed: Inputs = collections.defaultdict(list)
    days = {
        (dataset, day): day_of(
            tenant="default",
            source="hooks",
            dataset=f"{dataset}@1",
            received=f"2026-01-0{day}T00:00:00Z",
            provenance={"purpose": "p", "ingestedBy": "me"},
        )
        for dataset in ("payments", "visits")
        for day in (1, 2)
    }
    for i in range(900):
        number, dataset, day = i - (i % 9 == 8), ("payments", "visits")[i // 9 % 2], 1 + i // 500
        body: Any = {"payment": {"id": number % 200, "amount": number / 4}, "note": "x" * (i % 40)}
        if dataset == "visits":
            body = {"page": f"/{number}", ("at", "by")[number % 2]: number}
        event = Event(
            id=f"e{number}",
            source="/hooks",
            type="made",
            body=b'{"payment": {"id": 1, "id": 2}}' if number % 25 == 7 else orjson.dumps(body),
            object=days[dataset, day],
            received=f"2026-01-0{day}T00:00:{i % 60:02}.5Z",
            time="" if i % 2 else "2025-12-31T23:59:59Z",
        )
        place = ("events", number % 2)
        at = At("events", place[1], len(placed[place]))
        placed[place].append(Input(at, event.body, event.headers(), event.key()))
    return dict(placed)


ORDER = ("chunk-downloader", "csv-parser", "event-parser", "normalizer", "parquet-sink")
BEGINS: Final = {"chunk-downloader": listed, "event-parser": received}
"""Services whose inputs come from outside."""
FEEDS: Final = {
    "csv-parser": ("chunk-downloader",),
    "normalizer": ("csv-parser", "event-parser"),
    "parquet-sink": ("normalizer",),
}

SETTINGS: dict[str, dict[str, Any]] = {
    "chunk-downloader": {"chunk_size": 64 << 10, "block_bytes": 64 << 10, "max_workers": 2},
    "csv-parser": {"gather_bytes": 100 << 10, "large_bytes": 50 << 10},
    "event-parser": {"gather_bytes": 6_000, "gather_events": 70},
    "normalizer": {"gather_bytes": 30 << 10, "memtable_keys": 500, "filter_capacity": 1_000},
    "parquet-sink": {"buffer_bytes": 64 << 10},
}


@dataclass
class Chain:
    """What each stage, by its service's name, read and committed, and the world it ran in."""

    inputs: dict[str, Inputs] = field(default_factory=dict)
    committed: dict[str, Committed] = field(default_factory=dict)
    worlds: dict[str, World] = field(default_factory=dict)


def run_chain(folder: Path) -> Chain:
    """-> every stage run once without any fault, each on what the stage before it emitted."""
    chain = Chain()
    for service in ORDER:
        inputs, world = _inputs(service, chain.committed), World(folder / service, 0)
        chain.inputs[service], chain.worlds[service] = inputs, world
        make = world.maker(service, inputs, **SETTINGS[service])
        chain.committed[service] = drive(make, inputs, 0, faults=False)
    return chain


def _inputs(service: str, committed: dict[str, Committed]) -> Inputs:
    if service in BEGINS:
        return BEGINS[service]()
    emits = [emit for before in FEEDS[service] for emit in committed[before].emits]
    return Committed(emits=emits).inputs(SERVICES[FEEDS[service][0]].produces[0])
