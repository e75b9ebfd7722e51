"""`python -m ingestcore.bench.gateway`: what the webhook gateway costs on this machine, signature, idempotency and
acks=all on. The client shares the machine: wall times say less than CPU of the gateway alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop

import devstack
from ingestcore.bench.cost import Cost
from ingestcore.testing.gateway_world import STANDARD, GatewayWorld, own_platform

SOURCE: Final = "load"
_BATCH: Final = 500
_WARM_UP: Final = 2_000
_number = itertools.count(1)


def main(
    seconds: Annotated[float, typer.Option(help="Of the run at a steady rate.")] = 20,
    rate: Annotated[int, typer.Option(help="Events a second of that run.")] = 1000,
    events: Annotated[int, typer.Option(help="Of the run at saturation, and of the run in batches.")] = 40_000,
    connections: Annotated[int, typer.Option(help="At saturation.")] = 64,
    through_fastapi: Annotated[bool, typer.Option(help="Let FastAPI route the events, too.")] = False,
) -> None:
    """Measure one gateway on real Kafka and Redis, print JSON.

    Example:

      python -m ingestcore.bench.gateway --events 100000
    """
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as temporary:
        folder = Path(temporary)
        with devstack.start(folder / "stack", servers=["kafka", "redis"]) as stack:
            more = {"INGEST_WEBHOOK_GATEWAY_THROUGH_FASTAPI": "true"} if through_fastapi else {}
            world = GatewayWorld(
                own_platform(folder, kafka_bootstrap=stack.endpoints.kafka),
                folder / "gateway",
                {SOURCE: {"http": {"auth": STANDARD}}},
                REDIS_URL=stack.endpoints.redis,
                **more,
            )
            world.start()
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    figures = runner.run(_measure(world, seconds, rate, events, connections))
            finally:
                world.stop()
    typer.echo(json.dumps(figures, indent=2))


async def _measure(world: GatewayWorld, seconds: float, rate: int, events: int, connections: int) -> dict[str, Any]:
    port, pid = world.port(), world.service.pid
    await _run(port, list(_singles(world, _WARM_UP)), connections)
    steady = await _counted(pid, port, list(_singles(world, int(seconds * rate))), connections, rate=rate)
    full = await _counted(pid, port, list(_singles(world, events)), connections)
    batches = list(_batches(world, events))
    many = await _counted(pid, port, batches, 4, events_each=_BATCH)
    return {"steady": {"rate": rate, **steady}, "saturation": full, "batches": {"size": _BATCH, **many}}


def _singles(world: GatewayWorld, count: int) -> Iterator[bytes]:
    for _ in range(count):
        number = next(_number)
        yield _request(world, f"{SOURCE}", _event(number), f"evt-{number}")


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
    lines = [f"POST /v1/webhooks/{path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *(f"{n}: {v}" for n, v in world.signed(SOURCE, body, id).items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _counted(
    pid: int, port: int, requests: Sequence[bytes], connections: int, *, rate: int | None = None, events_each: int = 1
) -> dict[str, float]:
    before, began = Cost.of(pid), time.monotonic()
    took = await _run(port, requests, connections, rate)
    wall, cpu = time.monotonic() - began, Cost.of(pid).cpu_seconds - before.cpu_seconds
    cuts = statistics.quantiles(took, n=100)
    events = len(requests) * events_each
    return {
        "events": events,
        "per_second": round(events / wall),
        "per_cpu_second": round(events / cpu),
        "p50_ms": round(cuts[49] * 1000, 1),
        "p95_ms": round(cuts[94] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "peak_rss_mb": Cost.of(pid).peak_rss_bytes >> 20,
    }


async def _run(port: int, requests: Sequence[bytes], connections: int, rate: int | None = None) -> list[float]:
    """-> seconds of each request; at a rate they count from when it was due. Raises RuntimeError: not 202."""
    took: list[float] = []
    began, left = time.monotonic(), iter(enumerate(requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number, request in left:
            due = time.monotonic()
            if rate is not None:
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            if b" 202 " not in head[:16]:
                raise RuntimeError(f"a post failed: {head + body!r}")
            took.append(time.monotonic() - due)
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return took


if __name__ == "__main__":
    typer.run(main)
