"""Whole fleets on the session's servers, one per test module."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import devstack
from devstack import seaweedfs
from devstack.commands import write_commands
from ingestcore.testing.fleet import LocalFleet

SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"
QUICK = {"INGEST_SESSION_TIMEOUT_MS": "3000", "INGEST_TRANSACTION_TIMEOUT_MS": "5000", "INGEST_PARTITIONS": "4"}
"""A killed or frozen replica is missed within seconds."""

_number = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shared_data: needs the public files in ../shared/data")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SHARED_DATA.is_dir():
        return
    without = [item for item in items if item.get_closest_marker("shared_data")]
    if without:
        print(f"\n{len(without)} tests deselected: the public files of {SHARED_DATA} are not there")
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return SHARED_DATA


@pytest.fixture(scope="module")
def make_fleet(
    endpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., LocalFleet]]:
    """-> makes fleets, not started yet, with topics and buckets of their own; stopped after the module."""
    reached = devstack.Endpoints(
        kafka=endpoints["KAFKA_BOOTSTRAP_SERVERS"],
        s3=endpoints.get("S3_ENDPOINT_URL", ""),
        s3_access_key=endpoints.get("AWS_ACCESS_KEY_ID", ""),
        s3_secret_key=endpoints.get("AWS_SECRET_ACCESS_KEY", ""),
        s3_region=endpoints.get("AWS_REGION", ""),
        redis=endpoints.get("REDIS_URL", ""),
    )
    made: list[LocalFleet] = []

    def make(**settings: str) -> LocalFleet:
        folder = tmp_path_factory.mktemp("fleet")
        write_commands(folder, reached)
        name = f"e2e-{os.getpid()}-{time.time_ns() % 10**6}-{next(_number)}"
        fleet = LocalFleet(
            folder / "ingest",
            name,
            {**endpoints, **QUICK, **settings},
            folder / "bin",
            lambda bucket: seaweedfs.create_bucket(reached.as_dict(), bucket),
        )
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.down()
