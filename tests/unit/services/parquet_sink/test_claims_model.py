"""The claim log under everything that can happen to its owners, many thousand ways.

The sink's own code runs over a store and a topic in memory. Every call to the store is a point where the owner may be
killed, or frozen while others go on, to be woken at any time. A generation is what Kafka gives the owner in force: a
commit under an older one is refused. At the end all who still run finish, an operator resets to earliest, and one clean
owner reads everything once more: each record must then be in the files exactly once.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from ingestcore.datasets.spec import SinkSpec
from ingestcore.messages.lake import Span
from ingestcore.stage import At, Fate, Gap, Input, Line, Origin
from ingestcore.stores.objects import Missing
from ingestcore.testing.sink_world import MemoryBucket, PlayedTopics
from services.parquet_sink.checkpoint import Checkpoint
from services.parquet_sink.claim import Claim, Layout, encode_ids
from services.parquet_sink.claims import ClaimLog, put_once
from services.parquet_sink.content import Parcel
from services.parquet_sink.known import KnownLetters
from services.parquet_sink.lake import Finished, Folder, Lake
from services.parquet_sink.offsets import Offsets
from services.parquet_sink.owned import OwnedPartition, Place
from services.parquet_sink.stage import ParquetSink

ORIGIN = Origin("o", "default", "src", "orders@1", "s3://bucket/key")
RECORDS = 16
STEPS = 120
FAULTS = ("kill", "zombie", "reset", "settings", "recreate", "quarantine", "retention", "sweep")


# -- the sink's parts that are not under test, as small as can be


class Messages:
    """Content: a record's value is its table and its identity. Letters are the same with the identity as id."""

    encoder = cast(Any, None)

    def __init__(self, letters: bool) -> None:
        self._letters = letters

    def read(self, input: Input) -> Parcel:
        if input.headers.get("poison"):
            raise ValueError("poison")
        id = bytes.fromhex(input.headers["id"]) if self._letters else None
        return Parcel("orders", (Line(input.at, ORIGIN, Fate.DELIVERED, 1),), (), 1, 1, id)


class Lines:
    """Writing: files of at most `batch_size` lines, so that the layout decides how many there are."""

    rows = 0

    def __init__(self, layout: Layout) -> None:
        self._size, self._tables = layout.batch_size, cast(dict[str, list[str]], {})
        self._letters: dict[bytes, None] = {}
        self._repeats: list[int] = []

    def add(self, input: Input, parcel: Parcel) -> Fate:
        if parcel.letter in self._letters:
            self._repeats.append(input.at.offset)
            return Fate.DUPLICATE
        if parcel.letter is not None:
            self._letters[parcel.letter] = None
        self._tables.setdefault(input.headers["table"], []).append(input.headers["id"])
        return Fate.DELIVERED

    def finish(self, lake: Lake, span: Span) -> tuple[list[Finished], dict[str, Any]]:
        files = []
        for table, lines in self._tables.items():
            for part in range(0, len(lines), self._size):
                data = orjson.dumps(lines[part : part + self._size])
                files.append(Finished(cast(Path, data), Folder(table, "1", "", "t", "d"), f"-{part}", 1))
        return files, {"ids": encode_ids(self._letters), "repeats": Offsets.of(self._repeats).runs}

    def discard(self) -> None: ...


class PlainLake(Lake):
    log: type[ClaimLog] = ClaimLog

    def claims(self, topic_id: str, partition: int, log_start: Callable[[], int] = lambda: 0) -> ClaimLog:
        return self.log(self._store, self.bucket, "", f"{topic_id}/{partition}", log_start)

    def send(self, files: Any) -> None:
        for file, span in files:
            put_once(self._store, self.bucket, self.key(file, span), file.path)


# -- what goes wrong without the protocol


class Unclaimed(ClaimLog):
    """Writes what it holds under the offsets it happens to hold."""

    def load(self) -> None: ...

    def add(self, offsets: Any, layout: Layout) -> Claim | None:
        self.claims.append(Claim(self.entries, Offsets.of(offsets), layout))
        return self.claims[-1]


class Overwriting(ClaimLog):
    """Puts its entry without asking whether another one is there."""

    def add(self, offsets: Any, layout: Layout) -> Claim | None:
        claim = Claim(self.entries, Offsets.of(offsets), layout)
        self._store.put(self._bucket, self._key(claim.sequence, "json"), claim.encode())
        self._enter(claim)
        return claim


class Tidying(ClaimLog):
    """Removes the entries that a checkpoint covers."""

    def _stand_on(self, checkpoint: Checkpoint) -> None:
        for n in range(self.checkpoint.entries, checkpoint.entries):
            self._store.delete(self._bucket, self._key(n, "json"))
        super()._stand_on(checkpoint)


class Hasty(ClaimLog):
    """Sums up entries whose files are not complete yet."""

    def _checkpoint_if_due(self) -> None:
        self._open, still_open = set(), self._open
        super()._checkpoint_if_due()
        self._open = {n for n in still_open if n >= self.checkpoint.entries}


# -- owners, run step by step


class Killed(BaseException):
    pass


class Owner(threading.Thread):
    """A process that owns the partition, or believes so. It runs only while `step` waits for it."""

    def __init__(self, life: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._life, self._go, self._stopped = life, threading.Semaphore(0), threading.Semaphore(0)
        self.over = self._dies = False
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self._dies:
                self._life()
        except Killed:
            pass
        except BaseException as failure:
            self.failure = failure
        self.over = True
        self._stopped.release()

    def pause(self) -> None:
        self._stopped.release()
        self._go.acquire()
        if self._dies:
            raise Killed

    def step(self) -> None:
        self._go.release()
        self._stopped.acquire()
        if self.failure:
            raise self.failure

    def kill(self) -> None:
        if not self.over:
            self._dies = True
            self.step()


@dataclass
class World:
    random: random.Random
    letters: bool
    log: type[ClaimLog]
    bucket: MemoryBucket = field(default_factory=MemoryBucket)
    owners: list[Owner] = field(default_factory=list)
    generation: int = 0
    committed: int = 0
    batch_size: int = 3
    recreated: int = 0
    expected: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.bucket.before = lambda operation, key: self.pause()
        self.new_topic()

    def new_topic(self) -> None:
        """Offsets have holes, where transactions ended or were aborted."""
        offset, inputs = 0, []
        for number in range(RECORDS):
            offset += self.random.choice([1, 1, 1, 2, 3])
            same = self.random.randrange(number + 1) if self.letters and self.random.random() < 0.4 else number
            # After the topic was made anew the same letters come again, rows never do.
            id = f"{same if self.letters else same + 1000 * self.recreated:032x}"
            headers = {"table": self.random.choice("xy"), "id": id}
            inputs.append(Input(At("normalized", 0, offset), b"", headers))
        self.topics = PlayedTopics({0: inputs}, f"id{self.recreated}")
        self.expected |= {input.headers["id"] for input in inputs}

    @property
    def log_start(self) -> int:
        return self.topics.log_start.get(0, 0)

    @property
    def inputs(self) -> list[Input]:
        return self.topics.inputs[0]

    def pause(self) -> None:
        current = threading.current_thread()
        if isinstance(current, Owner):
            current.pause()

    def sink(self) -> ParquetSink:
        content = Messages(self.letters)

        def open_partition(lake: Lake, number: int) -> OwnedPartition:
            topics = self.topics
            claims = lake.claims(topics.id, number, lambda: topics.start("normalized", number))
            claims.load()
            known = None
            if self.letters:
                earlier = [lake.claims(f"id{n}", number) for n in range(self.recreated)]
                for log in earlier:
                    log.load()
                known = KnownLetters(claims, earlier)
            place = Place("normalized", topics.id, number)
            return OwnedPartition(place, lake, claims, known, content, topics, cast(Any, Lines))

        source = {"from": "dlq"} if self.letters else {}
        lake = PlainLake(self.bucket, "s3://out/", 1)
        lake.log = self.log
        return ParquetSink(
            "lake",
            lambda: SinkSpec.model_validate({**source, "parquet": {"uri": "s3://out/", "batch_size": self.batch_size}}),
            content,
            lambda spec: lake,
            open_partition,
            cast(Any, Lines),
            held_bytes=1 << 30,
            clock=lambda: 0.0,
        )

    def owner(self) -> None:
        """A new owner takes over; whoever had the partition goes on, but can't commit any more."""
        self.generation += 1
        generation, inputs = self.generation, self.inputs
        self.owners.append(Owner(lambda: self.own(generation, inputs)))

    def own(self, generation: int, inputs: Sequence[Input]) -> None:
        """Read from the committed offset to the end, in transactions of a few records."""
        waiting = [input for input in inputs if input.at.offset >= max(self.committed, self.log_start)]
        sink, finished = self.sink(), set[int]()
        sink.assigned([0])
        while waiting:
            taken, waiting = waiting[:6], waiting[6:]
            for input in taken[: self.random.randint(1, 6)]:
                taken.remove(input)
                if input.headers.get("poison"):
                    finished.add(input.at.offset)  # dead-lettered instead, by the runtime
                    continue
                finished |= covered(sink.process(input, None))
            waiting = taken + waiting
            finished |= covered(sink.settle(final=not waiting or self.random.random() < 0.6))
            self.pause()
            if generation != self.generation:
                return
            self.committed = min((i.at.offset for i in inputs if i.at.offset not in finished), default=10**9)

    def unfinished(self) -> list[Claim]:
        """-> claims without a mark: their records must stay."""
        keys = self.bucket.keys(f"claims/{self.topics.id}/0/")
        entries = [key for key in keys if key.endswith(".json") and key.replace(".json", ".done") not in keys]
        return [Claim.decode(0, self.bucket.objects[key], key) for key in entries]

    def rows(self) -> Counter[str]:
        return Counter(id for key in self.bucket.keys(".parquet") for id in orjson.loads(self.bucket.objects[key]))


def covered(steps: Iterator[Any]) -> set[int]:
    return {at.offset for step in steps if step for at in step.covers}


def play(seed: int, faults: Sequence[str], *, letters: bool = False, log: type[ClaimLog] = ClaimLog) -> tuple[int, int]:
    """One schedule. -> (records doubled, records lost)."""
    world = World(random.Random(seed), letters, log)
    world.owner()
    for _ in range(STEPS):
        disturb(world, faults)
        world.owners = [owner for owner in world.owners if not owner.over] or world.owners[:0]
        if not world.owners:
            world.owner()
        world.random.choice(world.owners).step()
    for owner in world.owners:
        while not owner.over:
            owner.step()
    for input in world.inputs:
        cast(dict[str, str], input.headers).pop("poison", None)
    # Where an operator can get no further back the last owner need not either; half of the time a backup can.
    start = 0 if "restored" in faults else world.log_start
    world.topics.log_start[0] = start
    world.generation, world.committed = world.generation + 1, start
    world.own(world.generation, world.inputs)
    found = world.rows()
    return sum(n - 1 for n in found.values()), len(world.expected - set(found))


def disturb(world: World, faults: Sequence[str]) -> None:
    chance = world.random.random()
    if chance < 0.02 and "kill" in faults and world.owners:
        world.owners.pop(world.random.randrange(len(world.owners))).kill()
    elif chance < 0.05 and "zombie" in faults:
        world.owner()
    elif chance < 0.07 and "reset" in faults:
        world.committed = world.random.randint(0, world.inputs[-1].at.offset)
        world.owner()
    elif chance < 0.09 and "settings" in faults:
        world.batch_size = world.random.choice([1, 2, 3, 5])
    elif chance < 0.12 and "quarantine" in faults and not any(i.headers.get("poison") for i in world.inputs):
        poison(world)
    elif chance < 0.13 and "sweep" in faults:
        for key in world.bucket.keys("checkpoints/"):
            del world.bucket.objects[key]
    elif chance < 0.16 and "retention" in faults:
        expire(world)
    elif chance < 0.23 and "recreate" in faults and world.recreated < 1 and all_delivered(world):
        for owner in world.owners:
            owner.kill()
        world.owners, world.recreated = [], world.recreated + 1
        world.new_topic()
        world.committed = 0
        world.owner()


def all_delivered(world: World) -> bool:
    """Before that an operator must not delete a topic. (A reset into the middle may have jumped over records.)"""
    return world.committed > world.inputs[-1].at.offset and world.expected <= set(world.rows())


def expire(world: World) -> None:
    """The topic loses its oldest records. It keeps those that nobody has delivered: the platform would report a gap."""
    found = set(world.rows())
    kept = next((i.at.offset for i in world.inputs if i.headers["id"] not in found), world.inputs[-1].at.offset)
    unfinished = [claim.offsets.first for claim in world.unfinished()]
    start = min(kept, world.committed, *unfinished)
    world.topics.log_start[0] = max(world.log_start, world.random.randint(0, start))


def poison(world: World) -> None:
    """A record nobody has claimed turns out unreadable: owners from now on are spared it. Those who run restart."""
    for owner in world.owners:
        owner.kill()
    world.owners = []
    entries = [key for key in world.bucket.keys("claims/") if key.endswith(".json")]
    claims = [orjson.loads(world.bucket.objects[key]) for key in entries]
    taken = {o for c in claims for o in Offsets.stored(c["offsets"])}
    free = [input for input in world.inputs if input.at.offset not in taken]
    if free:
        cast(dict[str, str], world.random.choice(free).headers)["poison"] = "1"


# -- the specification


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that logs of a few entries have several."""
    monkeypatch.setattr("services.parquet_sink.claims.CHECKPOINT_ENTRIES", 2)


@pytest.mark.parametrize("letters", [False, True], ids=["rows", "letters"])
@pytest.mark.parametrize(
    "faults",
    [
        ("kill",),
        ("kill", "zombie"),
        ("kill", "zombie", "reset"),
        ("kill", "zombie", "recreate"),
        ("kill", "zombie", "reset", "retention"),
        ("kill", "zombie", "reset", "retention", "restored"),
        FAULTS,
    ],
    ids="+".join,
)
def test_every_record_is_written_exactly_once(faults: Sequence[str], letters: bool) -> None:
    for seed in range(12):
        assert play(seed, faults, letters=letters) == (0, 0), f"seed {seed}"


@pytest.mark.long
@pytest.mark.parametrize("letters", [False, True], ids=["rows", "letters"])
def test_every_record_is_written_exactly_once_in_thousands_of_schedules(letters: bool) -> None:
    for seed in range(3000):
        assert play(seed, FAULTS, letters=letters) == (0, 0), f"seed {seed}"


def goes_wrong(seed: int, naive: type[ClaimLog]) -> bool:
    try:
        return play(seed, ("kill", "zombie", "reset"), log=naive) != (0, 0)
    except (Gap, Missing):
        return False  # a sink that stops is not the fault looked for


@pytest.mark.parametrize("naive", [Unclaimed, Overwriting, Tidying, Hasty])
def test_the_model_finds_the_fault_of_a_naive_protocol(naive: type[ClaimLog]) -> None:
    """Without claims nearly every schedule goes wrong, with claims that may overwrite each other one in thirty."""
    assert any(goes_wrong(seed, naive) for seed in range(300))
