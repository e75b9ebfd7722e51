"""The whole chain once: one file from S3 to Parquet through real Kafka, one process a service, with what each cost."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import devstack
from ingestcore.bench.cases import Input
from ingestcore.bench.cost import Cost
from ingestcore.cli.looking.completeness import groups_of
from ingestcore.kafka import config_topic
from ingestcore.kafka.admin import open_admin
from ingestcore.kafka.backlog import backlog
from ingestcore.ledger import State
from ingestcore.runtime.service import discover
from ingestcore.settings import Platform
from ingestcore.testing.fleet import LocalFleet
from ingestcore.topics import TOPICS, topic_name

SERVERS: Final = ("kafka", "s3", "redis")
_STAGED: Final = ("chunk-downloader", "csv-parser", "normalizer", "lake")
_POLL_SECONDS: Final = 0.5
"""Each look costs the sink milliseconds of CPU, of every replica."""
_LOOK_SECONDS: Final = 2.0
_MAX_AGE: Final = {"lake": "2s", "dlq": "5s"}
"""Of the two sinks, 30 s unless told otherwise. A file costs 6 ms and more, so a run must neither be made of them nor
end before there are any. Rows come sooner: the wall time waits for the last."""
_TIMEOUT_SECONDS: Final = 1_800.0
_CLEAR_SECONDS: Final = 30.0
_DELIVERED = re.compile(r'^ingest_records_total\{[^}]*fate="delivered"[^}]*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class ChainRun:
    """One run.

    wall_seconds  from the object's appearance in S3 to the last row's Parquet file
    cpu_ms_per_mb, peak_rss_mib  by process: services by label, then `kafka`, `s3`, `redis`; MB of CSV (10^6 bytes)
    most_waiting  by service or sink: most records that were in front of it, seen every other second
    """

    megabytes: float
    rows: int
    wall_seconds: float
    cpu_ms_per_mb: Mapping[str, float]
    peak_rss_mib: Mapping[str, float]
    most_waiting: Mapping[str, int]

    @property
    def mb_per_second(self) -> float:
        return self.megabytes / self.wall_seconds

    @property
    def ours_ms_per_mb(self) -> float:
        """CPU of all services."""
        return sum(cost for label, cost in self.cpu_ms_per_mb.items() if label not in SERVERS)


def run_chain(
    folder: Path,
    stack: devstack.Stack,
    name: str,
    input: Input,
    *,
    workers: int = 1,
    options: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> ChainRun:
    """Send the input through a fresh fleet on a running stack.

    workers  replicas of every stage but the lister
    options  more of `ingest up`
    environ  settings of its services
    Raises AssertionError: not every row came out, or the ledger does not balance.
    """
    fleet = LocalFleet(
        folder / name,
        name,
        {**stack.endpoints.environ(), **(environ or {})},
        stack.bin,
        stack.create_bucket,
        max_age=_MAX_AGE,
    )
    replicas = [part for stage in _STAGED for part in ("--replicas", f"{stage}={workers}")] if workers > 1 else []
    config = {
        "sources": {name: fleet.source(route={"*.csv": "bench"})},
        "datasets": {"bench": dict(input.written)},
    }
    fleet.up(config, *replicas, *options)
    platform = fleet.platform()
    try:
        fleet.upload("bench.csv", input.path)
        before = _costs(fleet, stack)
        wall, most = _until_delivered(fleet, input.distinct)
        after = _costs(fleet, stack)
        (found,) = fleet.settled(1).objects
        assert found.state is State.BALANCED and found.published == input.distinct, found
    finally:
        fleet.down()
        _clear(fleet, platform, stack)
    megabytes = input.nbytes / 1e6
    return ChainRun(
        megabytes,
        input.rows,
        wall,
        {label: 1e3 * (cost.cpu_seconds - before[label].cpu_seconds) / megabytes for label, cost in after.items()},
        {label: cost.peak_rss_bytes / (1 << 20) for label, cost in after.items()},
        most,
    )


def _clear(fleet: LocalFleet, platform: Platform, stack: devstack.Stack) -> None:
    """Give back what a run took: tens of runs would fill the disk, and the S3 server's volumes before it."""
    names = [topic_name(platform.topic_prefix, topic) for topic in TOPICS]
    admin = open_admin(platform)  # its answers end with it
    for deleted in admin.delete_topics(names).values():
        deleted.result(_CLEAR_SECONDS)
    for bucket in (fleet.bucket, fleet.out):
        stack.remove_bucket(bucket)


def _costs(fleet: LocalFleet, stack: devstack.Stack) -> dict[str, Cost]:
    pids = {label: row.pid for label, row in fleet.processes().items()}
    return {label: Cost.of(pid) for label, pid in (pids | stack.pids()).items()}


def _until_delivered(fleet: LocalFleet, rows: int) -> tuple[float, dict[str, int]]:
    """Wait for that many rows in Parquet, as the sink's own metrics count them.

    -> seconds, and the most records that waited in front of each group.
    """
    started = looked = time.monotonic()
    settings = fleet.platform()
    groups = groups_of(settings, discover().values(), config_topic.read(settings))
    most: dict[str, int] = dict.fromkeys(groups, 0)
    ports = [row.admin_port for row in fleet.processes().values() if row.sink == "lake"]
    while sum(map(_delivered, ports)) < rows:
        now = time.monotonic()
        if now - started > _TIMEOUT_SECONDS:
            raise AssertionError(f"{rows} rows were not delivered in {_TIMEOUT_SECONDS:g} s")
        if now - looked > _LOOK_SECONDS:
            looked = now
            waiting = backlog(settings, groups).waiting
            most = {group: max(n, waiting[group]) for group, n in most.items()}
        time.sleep(_POLL_SECONDS)
    prefix = settings.group("")
    return time.monotonic() - started, {group.removeprefix(prefix): count for group, count in most.items()}


def _delivered(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return int(sum(float(value) for value in _DELIVERED.findall(answer.read().decode())))
