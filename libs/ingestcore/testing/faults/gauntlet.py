"""Draws faults by a seed, strikes them one after the other under load, and checks the whole after each sequence."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ingestcore.testing.faults.disks import LOST_STATES, SWAPPED_STATES, DiskFull
from ingestcore.testing.faults.fault import Fault
from ingestcore.testing.faults.operators import NEW_TOPICS, RESETS, ForgetCheckpoint, SinkSettings
from ingestcore.testing.faults.processes import FREEZES, KILLS, SCALES, KillAll
from ingestcore.testing.faults.servers import BAD_S3, FROZEN_SERVERS, SERVER_KILLS
from ingestcore.testing.faults.world import World

T = TypeVar("T")

FAULTS: Final[tuple[Fault, ...]] = (
    *KILLS,
    KillAll(),
    *FREEZES,
    *SCALES,
    *SERVER_KILLS,
    *FROZEN_SERVERS,
    *BAD_S3,
    *RESETS,
    SinkSettings(),
    *NEW_TOPICS,
    ForgetCheckpoint(),
    DiskFull(),
    *LOST_STATES,
    *SWAPPED_STATES,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """faults: how many in all; sequence: so many between two checks of the whole; only: names, empty for all."""

    faults: int
    sequence: int
    seed: int
    only: frozenset[str] = frozenset()


def drawn(possible: Sequence[T], seed: int) -> Iterator[T]:
    """-> faults without end: shuffled like cards, so that all come once before one comes twice."""
    draw = random.Random(seed)
    while True:
        yield from draw.sample(possible, len(possible))


def run(world: World, plan: Plan) -> None:
    """Raises AssertionError: something was lost, doubled, died or stood still."""
    chosen = [fault for fault in FAULTS if not plan.only or fault.name in plan.only]
    possible = [fault for fault in chosen if fault.possible(world)]
    left_out = sorted(fault.name for fault in chosen if fault not in possible)
    if left_out:
        world.say(f"not possible here, left out: {', '.join(left_out)}")
    deck = drawn(possible, plan.seed)
    for number in range(1, plan.faults + 1):
        began = time.monotonic()
        _feed(world, number, plan.faults)
        fault = next(deck)
        told = fault.strike(world, random.Random(f"{plan.seed} {number}"))
        waited = world.await_progress(world.standings())
        seconds = time.monotonic() - began
        world.say(f"{number:3}/{plan.faults} {fault.name}: {told}; all go on after {waited:.1f} s ({seconds:.0f} s)")
        world.check_deaths()
        if number % plan.sequence == 0 or number == plan.faults:
            if number == plan.faults:
                _feed(world, 1, 1)
            _check(world)
    _tell_recoveries(world)


def _feed(world: World, number: int, of: int) -> None:
    """Spread what is left over the faults that are left; `busy` sends more where it must."""
    for _ in range(-(-world.load.left // (of - number + 1))):
        world.load.send(world.fleet)


def _check(world: World) -> None:
    began = time.monotonic()
    replayed = world.check_whole()
    world.check_deaths()
    sent = world.load.sent
    world.say(
        f"    whole: {len(sent)} objects, {world.load.nbytes / 1e6:,.0f} MB, {sum(p.truth.rows for p in sent):,} rows, "
        f"{sum(len(p.truth.bad) for p in sent):,} dead letters as they must be; {replayed:,} rows read again "
        f"({time.monotonic() - began:.0f} s)"
    )


def _tell_recoveries(world: World) -> None:
    seconds = sorted(seconds for _, seconds in world.recoveries)
    if not seconds:
        return
    slowest = max(world.recoveries, key=lambda told: told[1])
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    world.say(
        f"kill -> progress: {len(seconds)} kills, p50 {statistics.median(seconds):.1f} s, p95 {p95:.1f} s, "
        f"max {seconds[-1]:.1f} s ({slowest[0]})"
    )
