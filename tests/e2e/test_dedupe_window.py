"""`dedupe.window` in a running fleet: repeats within it are dropped, later ones are published again, and the keys that
lie behind it are forgotten, also by a normalizer that is killed and restores its state."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingestcore.kafka.reading import read_all
from ingestcore.ledger import State
from ingestcore.testing.fleet import LocalFleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

WINDOW_SECONDS = 12
FORGOTTEN_SECONDS = WINDOW_SECONDS * 9 / 8 + 1
"""A key lives for the window and an eighth of it longer at most; and a second for clocks."""
OLD, NEW = range(500), range(1000, 1200)


def csv(numbers: Iterable[int]) -> bytes:
    return b"id,text\n" + b"".join(b"%d,text %d\n" % (n, n) for n in numbers)


def keys_known(fleet: LocalFleet) -> float:
    """-> keys the normalizer remembers, as its metrics tell."""
    with urllib.request.urlopen(f"{fleet.url()}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return sum(sample.value for f in families for sample in f.samples if sample.name == "ingest_dedupe_keys")


def remembers(fleet: LocalFleet, keys: int) -> None:
    deadline = time.monotonic() + 60
    while (known := keys_known(fleet)) != keys:
        assert time.monotonic() < deadline, f"{known} keys are known, not {keys}"
        time.sleep(0.1)


def in_the_lake(fleet: LocalFleet) -> Counter[int]:
    """-> how often each id was published."""
    with fleet.connection() as connection:
        return Counter(n for (n,) in fleet.rows(connection, "rows").project("id").fetchall())


def test_repeats_are_dropped_within_the_window_and_published_again_after_it(
    make_fleet: Callable[..., LocalFleet],
) -> None:
    fleet = make_fleet()
    spec = {
        "fields": {"id": "integer", "text": "string"},
        "dedupe": {"keys": ["id"], "window": f"{WINDOW_SECONDS}s"},
    }
    for name in ("1-first.csv", "1-same.csv"):
        fleet.upload(name, csv(OLD))
    fleet.up({"sources": {fleet.name: fleet.source(dataset="rows")}, "datasets": {"rows": spec}})
    found = fleet.settled(2).objects
    came_ms = [message.timestamp_ms for message in read_all(fleet.platform(), "typed")]
    assert max(came_ms) - min(came_ms) < WINDOW_SECONDS * 1000, "this machine was too slow to tell"
    assert [o.state for o in found] == [State.BALANCED] * 2
    assert sum(o.published for o in found) == sum(o.duplicates for o in found) == len(OLD)
    remembers(fleet, len(OLD))

    time.sleep(FORGOTTEN_SECONDS)
    fleet.upload("2-others.csv", csv(NEW))
    fleet.settled(3)
    remembers(fleet, len(NEW))  # the clock stands while no rows come
    killed = fleet.kill("normalizer-0")
    fleet.await_restart("normalizer-0", killed)
    remembers(fleet, len(NEW))

    fleet.upload("3-again.csv", csv(OLD))
    again = {o.origin.uri.rpartition("/")[2]: o for o in fleet.settled(4).objects}["3-again.csv"]
    assert (again.published, again.duplicates, again.state) == (len(OLD), 0, State.BALANCED)
    fleet.quiet()
    assert in_the_lake(fleet) == Counter(OLD) + Counter(OLD) + Counter(NEW)
    fleet.down()
