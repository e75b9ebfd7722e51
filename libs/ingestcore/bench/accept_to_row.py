"""How long an event takes from its 202 to its row in Postgres, through a whole fleet at a steady rate."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg

from devstack import Stack
from devstack.cache import cache_folder
from devstack.ports import PortClaims
from ingestcore.bench.http_load import Load
from ingestcore.datasets.http_source import Auth
from ingestcore.testing.first_seen import FirstSeen
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.gateway_world import STANDARD
from ingestcore.testing.producers import Post, as_http

_NAME: Final = "benchrows"
_GATEWAY: Final = "webhook-gateway"
_WARM_UP: Final = 500
_LOOK_SECONDS: Final = 0.05
"""How often the table is looked at; a figure is too high by this at most."""
_TIMEOUT_SECONDS: Final = 120.0
_DATASET: Final[Mapping[str, Any]] = {
    "primary_key": ["number"],
    "revision": "revision",
    "on_extra": "discard_value",
    "fields": {
        "number": {"from": "order.id", "type": "integer"},
        "revision": {"from": "order.revision", "type": "integer"},
        "total": {"from": "order.total", "type": "decimal(10,2)"},
    },
}


async def accept_to_row(
    folder: Path, stack: Stack, events: Sequence[bytes], rate: int, connections: int
) -> dict[str, float]:
    """events: bodies, `order.id` of each its place. Raises RuntimeError: not every row came."""
    fleet = LocalFleet(folder, _NAME, stack.endpoints.environ(), stack.bin, stack.create_bucket)
    with PortClaims(cache_folder()) as claims:
        port = claims.choose((_GATEWAY,), {})[_GATEWAY]
        fleet.set("INGEST_WEBHOOK_GATEWAY_PORT", str(port))
        fleet.up(
            {
                "sources": {_NAME: {"http": {"auth": STANDARD}, "dataset": "orders"}},
                "datasets": {"orders": dict(_DATASET)},
                "sinks": {"warehouse": {"postgres": {}}},
            }
        )
    try:
        looking = _Numbers(stack.endpoints.postgres)
        accepted = [0.0] * len(events)
        auth = Auth.model_validate(STANDARD)
        posts = (Post(_NAME, auth, f"evt-{number}", body) for number, body in enumerate(events))
        requests = [as_http(post.path, post.body, post.headers()) for post in posts]

        def note(first: int) -> Any:
            def noted(number: int) -> None:
                accepted[first + number] = time.monotonic()

            return noted

        # The first events of a fleet meet an empty table, and services that have read nothing yet.
        await Load(port, requests[:_WARM_UP], connections, rate, note(0)).run()
        with looking:
            await asyncio.to_thread(looking.until, _WARM_UP)
            await Load(port, requests[_WARM_UP:], connections, rate, note(_WARM_UP)).run()
            await asyncio.to_thread(looking.until, len(events))
    finally:
        fleet.down()
    took = [looking.seen[n] - accepted[n] for n in range(_WARM_UP, len(events))]
    cuts = statistics.quantiles(took, n=100)
    return {
        "events": len(took),
        "per_second": rate,
        "p50_ms": round(cuts[49] * 1000),
        "p95_ms": round(cuts[94] * 1000),
        "p99_ms": round(cuts[98] * 1000),
    }


class _Numbers(FirstSeen[int]):
    """Rows by number; of those behind the first that is missing, so that a look stays cheap."""

    def __init__(self, url: str) -> None:
        super().__init__(url, _LOOK_SECONDS)
        self._below = 0

    def look(self, connection: psycopg.Connection[Any]) -> Iterable[int]:
        while self._below in self.seen:
            self._below += 1
        found = connection.execute("SELECT number FROM orders WHERE number >= %s", (self._below,))
        return [number for (number,) in found]

    def until(self, count: int) -> None:
        """Raises RuntimeError: so many rows are not there in time."""
        if not self.wait(range(count), _TIMEOUT_SECONDS):
            raise RuntimeError(f"{len(self.seen)} of {count} rows are in Postgres after {_TIMEOUT_SECONDS:g} s")
