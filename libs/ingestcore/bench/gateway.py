"""`python -m ingestcore.bench.gateway`: what the webhook gateway costs on this machine, signature, idempotency and
acks=all on. The client shares the machine: wall times say less than CPU of the gateway alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop
from rich.console import Console
from rich.table import Table

import devstack
from ingestcore.bench.accept_to_row import accept_to_row
from ingestcore.bench.cost import Cost
from ingestcore.bench.http_load import Load
from ingestcore.testing.gateway_world import STANDARD, GatewayWorld, own_platform
from ingestcore.testing.producers import as_http

SOURCE: Final = "load"
_BATCH: Final = 500
_BATCHES_AT_ONCE: Final = 4
_WARM_UP: Final = 4_000
_PARTITIONS: Final = 8
"""As a fleet has them unless told otherwise; each costs the producer requests of its own."""
_number = itertools.count(1)


def main(
    seconds: Annotated[float, typer.Option(help="Of the runs at a steady rate.")] = 20,
    rate: Annotated[int, typer.Option(help="Events a second of these runs.")] = 1000,
    events: Annotated[int, typer.Option(help="Of each run at saturation; ten times as many in batches.")] = 40_000,
    connections: Annotated[int, typer.Option(help="Posts on their way at once.")] = 128,
    rounds: Annotated[int, typer.Option(help="Runs at saturation; the median counts.")] = 3,
    through_fastapi: Annotated[bool, typer.Option(help="Beside it, one whose hot route is FastAPI's.")] = True,
    rows: Annotated[bool, typer.Option(help="Also a whole fleet: from the answer to the row in Postgres.")] = True,
) -> None:
    """Measure one gateway on real Kafka and Redis: JSON on stdout, a table beside it.

    Example:

      python -m ingestcore.bench.gateway --events 100000
    """
    servers = ["kafka", "redis", *(["s3", "postgres"] if rows else [])]
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as temporary:
        folder = Path(temporary)
        with devstack.start(folder / "stack", servers=servers) as stack:
            world = GatewayWorld(
                own_platform(folder, kafka_bootstrap=stack.endpoints.kafka, partitions=_PARTITIONS),
                folder / "gateway",
                {SOURCE: {"http": {"auth": STANDARD}}},
                REDIS_URL=stack.endpoints.redis,
            )
            worlds = {"": world}
            if through_fastapi:
                worlds["fastapi"] = world.beside(folder / "fastapi")
                worlds["fastapi"].service.environ["INGEST_WEBHOOK_GATEWAY_THROUGH_FASTAPI"] = "true"
            try:
                for one in worlds.values():
                    one.start()
                figures = _run(_measure(worlds, seconds, rate, events, connections, rounds))
            finally:
                for one in worlds.values():
                    one.stop()
            if rows:
                requests = [_event(number) for number in range(int(seconds * rate))]
                figures["accept_to_row"] = _run(accept_to_row(folder / "fleet", stack, requests, rate, connections))
    _show(figures)
    typer.echo(json.dumps(figures, indent=2))


def _run(measuring: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measuring)


async def _measure(
    worlds: Mapping[str, GatewayWorld], seconds: float, rate: int, events: int, connections: int, rounds: int
) -> dict[str, Any]:
    """-> figures by run; of several rounds the median by events per CPU second."""
    world = worlds[""]
    for one in worlds.values():
        await Load(one.port(), list(_singles(one, _WARM_UP)), connections).run()
    figures = {"steady": await _counted(world, list(_singles(world, int(seconds * rate))), connections, rate=rate)}
    many: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        # Side by side: what else runs on the machine meets all of them.
        for name, one in worlds.items():
            run = await _counted(one, list(_singles(one, events)), connections)
            many.setdefault(f"saturation_{name}".rstrip("_"), []).append(run)
        batches = list(_batches(world, 10 * events))
        many.setdefault("batches", []).append(await _counted(world, batches, _BATCHES_AT_ONCE, each=_BATCH))
    return figures | {name: _middle(runs) for name, runs in many.items()}


def _middle(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return sorted(runs, key=lambda run: run["per_cpu_second"])[len(runs) // 2]


def _singles(world: GatewayWorld, count: int) -> Iterator[bytes]:
    for _ in range(count):
        number = next(_number)
        yield _request(world, SOURCE, _event(number), f"evt-{number}")


def _batches(world: GatewayWorld, events: int) -> Iterator[bytes]:
    for _ in range(events // _BATCH):
        body = b"[" + b",".join(_event(next(_number)) for _ in range(_BATCH)) + b"]"
        yield _request(world, f"{SOURCE}/batch", body, f"batch-{next(_number)}")


def _event(number: int) -> bytes:
    return json.dumps(
        {
            "type": "order.updated",
            "order": {"id": number, "revision": number % 7, "state": "paid", "total": "17.20", "currency": "EUR"},
            "customer": {"id": f"c-{number % 1000}", "email": "someone@example.com"},
            "at": "2026-01-02T03:04:05.678Z",
        }
    ).encode()


def _request(world: GatewayWorld, path: str, body: bytes, id: str) -> bytes:
    return as_http(path, body, {"Content-Type": "application/json", **world.signed(SOURCE, body, id)})


async def _counted(
    world: GatewayWorld, requests: Sequence[bytes], connections: int, *, rate: int | None = None, each: int = 1
) -> dict[str, float]:
    """each: events of a request."""
    pid, load = world.service.pid, Load(world.port(), requests, connections, rate)
    before, client, began = Cost.of(pid), time.process_time(), time.monotonic()
    await load.run()
    wall, client = time.monotonic() - began, time.process_time() - client
    cpu = Cost.of(pid).cpu_seconds - before.cpu_seconds
    cuts = statistics.quantiles(load.seconds, n=100)
    events = len(requests) * each
    return {
        "events": events,
        "connections": connections,
        "per_second": round(events / wall),
        "per_cpu_second": round(events / cpu),
        "client_cpu_share": round(client / cpu, 2),
        "p50_ms": round(cuts[49] * 1000, 1),
        "p95_ms": round(cuts[94] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "peak_rss_mb": Cost.of(pid).peak_rss_bytes >> 20,
    }


def _show(figures: Mapping[str, Mapping[str, float]]) -> None:
    columns = ("per_cpu_second", "per_second", "p50_ms", "p95_ms", "p99_ms")
    table = Table("run", *(name.replace("_", " ") for name in columns))
    for name, run in figures.items():
        table.add_row(name.replace("_", " "), *(f"{run[c]:,}" if c in run else "" for c in columns))
    Console(stderr=True).print(table)


if __name__ == "__main__":
    typer.run(main)
