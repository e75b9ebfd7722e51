"""The lister on a real Redis and a real S3 server, which are taken away from it."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import redis

import devstack
from ingestcore.datasets.registry import Registry
from ingestcore.observe.metrics import Metrics
from ingestcore.runtime.service import Context
from ingestcore.settings import Platform
from ingestcore.stage import Retriable
from ingestcore.stores.leases import Grant, Leases, NotText, Outcome, RedisLeases
from ingestcore.stores.objects import ObjectStore, Refused
from ingestcore.stores.s3 import open_store
from ingestcore.testing.lister_world import Clock, MemoryLeases, Replica, Topic
from services.s3_lister.settings import ListerSettings
from services.s3_lister.source import Lister

pytestmark = pytest.mark.integration

OBJECTS = 5_000
ODD_KEYS = (
    "in/a/x.csv",
    "in/a-b.csv",
    "in/a b+c%2F.csv",
    "in/ünï/\U0001f600.csv",
    "in/quote'\"<&>.csv",
    "in/empty.csv",
)
_number = itertools.count()


class Gate:
    """A TCP proxy that can be shut: then connections break and new ones are refused."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._target = (place.hostname, place.port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[socket.socket] = []
        self.open = True
        self.bytes = 0
        self.shut_after_bytes: int | None = None
        self.url = f"{place.scheme}://127.0.0.1:{self._server.getsockname()[1]}{place.path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        self.open, self.shut_after_bytes = False, None
        for side in self._pairs:
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        self._pairs = []

    def _accept(self) -> None:
        while True:
            client, _ = self._server.accept()
            if not self.open:
                client.close()
                continue
            server = socket.create_connection(self._target)
            self._pairs += [client, server]
            threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                target.sendall(data)
                self.bytes += len(data)
                if self.shut_after_bytes is not None and self.bytes > self.shut_after_bytes:
                    self.shut()


@pytest.fixture(scope="module")
def s3(endpoints: dict[str, str]) -> ObjectStore:
    return open_store(endpoint_url=endpoints["S3_ENDPOINT_URL"])


@pytest.fixture(scope="module")
def make_bucket(endpoints: dict[str, str]) -> Callable[[str], str]:
    import boto3

    client = boto3.client("s3", endpoint_url=endpoints["S3_ENDPOINT_URL"])

    def make(kind: str) -> str:
        name = f"lister-{os.getpid()}-{kind}-{next(_number)}"
        client.create_bucket(Bucket=name)
        return name

    return make


@pytest.fixture(scope="module")
def lake(s3: ObjectStore, make_bucket: Callable[[str], str]) -> tuple[str, list[str]]:
    """-> a bucket with 5,000 objects in 40 folders, and their keys."""
    bucket = make_bucket("lake")
    keys = [*ODD_KEYS, *(f"in/{n % 40:02}/{n:05}.csv" for n in range(OBJECTS - len(ODD_KEYS)))]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: s3.put(bucket, key, b"" if "empty" in key else b"a,b\n1,2\n"), keys))
    return bucket, keys


@pytest.fixture(scope="module")
def tenth(lake: tuple[str, list[str]]) -> tuple[str, str, list[str]]:
    """-> bucket, prefix and keys of a part of it that is listed in a moment."""
    bucket, keys = lake
    return bucket, "in/0", [key for key in keys if key.startswith("in/0")]


@pytest.fixture
def own_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[devstack.Stack]:
    """A Redis of the test's own, to be killed."""
    with monkeypatch.context() as patch:
        patch.delenv("REDIS_URL", raising=False)
        stack = devstack.start(tmp_path / "redis", servers=("redis",))
    with stack:
        yield stack


class Bench:
    """Replicas of one source over real servers; Kafka is a list."""

    def __init__(self, folder: Path, environ: dict[str, str], bucket: str, work: str, prefix: str = "in/") -> None:
        self.name, self.topic, self.specs = f"s{next(_number)}", Topic(), Registry()
        self.s3_url, self._redis_url = environ["S3_ENDPOINT_URL"], environ["REDIS_URL"]
        self._folder, self._work = folder, work
        s3 = {"bucket": bucket, "prefix": prefix, "endpoint_url": self.s3_url}
        self.specs.feed(f"source/{self.name}", orjson.dumps({"s3": s3}))

    def replica(self, **settings: Any) -> Replica:
        state = self._folder / f"state-{next(_number)}"
        state.mkdir(parents=True)
        platform = Platform(work_uri=f"s3://{self._work}/work", s3_endpoint_url=self.s3_url)
        small = {"lease_seconds": 2, "step_objects": 50, "part_entries": 200, "progress_objects": 100}
        lister_settings = ListerSettings(**small | settings)
        nothing: Any = SimpleNamespace()
        context = Context(
            platform,
            lister_settings,
            "s3-lister",
            self.specs,
            nothing,
            Metrics(),
            state,
            lambda spec: open_store(endpoint_url=self.s3_url),
        )
        return Replica(Lister(self.name, context, RedisLeases(self._redis_url)), self.topic)

    def until_quiet(self, replica: Replica, seconds: float = 60) -> None:
        """Run passes until one goes through, as the runtime does."""
        deadline, passes = time.monotonic() + seconds, replica.passes
        while time.monotonic() < deadline:
            replica.finish_pass()
            if replica.passes > passes and not replica.source.status()["waiting"]:
                return
            passes = replica.passes
            time.sleep(0.2)
        raise AssertionError(f"no pass went through: {replica.trouble or replica.source.status()}")


def exactly(topic: Topic, keys: list[str]) -> bool:
    return Counter(topic.found()) == Counter(keys)


def test_5000_objects_of_a_store_that_lists_by_folder_are_found_once(
    endpoints: dict[str, str], lake: tuple[str, list[str]], s3: ObjectStore, make_bucket: Any, tmp_path: Path
) -> None:
    bucket, keys = lake
    bench = Bench(tmp_path, endpoints, bucket, make_bucket("work"))
    lister = bench.replica(step_objects=1_000)
    for _ in range(2):
        bench.until_quiet(lister)
    assert exactly(bench.topic, keys)
    assert {ref.size for ref in bench.topic.objects if "empty" in ref.key} == {0}

    late = ["in/00/00000a.csv", "in/a-a.csv", "in/a/0.csv", "in/zz.csv"]
    for key in [*late, keys[100]]:
        s3.put(bucket, key, b"new")
    try:
        bench.until_quiet(lister)
        bench.until_quiet(lister)
        assert exactly(bench.topic, [*keys, *late, keys[100]])
        assert len(set(bench.topic.ids())) == len(keys) + 5
    finally:
        for key in late:
            s3.delete(bucket, key)

    client = redis.Redis.from_url(endpoints["REDIS_URL"], decode_responses=True)
    shown = orjson.loads(client.get(f"checkpoint:default:{bench.name}") or "")
    assert set(shown) == {"version", "scan", "start_after", "snapshot", "fence"}
    before = set(bench.topic.ids())
    client.delete(f"checkpoint:default:{bench.name}")
    bench.until_quiet(lister)
    assert set(bench.topic.ids()) == before
    client.set(f"checkpoint:default:{bench.name}", "not json")
    lister.finish_pass()
    assert "is no JSON" in lister.source.status()["waiting"]
    lister.source.close()
    assert client.get(f"lease:default:{bench.name}") is None


def test_a_redis_that_is_killed_in_the_middle_is_waited_for_and_nothing_doubled(
    endpoints: dict[str, str],
    own_redis: devstack.Stack,
    tenth: tuple[str, str, list[str]],
    make_bucket: Any,
    tmp_path: Path,
) -> None:
    bucket, prefix, keys = tenth
    environ = endpoints | {"REDIS_URL": own_redis.endpoints.redis}
    bench = Bench(tmp_path, environ, bucket, make_bucket("work"), prefix)
    lister = bench.replica()
    while len(bench.topic.objects) < 300:
        assert lister.move()
    own_redis.kill("redis")
    deadline = time.monotonic() + 30
    while "is away: waiting for it" not in lister.trouble:
        lister.move()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert own_redis.endpoints.redis.removeprefix("redis://").split("/")[0] in lister.trouble
    own_redis.restart("redis")
    bench.until_quiet(lister)
    bench.until_quiet(lister)
    assert exactly(bench.topic, keys)
    lister.source.close()


@pytest.mark.parametrize("handed_on", [0, 500])
def test_an_s3_that_goes_away_in_the_middle_is_waited_for_and_nothing_doubled(
    endpoints: dict[str, str], tenth: tuple[str, str, list[str]], make_bucket: Any, tmp_path: Path, handed_on: int
) -> None:
    bucket, prefix, keys = tenth
    gate = Gate(endpoints["S3_ENDPOINT_URL"])
    bench = Bench(tmp_path, endpoints | {"S3_ENDPOINT_URL": gate.url}, bucket, make_bucket("work"), prefix)
    lister = bench.replica()
    while len(bench.topic.objects) < handed_on:
        assert lister.move()
    gate.shut_after_bytes = gate.bytes + 20_000  # in the middle of a page
    lister.finish_pass()
    assert "waiting for it" in lister.trouble
    gate.open = True
    bench.until_quiet(lister)
    bench.until_quiet(lister)
    assert exactly(bench.topic, keys)
    lister.source.close()
    gate.shut()


def test_a_crash_in_the_middle_loses_nothing_and_repeats_little(
    endpoints: dict[str, str], tenth: tuple[str, str, list[str]], make_bucket: Any, tmp_path: Path
) -> None:
    bucket, prefix, keys = tenth
    bench = Bench(tmp_path, endpoints, bucket, make_bucket("work"), prefix)
    crashed = bench.replica()
    while len(bench.topic.objects) < 600:
        assert crashed.move()
    crashed.source._tenure._ended.set()
    del crashed
    successor = bench.replica()
    bench.until_quiet(successor)
    assert set(bench.topic.found()) == set(keys)
    assert len(bench.topic.objects) <= len(keys) + 150
    successor.source.close()


def test_two_replicas_never_both_act(
    endpoints: dict[str, str], tenth: tuple[str, str, list[str]], make_bucket: Any, tmp_path: Path
) -> None:
    bucket, prefix, keys = tenth
    bench = Bench(tmp_path, endpoints, bucket, make_bucket("work"), prefix)
    replicas = [bench.replica(step_objects=10), bench.replica(step_objects=10)]
    turns = threading.Lock()
    stop = threading.Event()

    def run(replica: Replica) -> None:
        while not stop.is_set():
            with turns:  # the stand-in for Kafka is not thread-safe
                going_on = replica.move()
            if not going_on:
                time.sleep(0.05)

    threads = [threading.Thread(target=run, args=(replica,)) for replica in replicas]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(bench.topic.objects) < len(keys) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert exactly(bench.topic, keys)
    assert len(set(bench.topic.terms)) == 1
    standing_by = [r for r in replicas if "listed by another replica" in r.source.status()["waiting"]]
    assert len(standing_by) == 1
    assert [r.source.status()["standing_by"] for r in replicas] == [r in standing_by for r in replicas]
    for replica in replicas:
        replica.source.close()


def test_start_says_what_is_missing(endpoints: dict[str, str], make_bucket: Any, tmp_path: Path) -> None:
    work = make_bucket("work")
    Bench(tmp_path, endpoints, work, work).replica().source.check()
    with pytest.raises(Refused, match="no such bucket"):
        Bench(tmp_path, endpoints, "no-such-bucket", work).replica().source.check()
    with pytest.raises(Refused, match="no such bucket"):
        Bench(tmp_path, endpoints, work, "no-such-bucket").replica().source.check()
    nobody = endpoints | {"REDIS_URL": "redis://:secret@127.0.0.1:1/0"}
    with pytest.raises(Retriable, match=r"Redis at 127\.0\.0\.1:1 is away") as away:
        Bench(tmp_path, nobody, work, work).replica().source.check()
    assert "secret" not in str(away.value)


class Clockwork:
    """A lease store and a way to let its time pass."""

    def __init__(self, leases: Leases, wait: Callable[[float], None], put: Callable[[str, Any], Any]) -> None:
        self.leases, self.wait, self.put = leases, wait, put


@pytest.fixture(params=["redis", "memory"])
def clockwork(request: pytest.FixtureRequest, endpoints: dict[str, str]) -> Clockwork:
    """The stand-in of the unit tests keeps the same rules as Redis."""
    if request.param == "memory":
        clock = Clock()
        leases = MemoryLeases(clock)
        return Clockwork(leases, clock.pass_seconds, leases.checkpoints.__setitem__)
    client = redis.Redis.from_url(endpoints["REDIS_URL"])
    return Clockwork(
        RedisLeases(endpoints["REDIS_URL"]), time.sleep, lambda name, value: client.set(f"checkpoint:{name}", value)
    )


@pytest.fixture
def name() -> str:
    return f"t{os.getpid()}:{next(_number)}"


def test_a_lease_has_one_holder_until_it_runs_out(clockwork: Clockwork, name: str) -> None:
    leases = clockwork.leases
    first = leases.acquire(name, "one", 0.2, 0)
    assert (first.fence, leases.acquire(name, "two", 0.2, 0)) == (1, first)
    assert leases.acquire(name, "one", 0.2, 0) == first
    clockwork.wait(0.15)
    assert leases.renew(first, 0.2)
    clockwork.wait(0.15)
    assert leases.acquire(name, "two", 0.2, 0) == first
    clockwork.wait(0.3)
    assert leases.acquire(name, "two", 5, 7) == Grant(name, "two", 8)
    assert not leases.renew(first, 5)
    leases.release(first)
    assert leases.acquire(name, "three", 5, 0).holder == "two"


def test_a_lease_that_ran_out_and_nobody_took_is_still_its_holders(clockwork: Clockwork, name: str) -> None:
    leases = clockwork.leases
    grant = leases.acquire(name, "one", 0.05, 0)
    clockwork.wait(0.1)
    assert leases.replace(grant, "", "a", 5) is Outcome.DONE
    assert leases.acquire(name, "two", 5, 0) == grant
    leases.release(grant)
    second = leases.acquire(name, "two", 5, 0)
    leases.release(second)
    assert not leases.renew(grant, 5)
    assert leases.replace(grant, "a", "b", 5) is Outcome.FENCED
    assert leases.read(name) == "a"


def test_a_checkpoint_moves_only_from_what_was_last_seen(clockwork: Clockwork, name: str) -> None:
    leases = clockwork.leases
    grant = leases.acquire(name, "one", 5, 0)
    assert leases.read(name) == ""
    assert leases.replace(grant, "", "ä\n1", 5) is Outcome.DONE
    assert leases.replace(grant, "", "ä\n1", 5) is Outcome.DONE
    assert leases.replace(grant, "", "2", 5) is Outcome.EDITED
    clockwork.put(name, "3") if isinstance(leases, MemoryLeases) else clockwork.put(name, b"3")
    assert leases.replace(grant, "ä\n1", "2", 5) is Outcome.EDITED
    assert leases.read(name) == "3"
    clockwork.put(name, b"\xff")
    with pytest.raises(NotText, match="not UTF-8"):
        leases.read(name)


def test_a_checkpoint_that_is_no_string_is_named(endpoints: dict[str, str], name: str) -> None:
    leases = RedisLeases(endpoints["REDIS_URL"])
    redis.Redis.from_url(endpoints["REDIS_URL"]).hset(f"checkpoint:{name}", "scan", "1")
    with pytest.raises(NotText, match="is no string"):
        leases.read(name)
    grant = leases.acquire(name, "one", 5, 0)
    assert leases.replace(grant, "", "1", 5) is Outcome.EDITED


def test_a_frozen_redis_is_away_not_waited_for_without_end(own_redis: devstack.Stack, name: str) -> None:
    from signal import SIGCONT, SIGSTOP

    leases = RedisLeases(own_redis.endpoints.redis)
    leases.check()
    own_redis.kill("redis", SIGSTOP)
    began = time.monotonic()
    with pytest.raises(Retriable, match="does not answer within 5 s"):
        leases.read(name)
    assert time.monotonic() - began < 10
    own_redis.kill("redis", SIGCONT)
    leases.check()
