"""What operators do to a running platform, and may: offsets set back, sinks set differently, topics made anew, the
lister's checkpoint deleted. Each the way the documents say it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import redis
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from ingestcore.kafka.admin import create_topics, describe, open_admin
from ingestcore.testing.faults.groups import STAGES
from ingestcore.testing.faults.world import World
from ingestcore.topics import topic_name

_ANSWER_SECONDS: Final = 20.0
_EMPTY_SECONDS: Final = 60.0

REMAKES: Final = {"blocks": "chunk-downloader", "typed": "csv-parser", "dlq": "csv-parser"}
"""Topics made anew, and the service that reads its input again to fill it. `objects` is filled by a lister that lists
anew. What was in `normalized` must be in the lake: the normalizer knows its keys and passes them no second time."""
DRAINED_FIRST: Final = ("typed", "normalized", "dlq")
"""`typed`: its rows come again, but the ledger goes on missing those that were in the deleted topic."""


@dataclass(frozen=True)
class Reset:
    """A group's offsets are set back, while the rest of the fleet goes on."""

    instance: str

    @property
    def name(self) -> str:
        return f"reset-{self.instance}"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        how, share = draw.choice(("earliest", "time", "middle")), draw.uniform(0.2, 0.8)
        world.busy(self.instance)
        labels = world.running(self.instance)
        world.fleet.ingest("stop", self.instance)
        _await_empty(world, self.instance)
        option = self._option(world, how, share)
        world.fleet.reset(self.instance, STAGES[self.instance], *option)
        world.fleet.ingest("start", *labels)
        return " ".join(option)

    def _option(self, world: World, how: str, share: float) -> tuple[str, ...]:
        """Never forward: that would be an order to leave rows out."""
        committed = {p: offset for p, (offset, _) in world.standing(self.instance).committed.items()}
        if how == "middle" and committed:
            back = round(max(committed.values()) * share)
            return ("--shift-by", str(-max(1, back)))
        if how == "time" and committed:
            moment = self._moment(world, committed, share)
            if moment is not None:
                text = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
                return ("--to-datetime", text)
        return ("--to-earliest",)

    def _moment(self, world: World, committed: dict[int, int], share: float) -> float | None:
        """-> Unix seconds between the first record and now that lead no partition forward; None: there are none."""
        first, now = world.began_at, time.time()
        while share > 0.01:
            moment = first + (now - first) * share
            if all(offset <= committed.get(p, 0) for p, offset in self._offsets_at(world, moment).items()):
                return moment
            share /= 2
        return None

    def _offsets_at(self, world: World, moment: float) -> dict[int, int]:
        settings = world.fleet.platform()
        topic = topic_name(settings.topic_prefix, STAGES[self.instance])
        admin = open_admin(settings)
        places = [TopicPartition(topic, p) for p in range(settings.partitions)]
        asked: dict[Any, Any] = {place: OffsetSpec.for_timestamp(round(moment * 1000)) for place in places}
        found = {tp.partition: f.result(_ANSWER_SECONDS).offset for tp, f in admin.list_offsets(asked).items()}
        ends = {place: OffsetSpec.latest() for place in places}  # type: ignore[no-untyped-call]
        last = {tp.partition: f.result(_ANSWER_SECONDS).offset for tp, f in admin.list_offsets(ends).items()}
        # -1: no record is so young; the tool goes to the end then.
        return {p: offset if offset >= 0 else last[p] for p, offset in found.items()}


@dataclass(frozen=True)
class SinkSettings:
    """The lake is told to make other files: at once, or while its processes are stopped."""

    name: str = "sink-settings"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        parquet = {
            "uri": world.fleet.uri,
            "max_age": draw.choice(("200ms", "1s", "2s", "5s")),
            "max_bytes": draw.choice(("200KiB", "2MiB", "64MiB")),
            "batch_size": draw.choice((1_000, 20_000, 131_072)),
        }
        stopped = draw.random() < 0.5
        world.busy("lake")
        labels = world.running("lake")
        if stopped:
            world.fleet.ingest("stop", "lake")
        world.fleet.apply({"sinks": {"lake": {"parquet": parquet}}})
        if stopped:
            world.fleet.ingest("start", *labels)
        told = ", ".join(f"{name} {value}" for name, value in parquet.items() if name != "uri")
        return f"{told}{' between two runs' if stopped else ''}"


@dataclass(frozen=True)
class NewTopic:
    """A topic is deleted and made anew with the lake and the dedupe changelog kept; the service before it reads its
    input again, so that what nobody had read yet comes once more."""

    topic: str

    @property
    def name(self) -> str:
        return f"new-topic-{self.topic}"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        labels = [label for instance in ("s3-lister", *STAGES) for label in world.running(instance)]
        reader = next(instance for instance, topic in STAGES.items() if topic == self.topic)
        world.busy(reader)
        if self.topic in DRAINED_FIRST:
            world.fleet.quiet(600)
        world.fleet.ingest("stop")
        for instance in STAGES:
            _await_empty(world, instance)
        _make_anew(world, self.topic)
        if self.topic in REMAKES:
            world.fleet.reset(REMAKES[self.topic], STAGES[REMAKES[self.topic]])
        if self.topic == "objects":
            _forget_checkpoints(world)
        world.fleet.ingest("start", *labels)
        return "drained" if self.topic in DRAINED_FIRST else "not drained"


@dataclass(frozen=True)
class ForgetCheckpoint:
    """The checkpoints of all sources are deleted from Redis: everything is listed and read again."""

    name: str = "forget-checkpoint"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        world.busy("chunk-downloader")
        return f"{_forget_checkpoints(world)} deleted"


def _await_empty(world: World, instance: str) -> None:
    """A replica that was killed stays a member until its session ends, and offsets can't be set before."""
    world.patiently(lambda: world.groups.empty(instance), f"the group of {instance} is empty", _EMPTY_SECONDS)


def _make_anew(world: World, topic: str) -> None:
    settings = world.fleet.platform()
    name, admin = topic_name(settings.topic_prefix, topic), open_admin(settings)
    admin.delete_topics([name])[name].result(_ANSWER_SECONDS)
    world.patiently(lambda: name not in admin.list_topics(timeout=_ANSWER_SECONDS).topics, f"{name} is deleted")
    world.patiently(lambda: _created(world, topic), f"{name} is there again")


def _created(world: World, topic: str) -> bool:
    settings = world.fleet.platform()
    try:
        create_topics(settings)
        return describe(settings)[topic].exists
    except KafkaException:
        return False


def _forget_checkpoints(world: World) -> int:
    client = redis.Redis.from_url(world.fleet.environ()["REDIS_URL"])
    with client:
        names = [name for name in client.scan_iter("checkpoint:*") if world.fleet.name.encode() in name]
        return int(client.delete(*names)) if names else 0


RESETS = tuple(Reset(instance) for instance in STAGES)
NEW_TOPICS = tuple(NewTopic(topic) for topic in STAGES.values())
