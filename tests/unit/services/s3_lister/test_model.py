"""Random lives of listers: keys come late, change and go, routes move, S3, Redis and Kafka go away, replicas freeze and
crash, operators edit the checkpoint. Whatever happens, every object is handed on; without a crash, once."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from ingestcore.datasets.registry import Registry
from ingestcore.messages.objects import object_id
from ingestcore.observe.metrics import Metrics
from ingestcore.runtime.service import Context
from ingestcore.settings import Platform
from ingestcore.testing.lister_world import (
    Clock,
    MemoryLeases,
    MemoryStore,
    Replica,
    Topic,
    byte_order,
    folder_order,
)
from ingestcore.testing.seeds import seeds
from services.s3_lister.settings import ListerSettings
from services.s3_lister.source import Lister

POINTER = "default:s"
PARTS = ("a", "b", "a-", "a+b", "b/", "c/", "c/d/", "é", "z", "0")


class Life:
    """One schedule. `replicas` act at the test's word only."""

    def __init__(self, seed: int, folder: Path, replicas: int) -> None:
        self.random = random.Random(seed)
        self.clock, self.topic, self.specs = Clock(), Topic(), Registry()
        order = self.random.choice((byte_order, folder_order))
        self.store = MemoryStore(order, page=self.random.randint(1, 5))
        self.store.buckets |= {"lake": {}, "out": {}}
        self.leases, self.folder, self.routes = MemoryLeases(self.clock), folder, 0
        self.settings = ListerSettings(
            step_objects=self.random.randint(1, 4),
            step_seconds=self.random.choice((0, 1)),
            progress_objects=self.random.randint(1, 12),
            progress_seconds=self.random.choice((0, 5)),
            part_entries=self.random.randint(1, 5),
            sort_entries=self.random.randint(1, 5),
        )
        self.specs.feed("sink/lake", orjson.dumps({"parquet": {"uri": "s3://out/"}}))
        self.move_route()
        self.replicas = [self.start() for _ in range(replicas)]
        self.snapshots: list[str] = []

    def start(self) -> Replica:
        nothing: Any = SimpleNamespace()
        platform = Platform(replica="0")
        context = Context(
            platform, self.settings, "s3-lister", self.specs, nothing, Metrics(), self.folder, lambda spec: self.store
        )
        now, monotonic = self.clock.now, self.clock.monotonic
        return Replica(Lister("s", context, self.leases, now=now, monotonic=monotonic, renew_beside=False), self.topic)

    def move_route(self) -> None:
        """Every route names datasets of its own, so that no object comes back under an old id."""
        self.routes += 1
        route = {"c/*": f"c{self.routes}", "*a*": f"a{self.routes}"}
        if self.random.random() < 0.6:
            route["*"] = f"rest{self.routes}"
        spec = {"s3": {"bucket": "lake", "prefix": "p/"}, "route": route}
        self.specs.feed("source/s", orjson.dumps(spec))

    def write_keys(self) -> None:
        for _ in range(self.random.randint(1, 6)):
            key = "p/" + "".join(self.random.choices(PARTS, k=self.random.randint(1, 3))) + ".csv"
            if self.random.random() < 0.15:
                self.store.buckets["lake"].pop(key, None)
            else:
                self.store.add("lake", key)

    def weather(self) -> None:
        self.store.away = self.random.random() < 0.2
        self.store.away_after_entries = self.random.randint(0, 9) if self.random.random() < 0.2 else None
        self.leases.away = self.random.random() < 0.2
        self.leases.lose_answers = int(self.random.random() < 0.1)

    def nothing(self) -> None:
        """Nothing happens."""

    def meanwhile(self, other: Replica) -> None:
        """One replica stands still with a step in its hands, longer than its lease; the other goes on."""
        self.clock.pass_seconds(20)
        for _ in range(self.random.randint(0, 4)):
            other.move()

    def calm(self) -> None:
        """All is well again and stays so: what is left to do gets done."""
        self.store.away, self.store.away_after_entries = False, None
        self.leases.away, self.leases.lose_answers = False, 0
        for _ in range(6):
            for replica in self.replicas:
                replica.finish_pass()

    def wanted(self) -> set[str]:
        """Ids of all objects there are, by the route in force."""
        spec = self.specs.source("s")
        objects = self.store.buckets["lake"].items()
        routed = ((spec.dataset_of(key, "s"), key, etag) for key, (_, etag) in objects)
        return {object_id("default", "s", dataset, "lake", key, etag) for dataset, key, etag in routed if dataset}

    def edit(self) -> None:
        """What an operator may do to the checkpoint, and a Redis that loses it."""
        stored = self.leases.checkpoints.get(POINTER)
        if not isinstance(stored, str) or self.random.random() < 0.2:
            self.leases.checkpoints.pop(POINTER, None)
            return
        try:
            checkpoint = orjson.loads(stored)
        except orjson.JSONDecodeError:
            del self.leases.checkpoints[POINTER]
            return
        self.snapshots.append(checkpoint["snapshot"])
        checkpoint |= self.random.choice(
            (
                {"start_after": "p/" + self.random.choice(PARTS)},
                {"snapshot": ""},
                {"snapshot": self.random.choice(self.snapshots)},
            )
        )
        edited = orjson.dumps(checkpoint).decode()
        self.leases.checkpoints[POINTER] = "broken" if self.random.random() < 0.1 else edited


@pytest.mark.parametrize("seed", seeds(40, 400))
def test_without_a_crash_every_object_is_handed_on_exactly_once(seed: int, tmp_path: Path) -> None:
    life = Life(seed, tmp_path, replicas=1)
    for _ in range(80):
        what = life.random.random()
        if what < 0.15:
            life.write_keys()
        elif what < 0.2:
            life.weather()
        elif what < 0.22:
            life.move_route()
        elif what < 0.3:
            life.clock.pass_seconds(life.random.choice((0.5, 4, 20)))
        else:
            life.replicas[0].move(abort=life.random.random() < 0.1)
    life.calm()
    doubled = [ref for ref, times in Counter(life.topic.ids()).items() if times > 1]
    assert doubled == []
    assert life.wanted() <= set(life.topic.ids())
    assert not any(life.folder.rglob("*.tmp"))


@pytest.mark.parametrize("seed", seeds(40, 400))
def test_whatever_happens_nothing_is_lost_and_no_older_lease_commits(seed: int, tmp_path: Path) -> None:
    life = Life(seed, tmp_path, replicas=2)
    for _ in range(120):
        what = life.random.random()
        if what < 0.1:
            life.write_keys()
        elif what < 0.14:
            life.weather()
        elif what < 0.15:
            life.move_route()
        elif what < 0.25:
            life.clock.pass_seconds(life.random.choice((0.5, 4, 20)))
        elif what < 0.28:
            life.edit()
        elif what < 0.32:
            crashed = life.random.randrange(2)
            if life.random.random() < 0.3:
                life.replicas[crashed].source.close()
            life.replicas[crashed] = life.start()
        else:
            frozen, other = life.random.sample(life.replicas, 2)
            meanwhile = partial(life.meanwhile, other) if life.random.random() < 0.1 else life.nothing
            frozen.move(abort=life.random.random() < 0.05, before_commit=meanwhile)
    life.clock.pass_seconds(60)
    for _ in range(3):
        life.calm()
        if _explains_itself(life):
            life.leases.checkpoints.pop(POINTER, None)
    assert life.wanted() <= set(life.topic.ids())
    assert life.topic.terms == sorted(life.topic.terms)


def _explains_itself(life: Life) -> bool:
    """A checkpoint an operator broke is named, so that the operator can delete it."""
    return any("redis-cli DEL" in replica.source.status()["waiting"] for replica in life.replicas)
