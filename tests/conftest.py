"""What tests share: fixtures that need real servers (one stack per run; endpoints in the environment replace it), and
how many examples properties are tried on."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from ingestcore.settings import Platform

if TYPE_CHECKING:
    from devstack import Stack
    from ingestcore.testing.fleet import LocalFleet

QUICK = {"INGEST_SESSION_TIMEOUT_MS": "3000", "INGEST_TRANSACTION_TIMEOUT_MS": "5000", "INGEST_PARTITIONS": "4"}
"""A killed or frozen replica is missed within seconds."""

_number = itertools.count()

# How fast the machine is says nothing about a property.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("check", _UNTIMED, max_examples=50)
settings.register_profile("thorough", _UNTIMED, max_examples=1_000)
settings.load_profile("check")


def pytest_addoption(parser: pytest.Parser) -> None:
    faults = parser.getgroup("faults", "random faults (tests/faults)")
    faults.addoption("--fault-seed", type=int, help="repeat the run that printed this seed")
    faults.addoption("--fault-count", type=int, help="so many faults instead of the round's own number")
    faults.addoption("--fault-only", metavar="NAME,NAME", help="draw from these faults only")


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """-> environment that reaches real Kafka, S3 and Redis; also set in this process for the session."""
    import devstack

    stack = devstack.start(tmp_path_factory.mktemp("stack"))
    environ = stack.endpoints.environ()
    before = dict(os.environ)
    os.environ.update(environ)
    yield environ
    os.environ.clear()
    os.environ.update(before)
    stack.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """-> a real Postgres of its own, which tests may stop and start; `POSTGRES_URL` replaces it."""
    import devstack

    with devstack.start(tmp_path_factory.mktemp("postgres"), servers=["postgres"]) as stack:
        yield stack


@pytest.fixture
def platform(endpoints: dict[str, str], tmp_path: Path) -> Callable[..., Platform]:
    """-> makes platform settings with topics of their own, quick timeouts and a state folder of their own."""

    def make(**settings: object) -> Platform:
        return Platform(
            topic_prefix=f"t{os.getpid()}x{time.time_ns() % 10**9}x{next(_number)}.",
            state_dir=tmp_path / "state",
            session_timeout_ms=2_000,
            transaction_timeout_ms=4_000,
            **{"partitions": 4, **settings},  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="module")
def make_fleet(
    endpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., LocalFleet]]:
    """-> makes fleets, not started yet, with topics and buckets of their own; stopped after the module."""
    import devstack
    from devstack import seaweedfs
    from devstack.commands import write_commands
    from ingestcore.testing.fleet import LocalFleet

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
        name = f"fleet-{os.getpid()}-{time.time_ns() % 10**6}-{next(_number)}"
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
