"""When an event that is followed has arrived."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestcore.cli.webhook.follow import Follower
from ingestcore.datasets.registry import Registry
from ingestcore.settings import Platform
from ingestcore.trace.story import InTable, Story, Where


@pytest.mark.parametrize(
    ("published", "tables", "ended"),
    [(True, ["a", "b"], True), (True, ["a"], False), (True, [], False), (False, ["a", "b"], False)],
    ids=["in both", "in one of two", "published", "in both before its topic was read again"],
)
def test_it_is_in_the_topic_and_in_every_postgres(published: bool, tables: list[str], ended: bool) -> None:
    specs = Registry()
    for sink in ("a", "b"):
        specs.feed(f"sink/{sink}", b'{"postgres": {}}')
    specs.feed("sink/lake", b'{"parquet": {"uri": "s3://out/"}}')
    story = Story("webhook://shop/2026-01-01", 7, dataset="payments@1")
    story.normalized += [Where("normalized", 0, 1, 0)] if published else []
    story.tables += [InTable(sink, "public.payments", {"id": 1}) for sink in tables]
    follower = Follower(Platform(), specs, Path("."), "shop", 1.0, quiet=True)
    assert follower._ended(story) is ended
