"""The audit of a running platform: reads ledger and listings from Kafka, finds out if anything is still to come."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from ingestcore.datasets.registry import Registry
from ingestcore.kafka import config_topic
from ingestcore.kafka.backlog import Backlog, backlog
from ingestcore.kafka.sweep import Bounds, Place, bounds, sweep
from ingestcore.ledger import Audit, ObjectAudit, State
from ingestcore.messages.ledger import LedgerRecord
from ingestcore.messages.objects import ObjectRef
from ingestcore.runtime.service import Service, discover
from ingestcore.settings import Platform

_OPEN: Final = frozenset({State.PENDING, State.IN_PROGRESS})
_POLL_SECONDS: Final = 1.0
_IDLE_POLL_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Completeness:
    """Verdicts on all objects. idle: nothing is still to come, so what is missing is lost."""

    objects: tuple[ObjectAudit, ...]
    idle: bool

    @property
    def unbalanced(self) -> bool:
        return any(found.state is State.UNBALANCED for found in self.objects)

    @property
    def open(self) -> bool:
        """Rows are still under way."""
        return any(found.state in _OPEN for found in self.objects)


def groups_of(platform: Platform, services: Collection[Service], specs: Registry) -> dict[str, str]:
    """-> logical topic by consumer group, of every stage and every sink of the configuration."""
    found = {
        platform.group(service.name): service.consumes
        for service in services
        if service.consumes is not None and service.per != "sink"
    }
    return found | {platform.group(name): sink.from_ for name, sink in specs.sinks().items()}


def look(platform: Platform) -> Completeness:
    """Audit everything, once; see `Watch.look`."""
    return Watch(platform).look()


class Watch:
    """Audits everything again and again; each look reads only what was added since the last one."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._gathered = Audit()
        self._read: dict[Place, int] = {}

    def look(self) -> Completeness:
        """Missing rows are called lost only when every group is done with its topic, before the ledger is read and
        after, and nothing was added meanwhile.

        Raises Retriable: Kafka is away, or its topics do not exist yet.
        """
        specs = config_topic.read(self._platform)
        sinks = frozenset(name for name, sink in specs.sinks().items() if sink.from_ == "normalized")
        whole = self._gather()
        found = tuple(self._gathered.objects(sinks=sinks, whole_ledger=whole))
        if not any(o.state in _OPEN for o in found):
            return Completeness(found, idle=False)
        groups = groups_of(self._platform, discover().values(), specs)
        before = backlog(self._platform, groups)
        if not before.idle:
            return Completeness(found, idle=False)
        whole = self._gather()
        idle = _unmoved(before, backlog(self._platform, groups))
        return Completeness(tuple(self._gathered.objects(sinks=sinks, idle=idle, whole_ledger=whole)), idle)

    def wait(
        self, objects: int, *, timeout_seconds: float, on_look: Callable[[Completeness], None] | None = None
    ) -> Completeness:
        """Look until that many objects are listed and none is open or pending. -> the last look, settled or not."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            found = self.look()
            if on_look:
                on_look(found)
            if len({o.origin.id for o in found.objects}) >= objects and not found.open:
                return found
            if time.monotonic() > deadline:
                return found
            time.sleep(_POLL_SECONDS)

    def _gather(self) -> bool:
        """Take what was added. -> does the ledger still begin at its beginning?"""
        within = bounds(self._platform, "ledger", "objects")
        new = {place: Bounds(max(b.start, self._read.get(place, 0)), b.end) for place, b in within.items()}
        for input in sweep(self._platform, new):
            if input.at.topic == "ledger":
                self._gathered.take(LedgerRecord.decode(input.value), input.timestamp_ms)
            else:
                self._gathered.listed(ObjectRef.decode(input.value), input.timestamp_ms)
        self._read = {place: b.end for place, b in within.items()}
        return all(b.start == 0 for (topic, _), b in within.items() if topic == "ledger")


def wait_until_idle(platform: Platform, *, timeout_seconds: float) -> Backlog:
    """Wait until every group, the dead-letter lake's too, has read its topic to the end. -> the last backlog, idle or
    not."""
    deadline = time.monotonic() + timeout_seconds
    groups = groups_of(platform, discover().values(), config_topic.read(platform))
    before = backlog(platform, groups)
    while True:
        after = backlog(platform, groups)
        # The groups are not asked at one moment: work may slip past the question once, not twice.
        if (before.idle and _unmoved(before, after)) or time.monotonic() > deadline:
            return after
        before = after
        time.sleep(_IDLE_POLL_SECONDS)


def _unmoved(before: Backlog, after: Backlog) -> bool:
    return after.idle and before.ends == after.ends
