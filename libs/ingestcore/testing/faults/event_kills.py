"""Faults on the way of an event: a process or a server is killed or frozen while producers post."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from devstack import Stack
from ingestcore.testing.events_world import GATEWAY, SINK, EventsWorld

_LONGEST_AWAY_SECONDS: Final = 4.0
_FROZEN_SECONDS: Final = 10.0
"""Longer than the gateway's claim of an event lasts."""
_PID_SECONDS: Final = 60.0


@dataclass(frozen=True)
class EventFault:
    """strike: does the harm and undoes what does not pass by itself. -> what was done, for the log."""

    name: str
    strike: Callable[[EventsWorld, Stack, random.Random], str]


def _kill_process(instance: str) -> EventFault:
    def strike(world: EventsWorld, servers: Stack, draw: random.Random) -> str:
        label = world.label(instance, draw)
        pid = _kill(world, label)
        began = time.monotonic()
        world.fleet.await_restart(label, pid, _PID_SECONDS)
        return f"{label}: ready after {time.monotonic() - began:.1f} s"

    return EventFault(f"kill-{instance}", strike)


def _kill_server(server: str) -> EventFault:
    def strike(world: EventsWorld, servers: Stack, draw: random.Random) -> str:
        away = draw.uniform(0, _LONGEST_AWAY_SECONDS)
        servers.kill(server)
        time.sleep(away)
        servers.restart(server, hard=True)
        return f"away for {away:.1f} s and its start"

    return EventFault(f"kill-{server}", strike)


def _kill_without(instance: str, server: str) -> EventFault:
    """It is started again while what it needs is away."""

    def strike(world: EventsWorld, servers: Stack, draw: random.Random) -> str:
        label, away = world.label(instance, draw), draw.uniform(1, _LONGEST_AWAY_SECONDS)
        servers.kill(server)
        pid = _kill(world, label)
        time.sleep(away)
        servers.restart(server, hard=True)
        world.fleet.await_restart(label, pid, _PID_SECONDS)
        return f"{label}, {server} away for {away:.1f} s and its start"

    return EventFault(f"kill-{instance}-without-{server}", strike)


def _kill_all(world: EventsWorld, servers: Stack, draw: random.Random) -> str:
    labels = sorted(f"{instance}-{n}" for instance in _PROCESSES for n in range(world.replicas.get(instance, 1)))
    pids = [(label, _kill(world, label)) for label in labels]
    for label, pid in pids:
        world.fleet.await_restart(label, pid, _PID_SECONDS)
    return f"{len(pids)} processes"


def _freeze_gateway(world: EventsWorld, servers: Stack, draw: random.Random) -> str:
    """It wakes up with claims that have run out."""
    label = world.label(GATEWAY, draw)
    pid = world.fleet.freeze(label)
    time.sleep(_FROZEN_SECONDS)
    world.fleet.thaw(pid)
    return f"{label} for {_FROZEN_SECONDS:g} s"


def _freeze_server(server: str, longest_seconds: float) -> EventFault:
    """Connections stay open, nobody answers, and what was asked meanwhile is done afterwards."""

    def strike(world: EventsWorld, servers: Stack, draw: random.Random) -> str:
        away = draw.uniform(1, longest_seconds)
        servers.kill(server, signal.SIGSTOP)
        time.sleep(away)
        servers.kill(server, signal.SIGCONT)
        return f"for {away:.1f} s"

    return EventFault(f"freeze-{server}", strike)


def _kill(world: EventsWorld, label: str) -> int:
    """As soon as there is a process to be killed. -> its process id."""
    deadline = time.monotonic() + _PID_SECONDS
    while not world.fleet.processes()[label].pid:
        assert time.monotonic() < deadline, f"{label} is not started again"
        time.sleep(0.1)
    return world.kill(label)


_PROCESSES: Final = (GATEWAY, "event-parser", "normalizer", SINK)
EVENT_FAULTS: Final = (
    *map(_kill_process, _PROCESSES),
    *map(_kill_server, ("kafka", "redis", "postgres")),
    _kill_without(GATEWAY, "kafka"),
    _kill_without(GATEWAY, "redis"),
    _kill_without("normalizer", "kafka"),
    _kill_without(SINK, "postgres"),
    EventFault("kill-all", _kill_all),
    EventFault(f"freeze-{GATEWAY}", _freeze_gateway),
    _freeze_server("redis", _LONGEST_AWAY_SECONDS),
    _freeze_server("kafka", _FROZEN_SECONDS),
    _freeze_server("postgres", _FROZEN_SECONDS),
)
