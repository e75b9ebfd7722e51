"""A fleet from its webhook gateway to Postgres and the lake, for tests: posts of known content, and what must become of
them."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from devstack import Stack
from devstack.cache import cache_folder
from devstack.ports import PortClaims
from ingestcore.datasets.http_source import Auth
from ingestcore.kafka.reading import read_all
from ingestcore.ledger import ObjectAudit, State
from ingestcore.messages.rows import KEY, read
from ingestcore.reasons import Reason
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.gateway_world import STANDARD
from ingestcore.testing.producers import Post, Producers, Told
from ingestcore.testing.warehouse import Memory, Warehouse, eventually

SINK: Final = "warehouse"
GATEWAY: Final = "webhook-gateway"
PAYMENTS: Final = "payments"
VERSIONS: Final = "versions"
DATASETS: Final[Mapping[str, Any]] = {
    # Without a primary key each event is a row of its own: an upsert would hide what comes twice.
    PAYMENTS: {"fields": {"event": {"from": "$event_id"}, "n": "integer", "amount": "decimal(10,2)"}},
    VERSIONS: {
        "primary_key": ["id"],
        "revision": "revision",
        "fields": {"id": {"from": "thing.id", "type": "integer"}, "revision": "integer"},
    },
}
_HOLDERS: Final = frozenset({GATEWAY, "event-parser", "normalizer", SINK})
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Outage:
    """What was seen while Postgres was away. memory: of all that hold events; seconds: from its end to its start."""

    told: Told
    opened: bool
    memory: Memory
    seconds: float


class EventsWorld:
    """One source and one table per dataset of DATASETS.

    fleet     not started yet; two gateways share its port where there are `replicas` of it
    postgres  database of the sink
    place     further settings of the sink
    """

    def __init__(
        self, fleet: LocalFleet, postgres: Stack, *, replicas: Mapping[str, int], place: Mapping[str, Any]
    ) -> None:
        self.fleet, self.replicas = fleet, replicas
        schema = "house_" + fleet.name.replace("-", "_")
        self.warehouse = Warehouse(fleet, postgres, SINK, schema)
        self._auth = Auth.model_validate(STANDARD)
        self.killed: Counter[str] = Counter()
        options = [option for name, n in replicas.items() for option in ("--replicas", f"{name}={n}")]
        with PortClaims(cache_folder()) as claims:
            self.port = claims.choose((GATEWAY,), {})[GATEWAY]
            fleet.set("INGEST_WEBHOOK_GATEWAY_PORT", str(self.port))
            fleet.set("INGEST_WEBHOOK_GATEWAY_SHARE_PORT", str(replicas.get(GATEWAY, 1) > 1).lower())
            fleet.up(
                {
                    "sources": {self.source(name): {"http": {"auth": STANDARD}, "dataset": name} for name in DATASETS},
                    "datasets": dict(DATASETS),
                    "sinks": {SINK: {"postgres": {"schema": schema, **place}}},
                },
                *options,
            )

    def source(self, dataset: str) -> str:
        return f"{self.fleet.name}-{dataset}"

    # -- load
    def payment(self, number: int) -> Post:
        """-> the event of a number: always the same."""
        return Post(self.source(PAYMENTS), self._auth, f"evt-{number}", json.dumps(_payment(number)).encode())

    def payments(self, first: int, count: int) -> Post:
        """-> the events of these numbers as a batch."""
        body = json.dumps([_payment(number) for number in range(first, first + count)]).encode()
        return Post(f"{self.source(PAYMENTS)}/batch", self._auth, f"batch-{first}", body, count)

    def version(self, id: int, revision: int) -> Post:
        body = json.dumps({"thing": {"id": id}, "revision": revision}).encode()
        return Post(self.source(VERSIONS), self._auth, f"ver-{id}-{revision}", body)

    def posting(self, posts: Sequence[Post], clients: int, seed: int = 0) -> Producers:
        return Producers(self.port, posts, clients=clients, seed=seed)

    # -- harm
    def label(self, instance: str, draw: random.Random) -> str:
        """-> one of its replicas."""
        return f"{instance}-{draw.randrange(self.replicas.get(instance, 1))}"

    def kill(self, label: str) -> int:
        """kill -9. -> its process id."""
        self.killed[label] += 1
        return self.fleet.kill(label)

    def outage(self, posts: Sequence[Post], seconds: float, clients: int = 10) -> Outage:
        """Postgres is killed and comes back after this long, or once the circuit is open, while events are posted."""
        memory = Memory(self.fleet, [label for label in self.fleet.processes() if label.rpartition("-")[0] in _HOLDERS])
        opened = False

        def look() -> bool:
            nonlocal opened
            opened = opened or self.warehouse.metric("ingest_circuit_open") == 1
            memory.look()
            return opened

        self.warehouse.postgres.kill("postgres")
        begun = time.monotonic()
        with self.posting(posts, clients=clients) as producers:
            producers.let_go(len(posts), seconds)
            while time.monotonic() - begun < seconds:
                time.sleep(_LOOK_SECONDS)
                look()
            told = producers.finish()
            with contextlib.suppress(AssertionError):
                eventually(look)
            self.warehouse.postgres.restart("postgres")
        return Outage(told, opened, memory, time.monotonic() - begun)

    def check_deaths(self) -> None:
        """No process ended but by our kills. Raises AssertionError."""
        rows = self.fleet.processes()
        assert {label: row.restarts for label, row in rows.items() if row.restarts} == dict(self.killed), rows

    # -- what must hold
    def check_payments(self, posts: Sequence[Post], told: Told) -> list[ObjectAudit]:
        """Each event with a 2xx is in Postgres and in the lake, none is there twice, none is there that nobody posted,
        and the ledger says the same. -> the ledger's days. Raises AssertionError."""
        assert not told.final, told.final[:3]
        numbers = {event: n for post in posts for event, n in zip(post.events, _numbers(post), strict=True)}
        days = self.balanced(PAYMENTS)
        rows = self.warehouse.sql(f"SELECT event, n FROM {PAYMENTS}")
        in_lake = self.fleet.rows(self.fleet.connection(), PAYMENTS).project("event, n").fetchall()
        for found in (rows, in_lake):
            doubled = [event for event, times in Counter(event for event, _ in found).items() if times > 1]
            assert not doubled, f"{len(doubled)} events twice: {doubled[:3]}"
            missing = told.accepted.keys() - {event for event, _ in found}
            assert not missing, f"{len(missing)} events had a 2xx and are nowhere: {sorted(missing)[:3]}"
            foreign = [row for row in found if numbers.get(row[0]) != row[1]]
            assert not foreign, foreign[:3]
        assert sum(day.published for day in days) == len(rows) == len(in_lake)
        assert sum(day.dead for day in days) == 0
        return days

    def balanced(self, dataset: str) -> list[ObjectAudit]:
        """Everything is read to its end, and every day of every source is accounted for in all sinks. -> the days of a
        dataset's source. Raises AssertionError."""
        self.fleet.quiet()
        found = self.fleet.settled(1).objects
        assert {day.state for day in found} == {State.BALANCED}, found
        events = sum(1 for _ in read_all(self.fleet.platform(), "events"))
        assert sum(day.read for day in found) == events, "the ledger speaks of each event in Kafka"
        assert not any(day.dead for day in found), found
        for day in found:
            for name in ("lake", SINK):
                tally = day.sinks[name]
                assert tally.delivered + tally.stale == day.published, day
        return [day for day in found if day.origin.source == self.source(dataset)]

    def late(self) -> set[str]:
        """-> `_key` of the published rows of VERSIONS that come after a higher revision of their entity."""
        highest: dict[int, int] = {}
        found = set()
        for input in read_all(self.fleet.platform(), "normalized"):
            if not input.headers["dataset"].startswith(f"{VERSIONS}@"):
                continue
            for row in read(input.value).select(["id", "revision", KEY]).to_pylist():
                if row["revision"] < highest.get(row["id"], 0):
                    found.add(row[KEY].hex())
                highest[row["id"]] = max(row["revision"], highest.get(row["id"], 0))
        return found

    def check_letters(self) -> None:
        """The sink's letters are those of rows that came late, one each. Raises AssertionError."""
        connection = self.fleet.connection()
        found = self.fleet.letters(connection, ("reason", "audience", "facts"))
        assert {(reason, audience) for reason, audience, _ in found} == {(Reason.OLDER_REVISION.value, SINK)}
        events, late = Counter(json.loads(facts)["event"] for _, _, facts in found), Counter(self.late())
        assert events <= late, f"letters that must not be: {events - late}"
        assert events == late, f"letters that are missing: {late - events}"


def _payment(number: int) -> dict[str, Any]:
    return {"n": number, "amount": f"{number % 90_000}.25"}


def _numbers(post: Post) -> list[int]:
    """-> of a post's events, in order."""
    told = json.loads(post.body)
    return [one["n"] for one in (told if post.items else [told])]
