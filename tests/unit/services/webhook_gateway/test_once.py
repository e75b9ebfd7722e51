"""Claim, ack, done for events that come together: what is asked, what is told to whom. Redis and Kafka are played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from ingestcore.datasets.http_source import HttpSource
from ingestcore.kafka.deliveries import Failure, NotDelivered, Record
from ingestcore.observe.metrics import Metrics
from ingestcore.stores.idempotency import Claim, Held
from ingestcore.stores.quick_redis import RedisAway
from services.webhook_gateway.arrival import Arrival
from services.webhook_gateway.once import Once, Outcome, Stored
from services.webhook_gateway.problems import Kind, Problem
from services.webhook_gateway.settings import GatewaySettings
from services.webhook_gateway.sources import Source
from services.webhook_gateway.stage import Identity


class PlayedRedis:
    """Stands in for `Claims`: what others hold is given; what is asked is written down."""

    def __init__(self) -> None:
        self.held: dict[str, list[Held]] = {}
        """By key: what is found with each look; then nothing."""
        self.away = False
        self.asked: list[int] = []
        self.done_: list[str] = []
        self.released: list[str] = []

    async def claim(self, claims: Sequence[Claim], owner: str) -> Sequence[Held | None]:
        self.asked.append(len(claims))
        await asyncio.sleep(0)
        if self.away:
            raise RedisAway("away")
        return [self.held[c.keys[0]].pop(0) if self.held.get(c.keys[0]) else None for c in claims]

    def done(self, claims: Sequence[Claim], event_ids: Sequence[str], seconds: float) -> asyncio.Future[Any]:
        self.done_ += event_ids
        return self._ended()

    def release(self, claims: Sequence[Claim], owner: str) -> asyncio.Future[Any]:
        self.released += [claim.keys[0] for claim in claims]
        return self._ended()

    async def finish(self) -> None: ...

    def _ended(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class PlayedKafka:
    """Stands in for `Deliveries`: bodies in `refused` are not confirmed."""

    def __init__(self) -> None:
        self.refused: set[bytes] = set()
        self.sent: list[list[bytes]] = []

    async def _after_a_while(self, records: Sequence[Record]) -> Sequence[Failure]:
        await asyncio.sleep(0.01)
        return [NotDelivered("no answer") if record.value in self.refused else None for record in records]

    def send(self, records: Sequence[Record]) -> asyncio.Future[Sequence[Failure]]:
        self.sent.append([record.value for record in records])
        return asyncio.ensure_future(self._after_a_while(records))


class World:
    def __init__(self, **settings: Any) -> None:
        self.redis, self.kafka = PlayedRedis(), PlayedKafka()
        self.once = Once(GatewaySettings(**settings), Metrics(), self.kafka, self.redis)  # type: ignore[arg-type]
        http = HttpSource.model_validate({"auth": {"scheme": "open"}})
        self.source = Source("shop", "t", http, "shop@1", {}, lambda headers, body, now: None, None)

    async def post(self, *arrivals: Arrival) -> Sequence[Outcome]:
        return await self.once.store(self.source, arrivals)


def event(name: str, body: bytes = b"{}") -> Arrival:
    identity = Identity((f"key:{name}",), body.decode(), name, name)
    return Arrival(identity, Record(name.encode() + body, name.encode(), {}))


def kinds(told: Sequence[Outcome]) -> list[Stored | Kind]:
    return [one.kind if isinstance(one, Problem) else one for one in told]


def run(scene: Callable[[World], Coroutine[Any, Any, None]], **settings: Any) -> World:
    async def within() -> World:
        world = World(**settings)
        async with asyncio.timeout(10):
            await scene(world)
        return world

    return asyncio.run(within())


def test_a_batch_is_one_question_to_redis_and_one_wait_for_kafka() -> None:
    async def scene(world: World) -> None:
        told = await world.post(*(event(f"e{n}") for n in range(100)))
        assert told == [Stored(f"e{n}", False) for n in range(100)]

    world = run(scene)
    assert world.redis.asked == [100]
    assert [len(sent) for sent in world.kafka.sent] == [100]
    assert world.redis.done_ == [f"e{n}" for n in range(100)]


def test_an_event_twice_in_a_batch_is_stored_once() -> None:
    async def scene(world: World) -> None:
        told = await world.post(event("a"), event("a"), event("a", b"[]"))
        assert kinds(told) == [Stored("a", False), Stored("a", True), Kind.KEY_REUSED]

    assert run(scene).kafka.sent == [[b"a{}"]]


def test_who_posts_the_same_meanwhile_has_the_same_answer() -> None:
    async def scene(world: World) -> None:
        first, second = await asyncio.gather(world.post(event("a"), event("b")), world.post(event("b"), event("c")))
        assert kinds(first) == [Stored("a", False), Stored("b", False)]
        assert kinds(second) == [Stored("b", True), Stored("c", False)]

    assert sorted(body for sent in run(scene).kafka.sent for body in sent) == [b"a{}", b"b{}", b"c{}"]


def test_what_kafka_does_not_confirm_is_released_and_may_come_again() -> None:
    async def scene(world: World) -> None:
        world.kafka.refused = {b"b{}"}
        same = asyncio.create_task(world.post(event("b")))
        told = await world.post(event("a"), event("b"), event("c"))
        assert kinds(told) == [Stored("a", False), Kind.STORE_AWAY, Stored("c", False)]
        assert kinds(await same) == [Kind.STORE_AWAY]
        world.kafka.refused = set()
        assert kinds(await world.post(event("b"))) == [Stored("b", False)]

    world = run(scene)
    assert world.redis.released == ["key:b"]
    assert world.redis.done_ == ["a", "c", "b"]


def test_what_another_replica_has_stored_or_is_storing() -> None:
    async def scene(world: World) -> None:
        world.redis.held = {
            "key:done": [Held("{}", "its id")],
            "key:other": [Held("[]", "x")],
            "key:soon": [Held("{}", ""), Held("{}", ""), Held("{}", "soon")],
            "key:lost": [Held("{}", "")],
        }
        told = await world.post(*map(event, ("done", "other", "soon", "lost", "new")))
        assert kinds(told) == [
            Stored("its id", True),
            Kind.KEY_REUSED,
            Stored("soon", True),
            Stored("lost", False),
            Stored("new", False),
        ]

    assert run(scene).kafka.sent == [[b"new{}"], [b"lost{}"]]


def test_an_event_that_another_replica_does_not_finish_is_in_flight() -> None:
    async def scene(world: World) -> None:
        world.redis.held = {"key:a": [Held("{}", "")] * 100}
        assert kinds(await world.post(event("a"), event("b"))) == [Kind.IN_FLIGHT, Stored("b", False)]

    run(scene, wait_seconds=0.1)


@pytest.mark.parametrize("count", [1, 50])
def test_events_are_taken_without_redis(count: int) -> None:
    async def scene(world: World) -> None:
        world.redis.away = True
        told = await world.post(*(event(f"e{n}") for n in range(count)))
        assert told == [Stored(f"e{n}", False) for n in range(count)]
        await asyncio.sleep(0.01)
        assert kinds(await world.post(event("e0"))) == [Stored("e0", False)], "the normalizer drops it"

    run(scene)
