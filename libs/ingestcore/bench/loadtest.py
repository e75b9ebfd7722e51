"""`python -m ingestcore.bench.loadtest`: k6 against a gateway of its own, and what the gateway's process cost."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import typer

import devstack
from ingestcore.bench.cost import Cost
from ingestcore.testing.gateway_world import SECRET, STANDARD, GatewayWorld, own_platform

_SOURCE: Final = "shop"
_PARTITIONS: Final = 8


def main(
    script: Annotated[Path, typer.Argument(help="k6 script; gets URL, SECRET, RATE and DURATION.")],
    k6: Annotated[str, typer.Option(help="The k6 binary.")] = "k6",
    rate: Annotated[int, typer.Option(help="Events a second.")] = 1000,
    duration: Annotated[str, typer.Option(help="As k6 writes it.")] = "60s",
) -> None:
    """Run it on real Kafka and Redis; ends as k6 ends: 99 where a threshold does not hold.

    Example:

      python -m ingestcore.bench.loadtest loadtests/webhooks.js --duration 10s
    """
    with tempfile.TemporaryDirectory(prefix="ingest-loadtest-") as temporary:
        folder = Path(temporary)
        with devstack.start(folder / "stack", servers=["kafka", "redis"]) as stack:
            platform = own_platform(folder, kafka_bootstrap=stack.endpoints.kafka, partitions=_PARTITIONS)
            sources = {_SOURCE: {"http": {"auth": STANDARD}}}
            world = GatewayWorld(platform, folder / "gateway", sources, REDIS_URL=stack.endpoints.redis)
            world.start()
            try:
                pid, url = world.service.pid, f"{world.root}/v1/webhooks/{_SOURCE}"
                given = {"URL": url, "SECRET": SECRET, "RATE": str(rate), "DURATION": duration}
                before, began = Cost.of(pid).cpu_seconds, time.monotonic()
                ended = _run([k6, "run", *(f"--env={n}={v}" for n, v in given.items()), str(script)])
                wall, cost = time.monotonic() - began, Cost.of(pid)
                stored = len(world.events())
            finally:
                world.stop()
    cpu = cost.cpu_seconds - before
    figures = {
        "stored": stored,
        "gateway_cores": round(cpu / wall, 2),
        "events_per_cpu_second": round(stored / cpu),
        "peak_rss_mb": cost.peak_rss_bytes >> 20,
    }
    typer.echo(json.dumps(figures))
    raise typer.Exit(ended)


def _run(command: list[str]) -> int:
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        typer.echo(f"there is no {command[0]}: make loadtest builds it, or name it with --k6", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)
