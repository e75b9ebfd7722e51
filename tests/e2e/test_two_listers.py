"""Two lister processes of one source: the one that acts is frozen past its lease, succeeded, and woken."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from ingestcore.kafka.reading import read_all
from ingestcore.ledger import State
from ingestcore.messages.objects import ObjectRef
from ingestcore.testing.fleet import LocalFleet

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(600)]

LEASE_SECONDS = 2
STEP_OBJECTS = 5
PROGRESS_OBJECTS = 100
"""The checkpoint moves at the latest after so many: what a successor may hand on again."""


class Listed:
    """What one source's listers do, seen from outside: in Redis, and in the topic they write."""

    def __init__(self, fleet: LocalFleet) -> None:
        self._fleet = fleet
        self._redis = redis.Redis.from_url(fleet.environ()["REDIS_URL"], decode_responses=True)

    def holder(self) -> int:
        """-> process id of the lister that acts; 0: nobody."""
        value = str(self._redis.get(f"lease:default:{self._fleet.name}") or "")
        return int(value.split(":")[1]) if value else 0

    def handed_on(self) -> Counter[str]:
        """-> how often each key was committed to the topic."""
        return Counter(ObjectRef.decode(found.value).key for found in read_all(self._fleet.platform(), "objects"))


def until(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def upload(fleet: LocalFleet, names: list[str]) -> set[str]:
    """-> keys, each of an object with two rows of its own."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: fleet.upload(name, f"id,n\n{name},1\n{name},2\n".encode()), names))
    return {f"raw/{name}" for name in names}


def test_a_lister_frozen_past_its_lease_and_woken_makes_no_object_count_twice(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    fleet = make_fleet(
        INGEST_S3_LISTER_LEASE_SECONDS=str(LEASE_SECONDS),
        INGEST_S3_LISTER_STEP_OBJECTS=str(STEP_OBJECTS),
        INGEST_S3_LISTER_PROGRESS_OBJECTS=str(PROGRESS_OBJECTS),
    )
    keys = upload(fleet, [f"{n:04}.csv" for n in range(800)])
    fleet.up({"sources": {fleet.name: fleet.source(dataset="rows")}}, "--replicas", "s3-lister=2")
    listed = Listed(fleet)
    until(lambda: len(listed.handed_on()) >= 3 * STEP_OBJECTS, "the first objects are handed on")
    frozen = listed.holder()
    os.kill(frozen, signal.SIGSTOP)
    try:
        early = set(listed.handed_on())
        keys |= upload(fleet, [f"{n:04}-late.csv" for n in range(0, 800, 20)])
        until(lambda: listed.holder() not in (0, frozen), "another lister takes the source over")
        until(lambda: set(listed.handed_on()) == keys, "the successor hands on the rest")
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert early != keys, "it was frozen in the middle"
    time.sleep(2 * LEASE_SECONDS)
    woken = listed.handed_on()
    keys |= upload(fleet, [f"{n:04}-later.csv" for n in range(0, 800, 20)])

    found = fleet.settled(len(keys))
    assert Counter(o.origin.uri.partition("/raw/")[2] for o in found.objects) == Counter(
        key.removeprefix("raw/") for key in keys
    )
    assert Counter(o.state for o in found.objects) == {State.BALANCED: len(keys)}
    assert sum(o.published for o in found.objects) == 2 * len(keys)
    fleet.quiet()
    rows = fleet.rows(fleet.connection(), "rows").aggregate("count(*), count(DISTINCT (id, n))").fetchall()
    assert rows == [(2 * len(keys), 2 * len(keys))]

    handed_on = listed.handed_on()
    assert set(handed_on) == keys
    # Only what was handed on before the freeze and not yet in the checkpoint may have been handed on again.
    again = {key for key, times in handed_on.items() if times > 1}
    assert again <= early and len(again) <= PROGRESS_OBJECTS + STEP_OBJECTS
    assert {key: handed_on[key] for key in woken} == woken, "the woken one handed nothing on"
    fleet.down()
