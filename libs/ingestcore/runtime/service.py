"""What a service folder declares (`SERVICE`) and what its `build` is given (`Context`)."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from threading import Event
from typing import Any, Final, Protocol

from pydantic_settings import BaseSettings

from ingestcore.datasets.registry import Registry
from ingestcore.datasets.spec import S3Access
from ingestcore.observe.health import Health
from ingestcore.observe.metrics import Metrics
from ingestcore.settings import Platform
from ingestcore.stage import Input, OperatorNeeded, Source, Stage
from ingestcore.stores.objects import ObjectStore

PLUGINS: Final = "ingest.services"
"""Entry-point group of services that other packages bring."""


class TopicAccess(Protocol):
    """Reads of Kafka a stage may need besides its inputs. Topics are logical names."""

    def topic_id(self, topic: str) -> str:
        """-> URL-safe id of the topic as it exists now: a recreated topic has another one."""

    def partitions(self, topic: str) -> int: ...

    def replay(self, topic: str, partition: int, first: int | None = None, last: int | None = None) -> Iterator[Input]:
        """Committed records first..last (inclusive) of a partition; without `last`: all that are committed once every
        transaction open now has ended. Raises Gap: `first` is gone by retention; Retriable: no progress."""

    def start(self, topic: str, partition: int) -> int:
        """-> first offset the log holds now. Raises Retriable."""

    def end(self, topic: str, partition: int) -> int:
        """-> read-uncommitted end offset now. Raises Retriable."""

    def produced(self, topic: str, partition: int) -> Sequence[tuple[int, int]]:
        """-> (offset, broker time in ms) of the messages this process produced there in its last committed transaction
        that had any, in order; empty: none yet, or forgotten because the partition was lost. `topic`: a noted one."""


@dataclass(frozen=True)
class Context:
    """Everything a service is built from.

    instance  the sink's name for sinks, else the service's
    state     this replica's own folder, made, locked and swept of old temp files
    """

    platform: Platform
    settings: Any
    instance: str
    specs: Registry
    topics: TopicAccess
    metrics: Metrics
    state: Path
    store: Callable[[S3Access | None], ObjectStore]


OpenSource = Callable[[str], Source]
"""Opens one source of the configuration by name. The runtime gives each a thread and a producer of its own and
follows sources that are added, changed or removed; `scan` asks `Context.specs` for the spec in force."""


class Receiver(Protocol):
    """Sources that are called instead of calling: it listens, and answers for what it has written to Kafka. It follows
    `Context.specs` itself and tells `status` of each source to health."""

    def run(self, health: Health, stop: Event) -> None:
        """Serve until `stop`, then finish what is in flight. Called on the main thread. Says in `health` what is at
        work and waited for, and keeps to its wish to drain. Raises OperatorNeeded: it can't listen."""

    def status(self) -> Mapping[str, Any]:
        """-> by source, what health says of it. Called from another thread."""


@dataclass(frozen=True)
class Service:
    """One deployable service: a folder below `services/`, found by name.

    name      kebab-case; the folder is the same in snake_case
    consumes  logical topic, or None for a source; a sink's spec may say another one (`from: dlq`)
    per       "sink": one process for each sink in the configuration; "": one for the fleet
    settings  read from INGEST_<NAME>_*
    sources   of a service without input: names of sources it brings itself; none: those of the configuration
    takes     of the configuration's sources those that have this part (`s3`, `http`); of a stage: only their messages
              come to it, so that `ingest up` starts it where there are such sources
    listens   its sources are called by their producers: `build` gives a Receiver
    """

    name: str
    summary: str
    settings: type[BaseSettings]
    build: Callable[[Context], Stage | OpenSource | Receiver]
    consumes: str | None
    produces: tuple[str, ...] = ()
    per: str = ""
    sources: tuple[str, ...] = ()
    takes: str = ""
    listens: bool = False


def discover() -> dict[str, Service]:
    """-> services by kebab-case name: the platform's own, found by folder, and those of installed packages.

    Raises OperatorNeeded: a package's service can't be loaded, or has a name that is taken.
    """
    found = own_services()
    for entry in entry_points(group=PLUGINS):
        package = entry.dist.name if entry.dist else "an installed package"
        try:
            service = entry.load()
        except Exception as error:
            raise OperatorNeeded(
                f"the service {entry.name} of {package} can't be loaded ({error!r}): mend {entry.value}, or uninstall "
                f"{package}"
            ) from error
        if not isinstance(service, Service):
            raise OperatorNeeded(f"{entry.value} of {package} is no Service: name the module's SERVICE in {PLUGINS}")
        if service.name in found:
            raise OperatorNeeded(f"{package} brings a service {service.name}, which is there already: rename it")
        found[service.name] = service
    return found


def own_services() -> dict[str, Service]:
    """-> the platform's services by kebab-case name."""
    found: dict[str, Service] = {}
    # By name: the core must not depend on the services it runs.
    for module in pkgutil.iter_modules(importlib.import_module("services").__path__, "services."):
        service = getattr(importlib.import_module(module.name), "SERVICE", None)
        if isinstance(service, Service):
            found[service.name] = service
    return found
