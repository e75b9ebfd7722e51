"""Which input kills the process. Pure: told who begins, what survives and what time it is, it says how to take inputs.

An exception can be caught (`isolation`); running out of memory or a segmentation fault can not. So whoever takes a
partition over commits that it begins there before its first input. Where several have begun and none got on, inputs are
taken one at a time, each only after a commit that it is tried now. Survived is: finished, come further (its token
moved), or lived with for `SURVIVAL_SECONDS`, and committed.

A death during a try proves little: operators kill too. So an input that two tries did not survive is set aside, and is
tried for the third time, with nothing beside it, only after this process has lived without it many times as long as
others lived with it, and others have passed. Whoever dies while it is aside, and nothing else is tried, clears it. Only
a third death, as early as those before, dead-letters it.

A clean end takes back what it began. All of it rides in the offset's metadata, so an operator's reset clears it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Final

from ingestcore.runtime.progress import TRIES_LIMIT, Place, Progress, Tries, owner_of
from ingestcore.stage import At

DEATHS: Final = 3
"""An input that so many processes did not survive is dead-lettered."""
CALM_TIMES: Final = 60
"""The process lives so many times as long without a suspect as others lived with it, before its last try. Where deaths
come at random, at whatever rate, two such tries, such a calm and a third death as early come once in 200,000 times."""
FIRST_BEAT_SECONDS: Final = 0.25
"""How long the process lives with an input is committed after so long, and then at each doubling."""
COMMIT_DELAY_SECONDS: Final = 0.25
SURVIVAL_SECONDS: Final = 30.0
"""An input that the process has lived with for so long did not kill it."""
CAREFUL_INPUTS: Final = 16
"""Taken one at a time at the second start in a row that did not get on; four times as many at each further one."""
MOST_CAREFUL_INPUTS: Final = 4096
_CAREFUL_FROM: Final = 2
_THOROUGH_FROM: Final = 3


class Way(Enum):
    """How to take an input."""

    FREE = auto()
    TRY = auto()
    """Alone, after a commit that it is tried."""
    ASIDE = auto()
    """Not now: it is tried once more when the process has lived without it."""
    CONDEMN = auto()


class Trials:
    """What one process knows of its partitions' inputs. `clock` gives seconds."""

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress, self._clock = progress, clock
        self._starts: dict[Place, int] = {}
        self._careful: dict[Place, int] = {}
        self._announced: set[Place] = set()
        self._announcing: set[Place] = set()
        self._begun: set[At] = set()
        self._aside: dict[At, tuple[float, int]] = {}
        self._fresh: set[Place] = set()
        self._first: dict[Place, set[int]] = {}
        self._unproven: dict[Place, set[int]] = {}
        self._passes = 0
        self._last: At | None = None
        self._since = 0.0
        self.current: At | None = None
        """The input that is tried now: no other one may be begun until it has survived."""

    # -- partitions
    def located(self, place: Place) -> None:
        """The partition's committed position was read: after an assignment, or after this process rolled back."""
        if place not in self._starts:
            self._starts[place] = self._progress.parts[place].starts + 1
            self._careful[place] = _careful_inputs(self._starts[place])
            self._fresh.add(place)
            self._first[place], self._unproven[place] = set(), set()

    def left(self, place: Place) -> None:
        for known in (self._starts, self._careful, self._first, self._unproven):
            known.pop(place, None)
        self._announced.discard(place)
        self._fresh.discard(place)

    def rolled_back(self) -> None:
        """Nothing is being worked on."""
        self.current = None
        self._aside.clear()
        self._announcing.clear()

    def _clear(self) -> None:
        """An owner ended that was trying no input: those set aside were not what it died of."""
        parts = [self._progress.parts[place] for place in self._fresh if place in self._progress.parts]
        self._fresh.clear()
        tries = [tried for part in parts for tried in part.tries.values()]
        clear = all(tried.aside for tried in tries)
        for part in parts:
            for offset, tried in list(part.tries.items()):
                if clear:
                    del part.tries[offset]
                elif tried.aside:
                    part.tries[offset] = replace(tried, aside=tried.aside + 1)

    # -- inputs
    def way(self, at: At) -> Way:
        self._clear()
        part = self._progress.parts[at[:2]]
        deaths = self.deaths(at)
        if deaths >= DEATHS:
            return Way.CONDEMN
        if deaths == DEATHS - 1:
            return Way.TRY if at == self._last else Way.ASIDE
        if at.offset in part.tries:
            return Way.TRY
        if not self._careful[at[:2]]:
            return Way.FREE
        # With so many suspects it is rather the stage than its inputs: it waits, and says so.
        return Way.TRY if len(part.tries) < TRIES_LIMIT else Way.ASIDE

    def deaths(self, at: At) -> int:
        """-> tries that no process has survived; the one that this process lives through does not count."""
        tries = self._progress.parts[at[:2]].tries.get(at.offset)
        return 0 if tries is None else tries.count - (at in self._begun)

    def announce(self, at: At) -> bool:
        """Before an input is begun. -> must it be committed first that this process begins in its partition?"""
        place, first = at[:2], self._first[at[:2]]
        if at.offset not in first and len(first) < CAREFUL_INPUTS:
            first.add(at.offset)
            self._unproven[place].add(at.offset)
        if place in self._announced:
            return False
        self._progress.parts[place].starts = self._starts[place]
        self._announcing.add(place)
        return True

    def begin(self, at: At, key: bytes) -> None:
        """The input is tried now: to be committed before it is begun."""
        part = self._progress.parts[at[:2]]
        before = part.tries.get(at.offset)
        if before is None or at not in self._begun:
            before = before or Tries(owner_of(key), 0)
            part.tries[at.offset] = replace(before, count=before.count + 1, aside=0)
        self._begun.add(at)
        self.current, self._since = at, self._clock()

    def taken(self) -> None:
        """The stage holds the input being tried and did not die of taking it. (Where many owners have begun, that is
        not enough: it must be settled.)"""
        self._survive()

    @property
    def thorough(self) -> bool:
        """Must the input being tried be settled alone?"""
        return self.current is not None and self._starts[self.current[:2]] >= _THOROUGH_FROM

    def beat(self) -> bool:
        """The process lives with the input being tried. -> is there news to commit? After long enough the input is no
        longer suspected."""
        if self.current is None:
            return False
        part, offset = self._progress.parts[self.current[:2]], self.current.offset
        tried, lived = part.tries.get(offset), self._clock() - self._since
        if tried is None:
            return False
        if lived >= SURVIVAL_SECONDS:
            self._survive()
            return True
        if lived < max(FIRST_BEAT_SECONDS, 2 * tried.lived_seconds):
            return False
        # Outlived in its last try those before it, it has not had the calm that would make its death tell.
        count = min(tried.count, DEATHS - 1)
        lived = max(FIRST_BEAT_SECONDS, 2 * tried.lived_seconds)
        part.tries[offset] = replace(tried, count=count, lived_seconds=lived)
        return True

    def _survive(self) -> None:
        assert self.current is not None
        self._progress.parts[self.current[:2]].tries.pop(self.current.offset, None)

    # -- suspects
    def put_aside(self, at: At) -> None:
        """It is not tried now; a suspect is from now on known not to be."""
        self._aside[at] = self._clock(), self._passes
        part = self._progress.parts[at[:2]]
        tried = part.tries.get(at.offset)
        if tried is not None and not tried.aside:
            part.tries[at.offset] = replace(tried, aside=1)

    def due_for_last_try(self, *, idle: bool) -> At | None:
        """-> a suspect to be tried for the last time, with nothing beside it; it is `last` from now on.

        idle  there is nothing else to do
        """
        for at, (since, passes) in self._aside.items():
            tried = self._progress.parts[at[:2]].tries.get(at.offset)
            calm = tried is not None and self._clock() - since >= calm_seconds(tried.lived_seconds) * tried.aside
            if calm and (idle or self._passes > passes):
                self._last = at
                return at
        return None

    def last(self) -> At | None:
        """-> the input that must be taken before any other."""
        if self._last is not None:
            part = self._progress.parts.get(self._last[:2])
            if part is None or self._last.offset not in part.tries:
                self._last = None
        return self._last

    def stuck(self) -> str:
        """-> what is waited for, for health; "" when nothing is."""
        if not self._aside:
            return ""
        return (
            f"{len(self._aside)} input(s) set aside: the process ended while they were tried. They are tried once more "
            "when others have passed, and dead-lettered if it ends again"
        )

    # -- commits
    def before_commit(self) -> None:
        """An owner got on when the first inputs it began all did: a long one beside them says nothing of the others."""
        for place, part in self._progress.parts.items():
            if part.got_on and not self._careful[place] and not self._unproven[place] - part.got_on:
                part.starts = 0

    def after_commit(self, finished: int) -> None:
        """It is in. finished: inputs that passed with it."""
        self._passes += finished > 0
        self._announced |= self._announcing
        self._announcing.clear()
        for place, part in self._progress.parts.items():
            self._unproven[place] -= part.got_on
            part.got_on.clear()
        at = self.current
        if at is not None and at.offset not in self._progress.parts[at[:2]].tries:
            self._careful[at[:2]] = max(0, self._careful[at[:2]] - 1)
            self.current = None

    def withdraw(self) -> None:
        """This process ends, and not by an input: what it began is taken back, to be committed."""
        for place, part in self._progress.parts.items():
            part.starts = 0
            for offset, tries in list(part.tries.items()):
                count = tries.count - (At(*place, offset) in self._begun)
                if count:
                    part.tries[offset] = replace(tries, count=count, aside=0)
                else:
                    del part.tries[offset]


def calm_seconds(lived_seconds: float) -> float:
    """-> how long to live without an input that others are known to have lived with for so long."""
    longest = max(FIRST_BEAT_SECONDS, 2 * lived_seconds) + COMMIT_DELAY_SECONDS
    return CALM_TIMES * longest


def _careful_inputs(starts: int) -> int:
    if starts < _CAREFUL_FROM:
        return 0
    return int(min(CAREFUL_INPUTS * 4.0 ** (starts - _CAREFUL_FROM), MOST_CAREFUL_INPUTS))
