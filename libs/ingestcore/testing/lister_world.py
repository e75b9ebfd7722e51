"""A small world for sources that poll a store: buckets, leases, a clock and Kafka's fencing, all in memory.

Time stands still unless a test moves it. `Replica` does to a source what the runtime does: it makes a fresh producer
when the term changes, commits each step alone, then acknowledges it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from ingestcore.messages.objects import ObjectRef
from ingestcore.stage import Fenced, Retriable, Source, Step, check
from ingestcore.stores.leases import Grant, NotText, Outcome
from ingestcore.stores.objects import Listed, Missing, Refused, Unavailable

T = TypeVar("T")


class Clock:
    """`now` is wall time, `monotonic` seconds since the start; both move only by `pass_seconds`."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def pass_seconds(self, seconds: float) -> None:
        self.seconds += seconds

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


def byte_order(key: str) -> tuple[str, ...]:
    return (key,)


def folder_order(key: str) -> tuple[str, ...]:
    """By path segment, as SeaweedFS and directory buckets list: `a/x` before `a-b`."""
    return tuple(key.split("/"))


class MemoryStore:
    """`ObjectStore` over dictionaries. `page` keys are read at a time, so a listing sees what changes meanwhile."""

    def __init__(self, order: Callable[[str], tuple[str, ...]] = byte_order, page: int = 3) -> None:
        self.buckets: dict[str, dict[str, tuple[bytes, str]]] = {}
        self.away = False
        self.away_after_entries: int | None = None
        self.lists: list[tuple[str, str]] = []
        """(bucket, start_after) of every listing."""
        self.on_page: Callable[[], None] = lambda: None
        self._order, self._page, self._versions = order, page, 0

    def add(self, bucket: str, key: str, data: bytes = b"x") -> str:
        """Put a version of its own, whatever the bytes. -> ETag."""
        self._versions += 1
        etag = hashlib.md5(data + str(self._versions).encode()).hexdigest()
        self.buckets.setdefault(bucket, {})[key] = (data, etag)
        return etag

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[Listed]:
        self._there(bucket)
        self.lists.append((bucket, start_after))
        after = self._order(start_after) if start_after else None
        while True:
            self._there(bucket)
            self.on_page()
            keys = sorted((k for k in self.buckets[bucket] if k.startswith(prefix)), key=self._order)
            page = [k for k in keys if after is None or self._order(k) > after][: self._page]
            entries = [(key, *self.buckets[bucket][key]) for key in page]
            for key, data, etag in entries:
                if self.away_after_entries is not None:
                    self.away_after_entries -= 1
                    if self.away_after_entries < 0:
                        self.away, self.away_after_entries = True, None
                        self._there(bucket)
                yield Listed(key, etag, len(data), "2025-01-01T00:00:00Z")
            if len(page) < self._page:
                return
            after = self._order(page[-1])

    def get(self, bucket: str, key: str) -> bytes:
        self._there(bucket)
        try:
            return self.buckets[bucket][key][0]
        except KeyError:
            raise Missing(f"s3://{bucket}/{key}") from None

    def get_range(self, bucket: str, key: str, etag: str, first: int, size: int) -> bytes:
        return self.get(bucket, key)[first : first + size]

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._there(bucket)
        self.add(bucket, key, data)

    def put_new(self, bucket: str, key: str, data: bytes | Path) -> bool:
        self._there(bucket)
        if key in self.buckets[bucket]:
            return False
        self.add(bucket, key, data if isinstance(data, bytes) else data.read_bytes())
        return True

    def delete(self, bucket: str, key: str) -> None:
        self._there(bucket)
        self.buckets[bucket].pop(key, None)

    def check(self, bucket: str) -> None:
        self._there(bucket)

    def warm(self, bucket: str) -> None: ...

    def _there(self, bucket: str) -> None:
        if self.away:
            raise Unavailable("S3 is away: waiting for it")
        if bucket not in self.buckets:
            raise Refused(f"there is no bucket {bucket}: create it")


class MemoryLeases:
    """`Leases` with the same rules as those in Redis. `lose_answers`: the next writes happen, their answer is lost."""

    def __init__(self, clock: Clock) -> None:
        self.checkpoints: dict[str, str | bytes] = {}
        self.away = False
        self.lose_answers = 0
        self._leases: dict[str, tuple[str, float]] = {}
        self._fences: dict[str, int] = {}
        self._clock = clock

    def forget(self) -> None:
        """A Redis that lost everything."""
        self.checkpoints.clear()
        self._leases.clear()
        self._fences.clear()

    def holder(self, name: str) -> str:
        value, until = self._leases.get(name, ("", 0.0))
        return value if self._clock.monotonic() < until else ""

    def acquire(self, name: str, holder: str, seconds: float, above: int) -> Grant:
        self._there()
        current = self.holder(name)
        if not current or current.partition(" ")[2] == holder:
            if not current:
                self._fences[name] = max(self._fences.get(name, 0), above) + 1
                current = f"{self._fences[name]} {holder}"
            self._leases[name] = (current, self._clock.monotonic() + seconds)
        return self._answer(Grant.of(name, current))

    def renew(self, grant: Grant, seconds: float) -> bool:
        self._there()
        current = self.holder(grant.name)
        if current != grant.value and (current or self._fences.get(grant.name, 0) > grant.fence):
            return False
        self._fences[grant.name] = grant.fence
        self._leases[grant.name] = (grant.value, self._clock.monotonic() + seconds)
        return True

    def release(self, grant: Grant) -> None:
        self._there()
        if self.holder(grant.name) == grant.value:
            del self._leases[grant.name]

    def read(self, name: str) -> str:
        self._there()
        value = self.checkpoints.get(name, "")
        if isinstance(value, bytes):
            raise NotText(f"checkpoint:{name} is not UTF-8 text")
        return value

    def check(self) -> None:
        self._there()

    def replace(self, grant: Grant, expected: str, new: str, seconds: float) -> Outcome:
        self._there()
        if not self.renew(grant, seconds):
            return Outcome.FENCED
        current = self.checkpoints.get(grant.name, "")
        if current not in (expected, new):
            return Outcome.EDITED
        self.checkpoints[grant.name] = new
        return self._answer(Outcome.DONE)

    def _answer(self, value: T) -> T:
        if self.lose_answers:
            self.lose_answers -= 1
            raise Retriable("Redis does not answer: waiting for it")
        return value

    def _there(self) -> None:
        if self.away:
            raise Retriable("Redis is away: waiting for it")


@dataclass
class Topic:
    """`ingest.objects` and the fencing of one transactional id. `terms`: of every commit, in order."""

    objects: list[ObjectRef] = field(default_factory=list)
    terms: list[Any] = field(default_factory=list)
    epoch: int = 0

    def ids(self) -> list[str]:
        return [ref.id for ref in self.objects]

    def found(self) -> list[str]:
        return [ref.key for ref in self.objects]


class Replica:
    """One process that runs a source, a move at a time, so that a test may stop it anywhere."""

    def __init__(self, source: Source, topic: Topic) -> None:
        self.source: Any = source
        self._topic = topic
        self._scan: Iterator[Step | None] | None = None
        self._term: object = None
        self._epoch = 0
        self.trouble = ""
        self.passes = 0

    def move(self, *, abort: bool = False, before_commit: Callable[[], object] = lambda: None) -> bool:
        """Take the scan one yield further, then commit and acknowledge what it gave. -> did the pass go on?

        abort: the step's transaction fails, as when Kafka is away. before_commit: what happens meanwhile elsewhere.
        """
        if self._scan is None:
            self._scan = self.source.scan()
        try:
            step = next(self._scan)
            if self.source.term != self._term:
                self._topic.epoch += 1
                self._epoch, self._term = self._topic.epoch, self.source.term
            if step is not None:
                before_commit()
                if abort:
                    raise Retriable("Kafka is away")
                self._commit(step)
                self.source.acknowledged(step.resume)
        except StopIteration:
            self._end()
            self.passes += 1
            return False
        except (Retriable, Fenced) as error:
            self.trouble = str(error)
            self._end()
            return False
        return True

    def finish_pass(self) -> None:
        while self.move():
            pass

    def _commit(self, step: Step) -> None:
        check(step)
        if self._epoch != self._topic.epoch:
            self._term = None  # what the runtime does with a fenced producer
            raise Fenced("producer fenced")
        for emit in step.emits:
            ref = ObjectRef.decode(emit.value)
            assert emit.key == bytes.fromhex(ref.id) and emit.topic == "objects"
            self._topic.objects.append(ref)
        self._topic.terms.append(self.source.term)

    def _end(self) -> None:
        close = getattr(self._scan, "close", None)
        if close:
            close()
        self._scan = None
