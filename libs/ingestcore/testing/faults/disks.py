"""Faults of local disks: full, or their folders gone or exchanged."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingestcore.fleet.layout import Layout
from ingestcore.testing.faults.world import World

_FULL_SECONDS: Final = 6.0


@dataclass(frozen=True)
class DiskFull:
    """Not a byte is left for the services' local state and temporary files. Perhaps one is killed meanwhile."""

    name: str = "disk-full"

    def possible(self, world: World) -> bool:
        return world.disk is not None

    def strike(self, world: World, draw: random.Random) -> str:
        assert world.disk is not None
        victim = draw.choice((None, "normalizer", "lake"))
        world.busy("lake")
        taken = world.disk.fill()
        try:
            if victim is not None:
                world.kill(world.running(victim)[0])
            time.sleep(_FULL_SECONDS)
        finally:
            world.disk.free()
        waiting = f", {victim} killed meanwhile" if victim else ""
        return f"{taken >> 20} MiB taken for {_FULL_SECONDS:g} s{waiting}"


@dataclass(frozen=True)
class LoseState:
    """A service's local folders are deleted between two runs."""

    instance: str

    @property
    def name(self) -> str:
        return f"lose-state-{self.instance}"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        world.busy(self.instance)
        labels = world.running(self.instance)
        world.fleet.ingest("stop", self.instance)
        folders = [folder for folder in _folders(world, self.instance) if folder.exists()]
        for folder in folders:
            shutil.rmtree(folder)
        world.fleet.ingest("start", *labels)
        return f"{len(folders)} folders"


@dataclass(frozen=True)
class SwapState:
    """Two replicas get each other's local folders."""

    instance: str

    @property
    def name(self) -> str:
        return f"swap-state-{self.instance}"

    def possible(self, world: World) -> bool:
        return world.replicas.get(self.instance, 1) > 1

    def strike(self, world: World, draw: random.Random) -> str:
        world.busy(self.instance)
        labels = world.running(self.instance)
        world.fleet.ingest("stop", self.instance)
        # One that is stopped may have none.
        one, other, *_ = sorted(_folders(world, self.instance), key=lambda folder: not folder.exists())
        aside = one.with_name("aside")
        for folder, place in ((one, aside), (other, one), (aside, other)):
            if folder.exists():
                folder.rename(place)
        world.fleet.ingest("start", *labels)
        return f"{one.name} and {other.name}"


def _folders(world: World, instance: str) -> list[Path]:
    state = Layout.of(world.fleet.folder).state
    return [state / f"{instance}-{number}" for number in range(world.replicas.get(instance, 1))]


LOST_STATES = (LoseState("normalizer"), LoseState("lake"))
SWAPPED_STATES = (SwapState("normalizer"), SwapState("lake"))
