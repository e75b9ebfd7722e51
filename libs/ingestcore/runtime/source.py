"""Runs sources: a thread and a transactional producer for each source of the configuration, followed live.

The transactional id is the source's, so Kafka fences a second instance. A step's messages commit first, then the
source's own checkpoint moves: what a crash in between repeats counts once downstream.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from confluent_kafka import KafkaException

from ingestcore.datasets.names import DEFAULT_TENANT
from ingestcore.datasets.registry import Registry
from ingestcore.kafka.transactions import Transactions
from ingestcore.messages.moments import iso_utc
from ingestcore.observe.health import Health
from ingestcore.observe.metrics import Metrics
from ingestcore.runtime.gauges import StageGauges
from ingestcore.runtime.recording import emitted, headers
from ingestcore.runtime.service import OpenSource
from ingestcore.runtime.spans import Spans
from ingestcore.runtime.trouble import in_words
from ingestcore.settings import Platform
from ingestcore.stage import Fenced, OperatorNeeded, Retriable, Source, Step, check
from ingestcore.topics import topic_name

log = structlog.get_logger(__name__)

_FOLLOW_SECONDS = 0.5
_NOTHING_READY_SECONDS = 0.02
_FIRST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 0.2, 10.0


class SourceRunner:
    """All sources of one service: those it brings itself (`own`), else those of the configuration that have the part it
    takes."""

    def __init__(
        self,
        open_source: OpenSource,
        *,
        service: str,
        own: Sequence[str] = (),
        takes: str = "",
        platform: Platform,
        specs: Registry,
        metrics: Metrics,
        health: Health,
        stop: threading.Event,
        spans: Spans | None = None,
    ) -> None:
        self._spans = spans or Spans()
        self._open, self._service, self._platform, self._specs = open_source, service, platform, specs
        self._metrics, self._health, self._stop = metrics, health, stop
        self._own, self._takes = dict.fromkeys(own, DEFAULT_TENANT), takes
        self._running: dict[str, _Running] = {}
        health.explain("adapters", self._adapters)

    def _adapters(self) -> Mapping[str, Any]:
        return {name: running.status() for name, running in self._running.items()}

    def run(self) -> None:
        """Follow the configuration until stopped; then end every source. Raises OperatorNeeded: at the start none of
        the sources can be read. (One of many that can't is waited for and said in health.)"""
        self._check_at_start()
        while not self._stop.is_set():
            self._follow()
            reasons = [f"{name}: {reason}" for name, r in self._running.items() if (reason := r.waits())]
            if reasons:
                self._health.waiting("; ".join(reasons))
            else:
                self._health.ready()
            self._health.beat()
            busy = sum(not r.rests for r in self._running.values())
            self._health.in_flight(busy, drained=not busy)
            self._stop.wait(_FOLLOW_SECONDS)
        self._health.draining()
        for running in self._running.values():
            running.end()
        for running in self._running.values():
            running.join(self._platform.drain_seconds)

    def _check_at_start(self) -> None:
        refused = []
        for name in (names := self._wanted()):
            try:
                self._open(name).check()
            except OperatorNeeded as error:
                refused.append(f"source {name}: {error}")
            except Retriable as error:
                log.info("source can't be checked yet", source=name, reason=str(error))
        if refused and len(refused) == len(names):
            raise OperatorNeeded("; ".join(refused))

    def _wanted(self) -> Mapping[str, str]:
        """-> tenant by source."""
        return self._own or {name: spec.tenant for name, spec in self._specs.sources_of(self._takes).items()}

    def _follow(self) -> None:
        wanted = self._wanted()
        for name in [name for name in self._running if name not in wanted]:
            log.info("source removed", source=name)
            self._running.pop(name).end()
        for name, tenant in wanted.items():
            if name not in self._running:
                log.info("source started", source=name, tenant=tenant)
                transactions = Transactions(self._platform, f"{self._platform.group('source')}-{tenant}-{name}")
                gauges = StageGauges(self._metrics, self._service)
                self._running[name] = _Running(
                    name, self._open(name), transactions, self._platform, gauges, self._health, self._spans
                )


class _Running:
    """One source in its thread."""

    def __init__(
        self,
        name: str,
        source: Source,
        transactions: Transactions,
        platform: Platform,
        gauges: StageGauges,
        health: Health,
        spans: Spans,
    ) -> None:
        self.waiting_for = ""
        self.rests = True
        """Between two passes: nothing is in flight."""
        self._health, self._spans = health, spans
        self._name, self._source, self._tx, self._platform, self._gauges = name, source, transactions, platform, gauges
        self._ended = threading.Event()
        self._term: object = None
        self._thread = threading.Thread(target=self._run, name=f"source-{name}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def waits(self) -> str:
        """-> what keeps it from its work, or "". Standing by while another replica acts is no waiting."""
        own = self._source.status()
        return self.waiting_for or ("" if own.get("standing_by") else str(own.get("waiting", "")))

    def status(self) -> Mapping[str, Any]:
        return {"waiting_for": self.waiting_for} | dict(self._source.status())

    def _run(self) -> None:
        structlog.contextvars.bind_contextvars(source=self._name)
        backoff = _FIRST_BACKOFF_SECONDS
        while not self._ended.is_set():
            if self._health.asked_to_drain:
                self._ended.wait(_FOLLOW_SECONDS)
                continue
            try:
                whole = self._pass()
                self.waiting_for, backoff = "", _FIRST_BACKOFF_SECONDS
                if whole:
                    self._ended.wait(self._source.pause_seconds())
            except Exception as error:
                self._say(error)
                self._gauges.failed(error)
                self._give_up_transaction()
                self._ended.wait(random.uniform(backoff / 2, backoff))
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
        close = getattr(self._source, "close", None)
        if close:
            close()  # a source may have a lease to give up and progress to tell

    def _say(self, error: Exception) -> None:
        text = in_words(error, self._platform.state_dir)
        if text == self.waiting_for:
            return
        self.waiting_for = text
        if isinstance(error, Retriable | OperatorNeeded | KafkaException | OSError):
            log.warning("source waits", reason=text)
        elif isinstance(error, Fenced):
            log.warning("another instance took this source over", reason=text)
            self._tx.broken = True
        else:
            log.error("source failed, trying again", exc_info=error)

    def _give_up_transaction(self) -> None:
        try:
            self._tx.abort()
        except (Retriable, OperatorNeeded, Fenced, KafkaException) as error:
            self._tx.broken = True
            log.debug("abort failed", error=str(error))

    def _pass(self) -> bool:
        """-> was it whole? What a drain cuts short goes on from the checkpoint."""
        self.rests = False
        scan = self._source.scan()
        try:
            for step in scan:
                if self._ended.is_set() or self._health.asked_to_drain:
                    return False
                if self._source.term != self._term:
                    # Ours anew: a fresh producer fences whoever held the source before.
                    self._tx.connect()
                    self._term = self._source.term
                if step is None:
                    self._ended.wait(_NOTHING_READY_SECONDS)
                else:
                    self._take(step)
            return True
        finally:
            close = getattr(scan, "close", None)
            if close:
                close()
            self.rests = True

    def _take(self, step: Step) -> None:
        check(step)
        now = iso_utc(datetime.now(UTC))
        for emit in step.emits:
            added = headers(Step((), ()), (), now) | {"sources": self._name}
            self._spans.found(self._name, added)
            # An object's rows are not counted yet: no promise.
            named = emitted(emit, added, counted=emit.rows > 0)
            topic = topic_name(self._platform.topic_prefix, emit.topic)
            self._tx.send(topic, emit.value, key=emit.key, partition=emit.partition, headers=named)
        self._gauges.stepped(step, {})
        began = time.monotonic()
        if self._tx.open:
            self._tx.commit({}, None)
        self._source.acknowledged(step.resume)
        seconds = time.monotonic() - began
        self._gauges.committed(seconds, seconds, ())
