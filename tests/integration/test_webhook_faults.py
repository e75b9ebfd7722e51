"""The gateway while others act at once, and while it, Redis or Kafka is killed: what was answered 2xx is in Kafka."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

import devstack
from ingestcore.testing.gateway_world import STANDARD, GatewayWorld, Reply, own_platform
from ingestcore.testing.own_servers import own_servers

pytestmark = pytest.mark.integration

SOURCES = {"shop": {"http": {"auth": STANDARD}}, "open": {"http": {"auth": {"scheme": "open"}}}}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[devstack.Stack]:
    with own_servers(), devstack.start(tmp_path_factory.mktemp("stack"), servers=["kafka", "redis"]) as stack:
        yield stack


@pytest.fixture
def world(stack: devstack.Stack, tmp_path: Path) -> Iterator[GatewayWorld]:
    found = stack.endpoints
    redis.Redis.from_url(found.redis).flushall()  # sources are unique in a fleet, not in these tests
    settings = {
        "REDIS_URL": found.redis,
        "INGEST_WEBHOOK_GATEWAY_ACK_SECONDS": "3",
        # A busy machine is not a Redis that is away, without which two of a thousand may be told they are the first.
        "INGEST_WEBHOOK_GATEWAY_REDIS_SECONDS": "30",
    }
    platform = own_platform(tmp_path, kafka_bootstrap=found.kafka)
    world = GatewayWorld(platform, tmp_path / "one", SOURCES, **settings)
    world.start()
    yield world
    world.stop()


def distinct(world: GatewayWorld, number: int) -> tuple[str, bytes, dict[str, str]]:
    body = json.dumps({"n": number}).encode()
    return "shop", body, world.signed("shop", body, f"evt-{number}")


def test_one_event_posted_a_thousand_times_at_once_to_two_replicas(world: GatewayWorld, tmp_path: Path) -> None:
    other = world.beside(tmp_path / "two")
    other.start()
    try:
        post = distinct(world, 1)

        async def both() -> list[tuple[int, bytes]]:
            halves = await asyncio.gather(*(one.post_all([post] * 500, 500) for one in (world, other)))
            return [reply for half in halves for reply in half]

        replies = asyncio.run(both())
    finally:
        other.stop()
    assert Counter(status for status, _ in replies) == {202: 1000}
    told = Counter(json.loads(body)["duplicate"] for _, body in replies)
    assert told == {False: 1, True: 999}
    assert [event.id for event in world.events()] == ["evt-1"]


def test_what_was_acknowledged_before_a_kill_is_in_kafka(world: GatewayWorld) -> None:
    posts = [distinct(world, number) for number in range(3000)]

    def answered(count: int) -> None:
        if count == len(posts) // 3:
            world.service.kill()

    first = asyncio.run(world.post_all(posts, 50, answered))
    kept = {f"evt-{number}" for number, (status, _) in enumerate(first) if status == 202}
    assert 0 < len(kept) < len(posts)
    assert kept <= {event.id for event in world.events()}
    world.start()
    # A claim that the kill left behind runs out after ack_seconds and a margin; until then: 409, come again.
    open_, deadline = list(range(len(posts))), time.monotonic() + 60
    while open_ and time.monotonic() < deadline:
        replies = asyncio.run(world.post_all([posts[number] for number in open_], 50))
        assert {status for status, _ in replies} <= {202, 409}
        open_ = [number for number, (status, _) in zip(open_, replies, strict=True) if status != 202]
    assert not open_
    events = world.events()
    assert {event.id for event in events} == {f"evt-{number}" for number in range(len(posts))}
    assert len({event.identity for event in events}) == len(posts), "what came twice is one event to the normalizer"


def _kill_while_it_claims(world: GatewayWorld, stack: devstack.Stack, send: Future[Reply]) -> None:
    """Redis has been asked, and has not answered."""
    time.sleep(0.5)
    world.service.kill()
    stack.kill("redis", signal.SIGCONT)


def _kill_while_it_waits_for_kafka(world: GatewayWorld, stack: devstack.Stack, send: Future[Reply]) -> None:
    eventually_claimed(stack)
    world.service.kill()
    stack.kill("kafka", signal.SIGCONT)


def _kill_before_it_has_remembered(world: GatewayWorld, stack: devstack.Stack, send: Future[Reply]) -> None:
    """Kafka has it, the producer has its answer, Redis does not know."""
    eventually_claimed(stack)
    stack.kill("redis")
    stack.kill("kafka", signal.SIGCONT)
    reply = send.result(30)
    assert (reply.status, reply.told["duplicate"]) == (202, False)
    world.service.kill()
    stack.restart("redis")
    eventually_claimed(stack)


def eventually_claimed(stack: devstack.Stack) -> None:
    """Wait until the event is claimed and not done."""
    client, deadline = redis.Redis.from_url(stack.endpoints.redis), time.monotonic() + 20
    while not (client.get("ingest_idempotency:shop:id:evt-1") or b"").startswith(b"P "):  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("frozen", "strike", "acknowledged"),
    [
        pytest.param("redis", _kill_while_it_claims, False, id="claim"),
        pytest.param("kafka", _kill_while_it_waits_for_kafka, False, id="ack"),
        pytest.param("kafka", _kill_before_it_has_remembered, True, id="done"),
    ],
)
def test_a_kill_at_any_step_neither_swallows_an_event_nor_makes_two_of_it(
    world: GatewayWorld,
    stack: devstack.Stack,
    frozen: str,
    strike: Callable[[GatewayWorld, devstack.Stack, Future[Reply]], None],
    acknowledged: bool,
) -> None:
    world.stop()
    world.service.environ["INGEST_WEBHOOK_GATEWAY_REDIS_SECONDS"] = "20"
    world.service.environ["INGEST_WEBHOOK_GATEWAY_ACK_SECONDS"] = "10"
    world.start()
    assert world.send("shop", b'{"n": 0}', "evt-0").status == 202  # connected to both
    stack.kill(frozen, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        strike(world, stack, pool.submit(world.send, "shop", b'{"n": 1}', "evt-1"))
    stored = [event.id for event in world.events()].count("evt-1")
    assert stored >= acknowledged
    world.service.environ["INGEST_WEBHOOK_GATEWAY_WAIT_SECONDS"] = "0.5"
    world.start()
    statuses, deadline = [], time.monotonic() + 60
    while not statuses or statuses[-1] != 202:
        assert time.monotonic() < deadline, statuses
        reply = world.send("shop", b'{"n": 1}', "evt-1")
        statuses.append(reply.status)
    assert set(statuses) <= {202, 409} and not reply.told["duplicate"], "a claim that nobody finished runs out"
    again = world.send("shop", b'{"n": 1}', "evt-1")
    assert (again.status, again.told["duplicate"]) == (202, True)
    events = [event for event in world.events() if event.id == "evt-1"]
    assert 1 <= len(events) <= 2 and len({event.identity for event in events}) == 1


def test_events_are_taken_without_redis(world: GatewayWorld, stack: devstack.Stack) -> None:
    assert world.send("shop", b'{"n": 1}', "before").status == 202
    stack.kill("redis")
    try:
        replies = asyncio.run(world.post_all([distinct(world, number) for number in range(200)], 20))
        assert {status for status, _ in replies} == {202}
        again = world.send("shop", b'{"n": 1}', "before")
        assert again.status == 202
        assert "Redis" in world.service.health()["adapters"]["shop"]["without_redis"]
    finally:
        stack.restart("redis")
    identities = Counter(event.identity for event in world.events())
    assert len(identities) == 201
    deadline = time.monotonic() + 10
    while not (reply := world.send("shop", b'{"n": 2}', "after")).told["duplicate"]:
        assert reply.status == 202 and time.monotonic() < deadline


def test_without_kafka_nothing_is_acknowledged_and_then_all_is(world: GatewayWorld, stack: devstack.Stack) -> None:
    assert world.send("shop", b'{"n": 0}', "before").status == 202
    stack.kill("kafka", signal.SIGSTOP)
    try:
        began = time.monotonic()
        posts = [distinct(world, number) for number in range(100)]
        replies = asyncio.run(world.post_all([*posts, *posts], 200))
        assert {status for status, _ in replies} == {503}
        assert time.monotonic() - began < 10
        reply = world.send("shop", b'{"n": 0}', "another")
        assert (reply.status, reply.told["type"]) == (503, "urn:ingest:problem:store-away")
        assert int(reply.headers["Retry-After"]) > 0
        world.service.wait_until("waiting")
    finally:
        stack.kill("kafka", signal.SIGCONT)
    world.service.wait_until("ready")
    assert {status for status, _ in asyncio.run(world.post_all(posts, 50))} == {202}
    assert len({event.identity for event in world.events()}) >= 101
    assert {f"evt-{number}" for number in range(100)} <= {event.id for event in world.events()}


def test_a_drain_finishes_what_is_in_flight_and_takes_nothing_new(world: GatewayWorld) -> None:
    posts = [distinct(world, number) for number in range(2000)]

    async def stopped() -> list[tuple[int, bytes]]:
        begun = asyncio.Event()
        sent = asyncio.create_task(world.post_all(posts, 50, lambda count: begun.set()))
        await begun.wait()
        await asyncio.to_thread(world.stop)
        return await sent

    replies = asyncio.run(stopped())
    statuses = Counter(status for status, _ in replies)
    assert set(statuses) <= {202, 503, 0} and statuses[202]
    kept = {f"evt-{number}" for number, (status, _) in enumerate(replies) if status == 202}
    assert kept == {event.id for event in world.events()}
    assert "Traceback" not in world.service.told()


def test_a_taken_port_ends_it_with_a_message(world: GatewayWorld, tmp_path: Path) -> None:
    other = world.beside(tmp_path / "two")
    other.service.environ["INGEST_WEBHOOK_GATEWAY_PORT"] = str(world.port())
    other.service.start()
    other.service.stopped_for_an_operator("can't listen", str(world.port()), "INGEST_WEBHOOK_GATEWAY_PORT")
