"""Which input kills the process, and that no kill by others is ever laid at an input's door.

The runtime's own use of `Progress` and `Trials` is played: processes live, are killed by inputs or by an operator at
any moment, and leave nothing behind but what they committed.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from ingestcore.runtime.progress import METADATA_LIMIT_BYTES, TRIES_LIMIT, Progress
from ingestcore.runtime.trials import SURVIVAL_SECONDS, Trials, Way, calm_seconds
from ingestcore.stage import At

TICK_SECONDS = 0.25
PLACES = [("t", 0), ("t", 1)]


class Died(Exception):
    """The process is gone. killer: the input that did it; None: an operator."""

    def __init__(self, killer: At | None) -> None:
        self.killer = killer


@dataclass(frozen=True)
class Kind:
    """What an input does: `steps` long, `quiet` ticks before each; `dies_at` that step; `held` until it is settled."""

    steps: int = 1
    quiet: int = 0
    dies_at: int | None = None
    held: bool = False


GOOD, HELD, LONG, SLOW = Kind(), Kind(held=True), Kind(steps=40, quiet=2), Kind(steps=3, quiet=20)
KILLER, LATE_KILLER, SETTLE_KILLER = Kind(dies_at=0), Kind(steps=9, dies_at=5), Kind(held=True, dies_at=1)


@dataclass
class World:
    """Two partitions, what is committed of them, and what became of every input."""

    seed: int
    inputs: Mapping[At, Kind]
    kill_rate: float = 0.0
    concurrency: int = 2
    store: dict[tuple[str, int], tuple[int, str]] = field(default_factory=lambda: dict.fromkeys(PLACES, (0, "")))
    now: float = 0.0
    deaths: Counter[At | None] = field(default_factory=Counter)
    lives: int = 0
    done: set[At] = field(default_factory=set)
    condemned: set[At] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def run(self, lives: int) -> None:
        for _ in range(lives):
            self.lives += 1
            try:
                Process(self).live()
                return
            except Died as death:
                self.deaths[death.killer] += 1
                self.now += self.random.uniform(0.2, 3)
        raise AssertionError(f"not through after {lives} lives: {self.inputs.keys() - self.done - self.condemned}")

    def over(self) -> bool:
        return self.done | self.condemned == self.inputs.keys()


class Process:
    """One life. The order of calls is the loop's."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.progress = Progress()
        self.trials = Trials(self.progress, lambda: world.now)
        self.roll_back()

    def roll_back(self) -> None:
        self.trials.rolled_back()
        self.jobs: dict[At, Iterator[str | None]] = {}
        self.held: set[At] = set()
        self.finished: set[At] = set()
        self.letters: set[At] = set()
        self.aside: list[At] = []
        self.later: list[At] = []
        self.queue: list[At] = []
        for place, (offset, metadata) in self.world.store.items():
            assert len(metadata) <= METADATA_LIMIT_BYTES
            self.progress.assign(place, offset, metadata)
            self.trials.located(place)
        for at in sorted(self.world.inputs, key=lambda at: (at.offset, at.partition)):
            if at.offset >= self.world.store[at[:2]][0] and self.progress.admit(at, key(at)) is not None:
                self.queue.append(at)

    def live(self) -> None:
        while not self.world.over():
            self.world.now += TICK_SECONDS
            self.may_be_killed()
            self.admit()
            self.advance()
            self.may_be_killed()
            if not self.end_of_trial() and (not self.jobs or self.world.random.random() < 0.4):
                self.commit(final=self.world.random.random() < 0.1)

    def may_be_killed(self) -> None:
        if self.world.random.random() < self.world.kill_rate:
            raise Died(None)

    def admit(self) -> None:
        if self.aside and self.trials.due_for_last_try(idle=not (self.queue or self.held)):
            self.roll_back()
        while self.queue and len(self.jobs) < self.world.concurrency and not self.trials.current:
            at = self.queue.pop(0)
            if self.trials.last() not in (None, at):
                self.later.append(at)
            else:
                self.take_up(at)

    def take_up(self, at: At) -> None:
        way = self.trials.way(at)
        if way is Way.ASIDE:
            self.aside.append(at)
            self.trials.put_aside(at)
            return
        if way is not Way.FREE:
            self.trials.begin(at, key(at))
        if self.trials.announce(at) or way is not Way.FREE:
            self.commit(final=False)
        self.held.add(at)
        if way is Way.CONDEMN:
            self.letters.add(at)
            self.jobs[at] = iter(["done"])
        else:
            self.jobs[at] = self.job(at, self.progress.mark(at).token)

    def job(self, at: At, token: str | None) -> Iterator[str | None]:
        """-> tokens, "done", or nothing when it is held; None: not ready yet."""
        kind = self.world.inputs[at]
        for step in range(int(token or 0), kind.steps):
            if kind.dies_at == step and not kind.held:
                raise Died(at)
            yield from [None] * kind.quiet
            if kind.held:
                return
            yield "done" if step + 1 == kind.steps else str(step + 1)

    def advance(self) -> None:
        for at, job in list(self.jobs.items()):
            step = next(job, "over")
            if step == "over":
                del self.jobs[at]
            elif step is not None:
                self.note(at, None if step == "done" else step)

    def note(self, at: At, token: str | None) -> None:
        if self.progress.note(at, 1, token) is not None:
            self.finished.add(at)

    def end_of_trial(self) -> bool:
        at = self.trials.current
        if at is None:
            return False
        if self.trials.beat():
            self.commit(final=False)
        if at in self.jobs or self.trials.current is None:
            return False
        held = at in self.held and at not in self.finished
        if held and not self.trials.thorough:
            self.trials.taken()
        self.commit(final=held and self.trials.thorough)
        return True

    def commit(self, *, final: bool) -> None:
        if final:
            for at in [at for at in self.held if at not in self.jobs and at not in self.finished]:
                if self.world.inputs[at].dies_at is not None:
                    raise Died(at)
                self.note(at, None)
        self.trials.before_commit()
        self.may_be_killed()
        self.world.store.update(self.progress.commit())
        self.world.condemned |= self.finished & self.letters
        self.world.done |= self.finished - self.letters
        self.may_be_killed()
        self.held -= self.finished
        self.trials.after_commit(len(self.finished - self.letters))
        if self.trials.last() is None:
            self.queue, self.later = self.later + self.queue, []
        self.finished = set()


def key(at: At) -> bytes:
    return repr(at).encode()


def spread(kinds: list[Kind]) -> dict[At, Kind]:
    return {At("t", number % 2, number // 2): kind for number, kind in enumerate(kinds)}


def mixed(seed: int, bad: list[Kind], count: int = 40) -> dict[At, Kind]:
    rng = random.Random(seed)
    kinds = [rng.choice([GOOD, GOOD, GOOD, HELD, LONG, SLOW]) for _ in range(count)] + bad
    rng.shuffle(kinds)
    return spread(kinds)


@pytest.mark.parametrize(("kill_rate", "seeds"), [(0.001, 20), (0.005, 30), (0.02, 12), (0.1, 8)])
def test_no_kill_by_an_operator_ever_dead_letters_an_input(kill_rate: float, seeds: int) -> None:
    """At a handful of moments per tick; at the higher rates a slow input may never get on, whatever is done."""
    for seed in range(seeds):
        world = World(seed, mixed(seed, []), kill_rate, concurrency=1 + seed % 3)
        try:
            world.run(200)
        except AssertionError:
            assert kill_rate > 0.01
        assert not world.condemned


@pytest.mark.long
def test_nor_do_kills_in_thousands_of_histories() -> None:
    for seed in range(3000):
        world = World(seed, mixed(seed, []), 0.001 * 2 ** (seed % 7), concurrency=1 + seed % 3)
        with contextlib.suppress(AssertionError):
            world.run(200)
        assert not world.condemned, f"seed {seed}"


@pytest.mark.parametrize(
    "bad", [KILLER, LATE_KILLER, SETTLE_KILLER], ids=["at once", "on its way", "when it is settled"]
)
@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_input_that_kills_is_dead_lettered_and_all_others_pass(bad: Kind, concurrency: int) -> None:
    for seed in range(15):
        world = World(seed, mixed(seed, [bad]), concurrency=concurrency)
        world.run(14)
        assert {world.inputs[at] for at in world.condemned} == {bad}
        assert max(world.deaths.values()) <= 8


def test_several_that_kill_are_dead_lettered_and_no_other() -> None:
    for seed in range(15):
        bad = [KILLER, LATE_KILLER, SETTLE_KILLER]
        world = World(seed, mixed(seed, bad), kill_rate=0.002 * (seed % 2))
        world.run(80)
        assert Counter(world.inputs[at] for at in world.condemned) == Counter(bad)


def test_an_input_that_kills_alone_in_its_topic_is_tried_again_after_a_calm_and_then_dead_lettered() -> None:
    world = World(1, spread([KILLER]))
    world.run(10)
    assert world.condemned == world.inputs.keys()
    assert world.now > calm_seconds(0)


def test_a_stage_that_dies_of_everything_dead_letters_nothing_and_waits() -> None:
    world = World(1, spread([KILLER] * 60))
    with pytest.raises(AssertionError, match="not through"):
        world.run(8)
    process = Process(world)
    for _ in range(2000):
        world.now += TICK_SECONDS
        try:
            process.admit()
        except Died:
            process = Process(world)
    assert not world.condemned
    assert "set aside" in process.trials.stuck()
    tries = [len(part.tries) for part in process.progress.parts.values()]
    assert max(tries) <= TRIES_LIMIT


def test_ten_kills_of_a_long_input_do_it_no_harm() -> None:
    world = World(1, spread([Kind(steps=400, quiet=1)]), kill_rate=0.01)
    world.run(1000)
    assert world.deaths[None] >= 10
    assert not world.condemned


# -- the parts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


A = At("t", 0, 5)


def after_deaths(count: int, clock: Clock, *, starts: int = 2) -> tuple[Progress, Trials]:
    """A process that finds an input of which so many have died."""
    store = (5, f'{{"s":{starts - 1}}}')
    for _ in range(count):
        progress, trials = opened(store, clock)
        trials.begin(A, b"k")
        trials.announce(A)
        store = progress.commit()[A[:2]]
    return opened(store, clock)


def opened(store: tuple[int, str], clock: Clock) -> tuple[Progress, Trials]:
    progress = Progress()
    trials = Trials(progress, clock)
    progress.assign(A[:2], *store)
    trials.located(A[:2])
    progress.admit(A, b"k")
    return progress, trials


@pytest.mark.parametrize(
    ("deaths", "way"), [(0, Way.TRY), (1, Way.TRY), (2, Way.ASIDE), (3, Way.CONDEMN), (4, Way.CONDEMN)]
)
def test_how_an_input_is_taken_after_deaths(deaths: int, way: Way) -> None:
    _, trials = after_deaths(deaths, Clock())
    assert (trials.deaths(A), trials.way(A)) == (deaths, way)


def test_the_first_process_takes_inputs_freely_and_says_that_it_begins() -> None:
    progress, trials = opened((5, ""), Clock())
    assert trials.way(A) is Way.FREE
    assert trials.announce(A)
    assert progress.commit() == {A[:2]: (5, '{"s":1}')}
    trials.after_commit(0)
    assert not trials.announce(A)
    progress.note(A, 1, None)
    trials.before_commit()
    assert progress.commit() == {A[:2]: (6, "")}


def test_a_partition_without_inputs_is_not_begun() -> None:
    progress, _ = opened((5, ""), Clock())
    assert progress.commit() == {}


def test_a_clean_end_takes_back_what_was_begun() -> None:
    progress, trials = after_deaths(1, Clock())
    trials.begin(A, b"k")
    trials.announce(A)
    trials.withdraw()
    ((_, metadata),) = progress.commit().values()
    _, trials = opened((5, metadata), Clock())
    assert trials.deaths(A) == 1
    progress, trials = opened((5, ""), Clock())
    trials.announce(A)
    trials.begin(A, b"k")
    trials.withdraw()
    assert progress.commit() == {}


def test_a_rollback_of_the_same_process_is_no_death() -> None:
    progress, trials = after_deaths(1, Clock())
    trials.begin(A, b"k")
    trials.announce(A)
    (store,) = progress.commit().values()
    trials.after_commit(0)
    for _ in range(5):
        trials.rolled_back()
        progress.assign(A[:2], *store)
        trials.located(A[:2])
        progress.admit(A, b"k")
        assert (trials.deaths(A), trials.way(A)) == (1, Way.TRY)
        trials.begin(A, b"k")


def test_an_input_that_the_process_lives_with_for_long_is_no_longer_suspected() -> None:
    clock = Clock()
    progress, trials = after_deaths(1, clock)
    trials.begin(A, b"k")
    assert not trials.beat()
    clock.now += SURVIVAL_SECONDS
    assert trials.beat()
    (store,) = progress.commit().values()
    _, trials = opened(store, clock)
    assert trials.deaths(A) == 0


def test_the_last_try_waits_for_a_calm_in_which_others_pass() -> None:
    clock = Clock()
    _, trials = after_deaths(2, clock)
    trials.put_aside(A)
    clock.now += calm_seconds(0)
    assert trials.due_for_last_try(idle=False) is None
    trials.after_commit(1)
    assert trials.due_for_last_try(idle=False) == A
    assert (trials.last(), trials.way(A)) == (A, Way.TRY)


def test_another_record_at_the_same_offset_is_not_suspected() -> None:
    progress, _ = after_deaths(2, Clock())
    store = progress.parts[A[:2]].position()
    progress = Progress()
    trials = Trials(progress, Clock())
    progress.assign(A[:2], *store)
    trials.located(A[:2])
    progress.admit(A, b"another")
    assert trials.deaths(A) == 0
