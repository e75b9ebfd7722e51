"""The dedupe changelog on the real broker: a replay gives the slices of its writer; `apply` sets its retention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from ingestcore.datasets.publish import Change, Kind
from ingestcore.kafka import admin, config_topic
from ingestcore.kafka.transactions import Transactions
from ingestcore.runtime.access import Topics
from ingestcore.settings import Platform
from ingestcore.topics import topic_name
from services.normalizer.changelog import CHANGELOG
from services.normalizer.keys import Keys
from services.normalizer.restore import restore
from services.normalizer.slices import slice_ms
from services.normalizer.state import FilterPlan

pytestmark = pytest.mark.integration

PLAN = FilterPlan(1000, 0.01)
WINDOW_MS = 8
"""Slices of a millisecond: the times of the writer and of the reader must agree to that."""
DAY_MS = 86_400_000


def test_a_replay_gives_the_slices_that_the_writer_has(platform: Callable[..., Platform], tmp_path: Path) -> None:
    settings = platform()
    admin.create_topics(settings)
    transactions = Transactions(settings, "writer")
    topics = Topics(settings, transactions)
    name = topic_name(settings.topic_prefix, CHANGELOG)
    lived = restore(topics, tmp_path / "lived", 0, PLAN, 10**6)
    for number in range(40):
        for window_ms in (0, WINDOW_MS, 100 * WINDOW_MS, 10**9):
            keys = [(number, window_ms, n) for n in range(3)]
            lived.admit(Keys.of_bytes(b"".join(f"{hash(key) % 2**60:016x}".encode() for key in keys)), window_ms)
        for record in lived.unlogged():
            transactions.send(name, record.keys, key=None, partition=0, headers=record.headers(), noted=True)
        if number % 5 == 4:
            transactions.abort()
            lived.aborted()
        else:
            transactions.commit({}, None)
            lived.committed(topics.produced(CHANGELOG, 0))
    replayed = restore(topics, tmp_path / "replayed", 0, PLAN, 10**6)
    assert not lived.doubtful
    assert replayed.slices() == lived.slices()
    assert slice_ms(WINDOW_MS) == 1 and len(lived.slices()) > 20
    assert replayed.complete_to is not None and (lived.complete_to or 0) <= replayed.complete_to


def test_apply_keeps_the_changelog_for_the_longest_window_in_force(platform: Callable[..., Platform]) -> None:
    settings = platform()
    admin.create_topics(settings)
    unread_ms = 7 * DAY_MS

    def apply(name: str, version: int, window: str | None) -> int:
        """-> retention after it, in ms"""
        spec = orjson.dumps({"dedupe": {"window": window}})
        changes = [
            Change(f"dataset/{name}@{version}", spec, Kind.ADDED),
            Change(f"dataset/{name}", orjson.dumps({"version": version}), Kind.ADDED),
        ]
        config_topic.bring_into_force(settings, config_topic.read(settings), changes)
        assert config_topic.read(settings).pointers()[name] == version
        return int(admin.describe(settings)[CHANGELOG].config["retention.ms"])

    assert int(admin.describe(settings)[CHANGELOG].config["retention.ms"]) == -1
    assert apply("a", 1, "4d") == 5 * DAY_MS + unread_ms
    assert apply("b", 1, "8d") == 10 * DAY_MS + unread_ms
    assert apply("c", 1, None) == -1
    assert apply("c", 2, "1d") == 10 * DAY_MS + unread_ms
