"""What `ingest explain` advises once a spec was mended: the source is listed anew, and only refused rows are new."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from ingestcore.ledger import State
from ingestcore.testing.fleet import LocalFleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def datasets(most: int) -> dict[str, Any]:
    return {"rows": {"primary_key": ["id"], "fields": {"id": "integer", "n": {"type": "integer", "max": most}}}}


def test_refused_rows_come_through_once_their_rule_is_mended(make_fleet: Callable[..., LocalFleet]) -> None:
    fleet = make_fleet()
    fleet.up({"sources": {fleet.name: fleet.source(dataset="rows")}, "datasets": datasets(10)})
    fleet.upload("a.csv", b"id,n\n1,1\n2,50\n3,3\n")
    (first,) = fleet.settled(1).objects
    assert (first.published, first.dead) == (2, 1)

    fleet.apply({"datasets": datasets(100)})
    with redis.Redis.from_url(fleet.environ()["REDIS_URL"]) as client:
        assert client.delete(f"checkpoint:default:{fleet.name}") == 1
    deadline = time.monotonic() + 120
    while "rows@2" not in (found := {o.origin.dataset: o for o in fleet.settled(1).objects}):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    again = found["rows@2"]
    assert (again.published, again.duplicates, again.dead) == (1, 2, 0)
    assert {o.state for o in found.values()} == {State.BALANCED}
    fleet.quiet()
    assert sorted(fleet.rows(fleet.connection(), "rows").project("id, n").fetchall()) == [(1, 1), (2, 50), (3, 3)]
    fleet.down()
