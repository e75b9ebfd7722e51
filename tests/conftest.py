"""Fixtures of the tests that need real servers. One stack per run; endpoints in the environment replace it."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestcore.settings import Platform

_number = itertools.count()


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
