"""Servers of a test's own, whatever servers the environment names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

_NAMES: Final = ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS", "S3_ENDPOINT_URL", "REDIS_URL", "POSTGRES_URL")


@contextmanager
def own_servers() -> Iterator[None]:
    """A stack started within starts its own servers."""
    with patch.dict(os.environ):
        for name in _NAMES:
            os.environ.pop(name, None)
        yield
