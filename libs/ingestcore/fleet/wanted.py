"""Which processes a fleet consists of. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ingestcore.datasets.problems import nearest
from ingestcore.datasets.spec import SinkSpec, SourceSpec
from ingestcore.runtime.service import Service
from ingestcore.stage import OperatorNeeded
from ingestcore.topics import TOPICS


class UnknownService(OperatorNeeded):
    """No process of the fleet is called so. The message lists what is."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One process. `service`: one, or two joined by `+`; `instance`: the sink's name for sinks, else the service's."""

    service: str
    instance: str
    replica: str

    @property
    def label(self) -> str:
        """Unique in the fleet; names its log and run file."""
        middle = "" if self.instance == self.service else f"-{self.instance}"
        return f"{self.service}{middle}-{self.replica}"

    @property
    def sink(self) -> str:
        """ "" where the service is no sink."""
        return "" if self.instance == self.service else self.instance

    def is_called(self, name: str) -> bool:
        """Whether an operator who types this name means it."""
        replica = f"{self.instance}-{self.replica}"
        names = (self.instance, self.label, replica, f"{self.service}-{self.instance}")
        return name in names or name.replace("_", "-") in (self.service, *self.service.split("+"))


def wanted_processes(
    services: Mapping[str, Service],
    sources: Mapping[str, SourceSpec],
    sinks: Mapping[str, SinkSpec],
    replicas: Mapping[str, int],
    composed: Sequence[str] = (),
) -> list[Wanted]:
    """-> the processes in the order rows flow.

    replicas  by service or sink name, 1 unless given
    composed  services joined by `+` that share a process
    Raises UnknownService: something is named that is not there.
    """
    _check_names([part for names in composed for part in names.split("+")], services)
    topics = list(TOPICS)
    in_order = sorted(services.values(), key=lambda s: (topics.index(s.consumes) if s.consumes else -1, s.name))
    pairs = [(service.name, instance) for service in in_order for instance in _instances(service, sources, sinks)]
    _check_names(replicas, {*services, *composed, *(instance for _, instance in pairs)})
    shared = {part: names for names in composed for part in names.split("+")}
    merged = dict.fromkeys((shared.get(s, s), shared.get(s, i)) for s, i in pairs)
    return [
        Wanted(service, instance, str(number))
        for service, instance in merged
        for number in range(_count(service, instance, replicas))
    ]


def _check_names(names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownService(not_known(name, known))


def _count(service: str, instance: str, replicas: Mapping[str, int]) -> int:
    """What was asked for under the most special of its names, 1 unless asked."""
    names = (instance, service, *service.split("+"))
    return next((replicas[name] for name in names if name in replicas), 1)


def _instances(service: Service, sources: Mapping[str, SourceSpec], sinks: Mapping[str, SinkSpec]) -> list[str]:
    """A service `parquet-sink` serves the sinks that have a `parquet:` part; one that listens to sources, or takes what
    those bring in, is there as long as there are any."""
    if service.per != "sink":
        for_some = service.takes and (service.listens or service.consumes is not None)
        called = not for_some or any(getattr(spec, service.takes) is not None for spec in sources.values())
        return [service.name] if called else []
    kind = service.name.removesuffix("-sink").replace("-", "_")
    return [name for name, sink in sinks.items() if getattr(sink, kind, None) is not None]


def not_known(name: str, known: Iterable[str]) -> str:
    """-> message about a mistyped service."""
    names = sorted(known)
    meant = nearest(name, names)
    return f"no service or sink is called {name!r}: " + (f"{meant}?" if meant else f"there are {', '.join(names)}")
