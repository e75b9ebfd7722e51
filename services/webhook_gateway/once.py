"""Each event is stored once: claimed in Redis, confirmed by Kafka, then remembered as done.

Events that come together go together: one question to Redis, one wait for Kafka. What came of an event is told to
whoever posted the same meanwhile, here or at another replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol
from uuid import uuid4

from ingestcore.kafka.deliveries import Failure, Record
from ingestcore.observe.metrics import Metrics
from ingestcore.stores.idempotency import Claims
from ingestcore.stores.quick_redis import RedisAway
from services.webhook_gateway.arrival import Arrival
from services.webhook_gateway.problems import Kind, Problem
from services.webhook_gateway.settings import GatewaySettings
from services.webhook_gateway.sources import Source

_LOOK_SECONDS: Final = 0.05
"""How often a claim of another replica is looked at."""


class Delivering(Protocol):
    """What is needed of `kafka.deliveries`."""

    def send(self, records: Sequence[Record]) -> asyncio.Future[Sequence[Failure]]: ...


class Stored(NamedTuple):
    """duplicate: it was there before this post."""

    event_id: str
    duplicate: bool


Outcome = Stored | Problem


class _Flight:
    """An event on its way in this process."""

    __slots__ = ("_waiting", "arrival", "became")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.became: Outcome | None = None
        self._waiting: asyncio.Future[None] | None = None

    def lands(self, became: Outcome) -> None:
        self.became = became
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self, seconds: float) -> Outcome | None:
        """-> what became of it; None: nothing yet, after so long."""
        if self.became is None:
            self._waiting = self._waiting or asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await asyncio.shield(self._waiting)
        return self.became


class Once:
    """Of one process; on the loop's thread."""

    def __init__(self, settings: GatewaySettings, metrics: Metrics, deliveries: Delivering, claims: Claims) -> None:
        self._settings, self._metrics = settings, metrics
        self._deliveries, self._claims = deliveries, claims
        self._flights: dict[str, _Flight] = {}
        """By key, until Redis remembers them."""
        self._process, self._calls = uuid4().hex, itertools.count()

    async def store(self, source: Source, arrivals: Sequence[Arrival]) -> Sequence[Outcome]:
        """-> what became of each, in order."""
        if not source.http.idempotency.enabled:
            return [
                failure or Stored(arrival.identity.event_id, False)
                for arrival, failure in zip(arrivals, await self._deliver(source, arrivals), strict=True)
            ]
        deadline = time.monotonic() + self._settings.wait_seconds
        flights = [self._flight_of(arrival) for arrival in arrivals]
        ours = [flight for flight, arrival in zip(flights, arrivals, strict=True) if flight.arrival is arrival]
        if ours:
            try:
                await self._claim(source, ours, deadline)
            except BaseException:
                for flight in ours:
                    self._end(flight, flight.became or Problem(Kind.INTERNAL))
                raise
        return [
            flight.became
            if flight.became and flight.arrival is arrival
            else await self._same(flight, arrival, deadline)
            for flight, arrival in zip(flights, arrivals, strict=True)
        ]

    def _flight_of(self, arrival: Arrival) -> _Flight:
        """-> its own, or that of the same event."""
        keys = arrival.identity.keys
        for key in keys:
            found = self._flights.get(key)
            if found is not None:
                return found
        made = _Flight(arrival)
        for key in keys:
            self._flights[key] = made
        return made

    async def _same(self, flight: _Flight, arrival: Arrival, deadline: float) -> Outcome:
        """The same event is on its way in this process: its answer is ours."""
        if flight.arrival.identity.fingerprint != arrival.identity.fingerprint:
            return Problem(Kind.KEY_REUSED)
        became = await flight.wait(deadline - time.monotonic())
        if became is None:
            return self._in_flight()
        if isinstance(became, Problem):
            return Problem(became.kind, became.detail, became.retry_after, cause=became.cause)
        return Stored(became.event_id, True)

    async def _claim(self, source: Source, flights: Sequence[_Flight], deadline: float) -> None:
        """Ends when all have landed."""
        owner = f"{self._process}{next(self._calls):x}"
        while True:
            free, taken = await self._ask(flights, owner)
            if free:
                await self._fly(source, free, owner)
            if not taken:
                return
            if time.monotonic() > deadline:
                for flight in taken:
                    self._end(flight, self._in_flight())
                return
            await asyncio.sleep(_LOOK_SECONDS)
            flights = taken

    async def _ask(self, flights: Sequence[_Flight], owner: str) -> tuple[Sequence[_Flight], Sequence[_Flight]]:
        """-> those that are ours to send, and those that another replica is sending; others have landed."""
        try:
            found = await self._claims.claim([flight.arrival.identity for flight in flights], owner)
        except RedisAway:
            return flights, ()  # taken all the same: the normalizer drops repeats exactly
        free, taken = [], []
        for flight, held in zip(flights, found, strict=True):
            if held is None:
                free.append(flight)
            elif held.fingerprint != flight.arrival.identity.fingerprint:
                self._end(flight, Problem(Kind.KEY_REUSED))
            elif held.is_done:
                self._end(flight, Stored(held.event_id, True))
            else:
                taken.append(flight)
        return free, taken

    async def _fly(self, source: Source, flights: Sequence[_Flight], owner: str) -> None:
        failures = await self._deliver(source, [flight.arrival for flight in flights])
        stored: list[_Flight] = []
        failed: list[tuple[_Flight, Problem]] = []
        for flight, failure in zip(flights, failures, strict=True):
            if failure is None:
                flight.lands(Stored(flight.arrival.identity.event_id, False))
                stored.append(flight)
            else:
                failed.append((flight, failure))
        if stored:
            # The answer does not wait for Redis; whoever posts the same meanwhile meets the flight, or its claim.
            claims = [flight.arrival.identity for flight in stored]
            event_ids = [flight.arrival.identity.event_id for flight in stored]
            remembered = self._claims.done(claims, event_ids, source.http.idempotency.ttl)
            remembered.add_done_callback(lambda _: self._forget(stored))
        if failed:
            with contextlib.suppress(RedisAway):
                await self._claims.release([flight.arrival.identity for flight, _ in failed], owner)
            for flight, failure in failed:
                self._end(flight, failure)

    async def _deliver(self, source: Source, arrivals: Sequence[Arrival]) -> Sequence[Problem | None]:
        began = time.monotonic()
        failures = await self._deliveries.send([arrival.record for arrival in arrivals])
        stored = failures.count(None)
        if stored:
            seconds = time.monotonic() - began
            self._metrics.observe("ingest_webhook_ack_seconds", seconds, stored, source=source.name)
        wait = self._settings.retry_after_seconds
        return [
            None if failure is None else Problem(Kind.STORE_AWAY, retry_after=wait, cause=str(failure))
            for failure in failures
        ]

    def _in_flight(self) -> Problem:
        return Problem(Kind.IN_FLIGHT, retry_after=self._settings.retry_after_seconds)

    def _end(self, flight: _Flight, became: Outcome) -> None:
        flight.lands(became)
        self._forget([flight])

    def _forget(self, flights: Sequence[_Flight]) -> None:
        for flight in flights:
            for key in flight.arrival.identity.keys:
                if self._flights.get(key) is flight:
                    del self._flights[key]

    async def finish(self) -> None:
        """Wait until all that was answered is remembered."""
        await self._claims.finish()
