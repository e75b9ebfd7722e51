"""Faults of service processes: killed, frozen, scaled."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Final

from ingestcore.testing.faults.groups import STAGES
from ingestcore.testing.faults.world import LISTER, SERVICES, World

_FROZEN_MARGIN_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Kill:
    """kill -9 of one replica while its service has unfinished input. Measured: kill -> progress."""

    instance: str

    @property
    def name(self) -> str:
        return f"kill-{self.instance}"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        label = draw.choice(world.running(self.instance))
        if self.instance == LISTER:
            return self._kill_lister(world, label)
        world.busy(self.instance)
        replica = label.rpartition("-")[2]
        held = world.patiently(lambda: (world.groups.owned(self.instance, replica),), "the group answers")[0]
        world.kill(label)
        began = time.monotonic()
        before = world.standing(self.instance)
        what = f"{label} commits again"
        partitions = held or None
        world.patiently(lambda: world.groups.standing(self.instance).moved_since(before, partitions), what)
        return _told(world, label, time.monotonic() - began)

    def _kill_lister(self, world: World, label: str) -> str:
        """It has no group: what counts is that an object uploaded after the kill is found."""
        world.kill(label)
        began = time.monotonic()
        before = world.patiently(lambda: (world.groups.ends("objects"),), "Kafka answers")[0]
        if not world.load.send_spare(world.fleet):
            return f"{label}, with nothing left to be found"
        world.patiently(lambda: world.groups.ends("objects") > before, "a new object is found")
        return _told(world, label, time.monotonic() - began)


def _told(world: World, label: str, seconds: float) -> str:
    world.recoveries.append((label, seconds))
    return f"{label}: progress after {seconds:.1f} s"


@dataclass(frozen=True)
class KillAll:
    """The machine goes down: every service process at once."""

    name: str = "kill-all"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        world.busy("lake")
        labels = [label for instance in SERVICES for label in world.running(instance)]
        for label in labels:
            world.kill(label)
        return f"{len(labels)} processes"


@dataclass(frozen=True)
class Freeze:
    """SIGSTOP of one replica for longer than its session and its transaction, then SIGCONT."""

    instance: str

    @property
    def name(self) -> str:
        return f"freeze-{self.instance}"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        label = draw.choice(world.running(self.instance))
        if self.instance == LISTER:
            world.load.send_spare(world.fleet)
        else:
            world.busy(self.instance)
        settings = world.fleet.platform()
        longest = max(settings.session_timeout_ms, settings.transaction_timeout_ms) / 1000
        seconds = longest + _FROZEN_MARGIN_SECONDS
        pid = world.fleet.freeze(label)
        try:
            time.sleep(seconds)
        finally:
            world.fleet.thaw(pid)
        return f"{label} for {seconds:.0f} s"


@dataclass(frozen=True)
class Scale:
    """Replicas join or leave a service that is at work."""

    instance: str

    @property
    def name(self) -> str:
        return f"scale-{self.instance}"

    def possible(self, world: World) -> bool:
        return world.replicas.get(self.instance, 1) > 1

    def strike(self, world: World, draw: random.Random) -> str:
        most = world.replicas[self.instance]
        labels = [f"{self.instance}-{number}" for number in range(most)]
        before = world.running(self.instance)
        wanted = draw.choice([count for count in range(1, most + 1) if count != len(before)])
        world.busy(self.instance)
        more = [label for label in labels if label not in before][: max(0, wanted - len(before))]
        fewer = draw.sample(before, max(0, len(before) - wanted))
        if more:
            world.fleet.ingest("start", *more)
        if fewer:
            world.fleet.ingest("stop", *fewer)
        return f"{len(before)} -> {wanted} replicas"


KILLS = tuple(Kill(instance) for instance in SERVICES)
FREEZES = tuple(Freeze(instance) for instance in SERVICES)
SCALES = tuple(Scale(instance) for instance in STAGES)
