"""Faults of the servers: killed and restarted, frozen and woken, or an S3 that answers badly."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass
from typing import Final

from ingestcore.testing.faults.s3_proxy import Mischief
from ingestcore.testing.faults.world import World

_LONGEST_AWAY_SECONDS: Final = 6.0
_FROZEN_SECONDS: Final = 20.0
"""Longer than sessions, transactions and many a deadline of a client."""
_LONGEST_MISCHIEF_SECONDS: Final = 20.0
_ENOUGH_HITS: Final = 10
_SHARES: Final = {Mischief.STALL: 0.5}
_SHARE: Final = 0.3


@dataclass(frozen=True)
class KillServer:
    """kill -9 of Kafka, S3 or Redis, and its restart some seconds later on the same data."""

    server: str

    @property
    def name(self) -> str:
        return f"kill-{self.server}"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        away = draw.uniform(0, _LONGEST_AWAY_SECONDS)
        world.busy("lake")
        world.stack.kill(self.server)
        time.sleep(away)
        world.stack.restart(self.server, hard=True)
        return f"away for {away:.1f} s and its start"


@dataclass(frozen=True)
class FreezeServer:
    """SIGSTOP of a server and SIGCONT: meanwhile its connections are open and nobody answers."""

    server: str

    @property
    def name(self) -> str:
        return f"freeze-{self.server}"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        world.busy("lake")
        world.stack.kill(self.server, signal.SIGSTOP)
        try:
            time.sleep(_FROZEN_SECONDS)
        finally:
            world.stack.kill(self.server, signal.SIGCONT)
        return f"for {_FROZEN_SECONDS:g} s"


@dataclass(frozen=True)
class BadS3:
    """A share of all requests to S3 fails in one way, until some have."""

    mischief: Mischief

    @property
    def name(self) -> str:
        return f"s3-{self.mischief}"

    def possible(self, world: World) -> bool:
        return True

    def strike(self, world: World, draw: random.Random) -> str:
        share = _SHARES.get(self.mischief, _SHARE)
        world.busy("chunk-downloader")
        world.proxy.misbehave(self.mischief, share, draw.getrandbits(32))
        deadline = time.monotonic() + draw.uniform(3, _LONGEST_MISCHIEF_SECONDS)
        while time.monotonic() < deadline and world.proxy.hits < _ENOUGH_HITS * 10:
            time.sleep(0.1)
        if world.proxy.hits < _ENOUGH_HITS:
            world.patiently(lambda: world.proxy.hits >= 1, "a request to S3")
        return f"{world.proxy.behave()} requests, a share of {share:g}"


SERVER_KILLS = tuple(KillServer(server) for server in ("kafka", "s3", "redis"))
FROZEN_SERVERS = (FreezeServer("kafka"),)
BAD_S3 = tuple(BadS3(mischief) for mischief in Mischief)
