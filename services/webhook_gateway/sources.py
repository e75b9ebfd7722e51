"""The sources in force, ready for use: followed live, secrets resolved, checks made once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from ingestcore.datasets.http_source import HttpSource
from ingestcore.datasets.registry import RESOLVED_SECONDS, Registry
from ingestcore.messages.events import day_headers, day_of
from ingestcore.stage import OperatorNeeded, Retriable
from ingestcore.stores.token_bucket import Bucket
from services.webhook_gateway.signatures import Check, UnusableSecret, checker

log = structlog.get_logger(__name__)

PART: Final = "http"


@dataclass(slots=True)
class Source:
    """One source of webhooks. broken: why it takes nothing now; "": it does."""

    name: str
    tenant: str
    http: HttpSource
    dataset: str
    provenance: Mapping[str, str]
    check: Check
    bucket: Bucket | None
    broken: str = ""
    _day: str = ""
    _headers: Mapping[str, str] = field(default_factory=dict)

    def headers(self, received: str) -> Mapping[str, str]:
        """-> headers that the source's events of that day have."""
        if received[:10] != self._day:
            day = day_of(
                tenant=self.tenant,
                source=self.name,
                dataset=self.dataset,
                received=received,
                provenance=self.provenance,
            )
            self._day, self._headers = received[:10], day_headers(day)
        return self._headers


class Sources:
    """Made anew when the configuration changes, and now and then: a secret's file may have."""

    def __init__(self, specs: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._specs, self._clock = specs, clock
        self._revision, self._until = -1, 0.0
        self._sources: dict[str, Source] = {}

    def find(self, name: str) -> Source | None:
        return self.all().get(name)

    @property
    def known(self) -> Mapping[str, Source]:
        """As they were last made; for other threads than the loop's."""
        return self._sources

    def all(self) -> Mapping[str, Source]:
        if self._specs.revision != self._revision or self._clock() >= self._until:
            self._revision, self._until = self._specs.revision, self._clock() + RESOLVED_SECONDS
            self._sources = {name: self._ready(name) for name in self._specs.sources_of(PART)}
        return self._sources

    def _ready(self, name: str) -> Source:
        applied = self._specs.sources_of(PART)[name]
        assert applied.http is not None
        source = Source(name, applied.tenant, applied.http, "", dict(applied.provenance), _nobody, None)
        try:
            spec = self._specs.source(name)
            assert spec.http is not None
            source.check = checker(spec.http.auth)
            source.http, source.provenance = spec.http, dict(spec.provenance)
            source.dataset = self._specs.current(spec.dataset or name)
        except (OperatorNeeded, Retriable, UnusableSecret) as error:
            source.broken = f"source {name}: {error}"
            before = self._sources.get(name)
            if before is None or before.broken != source.broken:
                log.warning("source takes nothing", source=name, reason=str(error))
        rate = source.http.rate_limit
        if rate is not None:
            source.bucket = Bucket(f"{source.tenant}:{name}", rate.max_per_second, rate.burst)
        return source


def _nobody(headers: object, body: object, now: object) -> None:
    """Stands where a broken source has no check; such a source answers before it is asked."""
    raise AssertionError("a broken source takes nothing")
