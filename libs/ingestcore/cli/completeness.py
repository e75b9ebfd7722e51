"""The audit of a running platform: reads ledger and listings from Kafka, finds out if anything is still to come."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from ingestcore.datasets.registry import Registry
from ingestcore.kafka import config_topic
from ingestcore.kafka.backlog import Backlog, backlog
from ingestcore.kafka.sweep import bounds, sweep
from ingestcore.ledger import Audit, ObjectAudit, State
from ingestcore.messages.ledger import LedgerRecord
from ingestcore.messages.objects import ObjectRef
from ingestcore.runtime.service import Service, discover
from ingestcore.settings import Platform

_OPEN: Final = frozenset({State.PENDING, State.IN_PROGRESS})
_POLL_SECONDS: Final = 1.0


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
    """Audit everything. Missing rows are called lost only when every group is done with its topic, before the ledger is
    read and after, and nothing was added meanwhile.

    Raises Retriable: Kafka is away, or its topics do not exist yet.
    """
    specs = config_topic.read(platform)
    sinks = frozenset(name for name, sink in specs.sinks().items() if sink.from_ == "normalized")
    gathered, whole = _gather(platform)
    found = tuple(gathered.objects(sinks=sinks, whole_ledger=whole))
    if not any(o.state in _OPEN for o in found):
        return Completeness(found, idle=False)
    groups = groups_of(platform, discover().values(), specs)
    before = backlog(platform, groups)
    if not before.idle:
        return Completeness(found, idle=False)
    gathered, whole = _gather(platform)
    idle = _unmoved(before, backlog(platform, groups))
    return Completeness(tuple(gathered.objects(sinks=sinks, idle=idle, whole_ledger=whole)), idle)


def wait_until_settled(
    platform: Platform,
    objects: int,
    *,
    timeout_seconds: float,
    on_look: Callable[[Completeness], None] | None = None,
) -> Completeness:
    """Look again and again until that many objects are listed and none is open or pending. -> the last look, settled
    or not."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = look(platform)
        if on_look:
            on_look(found)
        if len({o.origin.id for o in found.objects}) >= objects and not found.open:
            return found
        if time.monotonic() > deadline:
            return found
        time.sleep(_POLL_SECONDS)


def _gather(platform: Platform) -> tuple[Audit, bool]:
    """-> all facts and listings, and whether the ledger still begins at its beginning."""
    within = bounds(platform, "ledger", "objects")
    gathered = Audit()
    for input in sweep(platform, within):
        if input.at.topic == "ledger":
            gathered.take(LedgerRecord.decode(input.value))
        else:
            gathered.listed(ObjectRef.decode(input.value))
    return gathered, all(b.start == 0 for (topic, _), b in within.items() if topic == "ledger")


def _unmoved(before: Backlog, after: Backlog) -> bool:
    return after.idle and before.ends == after.ends
