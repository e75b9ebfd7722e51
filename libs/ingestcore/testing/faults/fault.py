"""What a fault is."""

from __future__ import annotations

import random
from typing import Protocol

from ingestcore.testing.faults.world import World


class Fault(Protocol):
    @property
    def name(self) -> str:
        """Unique; `--fault-only` takes it."""

    def possible(self, world: World) -> bool:
        """Can it be done on this machine, with these replicas? The same all through a run."""

    def strike(self, world: World, draw: random.Random) -> str:
        """Bring about what it needs (unfinished input, say), do the harm, and undo what would not pass by itself.

        draw: the only source of chance. -> what was done, for the log.
        """
