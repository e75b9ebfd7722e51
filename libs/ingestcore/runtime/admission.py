"""Which input is begun next: those fetched wait here until there is room, and until it is their turn."""

from __future__ import annotations

import time
from collections import deque

from ingestcore.kafka.group import GroupMember
from ingestcore.kafka.reading import as_input
from ingestcore.runtime.held import Held
from ingestcore.runtime.isolation import Isolation
from ingestcore.runtime.progress import Progress
from ingestcore.runtime.trials import Trials
from ingestcore.stage import Input

_FETCH_RECORDS = 16
_IDLE_WAIT_SECONDS = 0.2
_BUSY_WAIT_SECONDS = 0.01
_POLL_EVERY_SECONDS = 0.5


class Admission:
    """The inputs of one topic that this process has fetched and not begun."""

    def __init__(
        self,
        member: GroupMember,
        consumes: str,
        concurrency: int,
        progress: Progress,
        isolation: Isolation,
        trials: Trials,
        held: Held,
    ) -> None:
        """concurrency: inputs that may be open at once."""
        self._member, self._consumes, self._concurrency = member, consumes, concurrency
        self._progress, self._isolation, self._trials, self._held = progress, isolation, trials, held
        self._polled_at = 0.0
        self.forget()

    def forget(self) -> None:
        """None is here: they are read again."""
        self._queue: deque[Input] = deque()
        self._later: list[Input] = []
        self.aside: list[Input] = []
        """Inputs under suspicion, which wait for a verdict."""

    def __len__(self) -> int:
        return len(self._queue) + len(self.aside) + len(self._later)

    @property
    def queued(self) -> bool:
        """Does any wait for nothing but its turn?"""
        return bool(self._queue)

    def fetch_if_due(self) -> None:
        """Read on, also to stay in the group. Raises Rebalanced and what the member raises."""
        if self._queue and time.monotonic() - self._polled_at <= _POLL_EVERY_SECONDS:
            return
        idle = not self._held.jobs and not self._queue
        wait = _IDLE_WAIT_SECONDS if idle else (0.0 if self._queue else _BUSY_WAIT_SECONDS)
        limit = 1 if self._queue or self._isolation.alone else _FETCH_RECORDS
        holding = bool(len(self) or self._held.inputs or self._held.since is not None)
        self._polled_at = time.monotonic()
        for message in self._member.fetch(limit, wait, holding=holding):
            input = as_input(message, self._consumes)
            if self._progress.admit(input.at, input.key) is None:
                self._held.began()
            else:
                self._queue.append(input)

    def next(self) -> Input | None:
        """-> the input to be begun now; None: there is none, no room, or another one must be done first."""
        while self._queue and self._has_room():
            input = self._queue.popleft()
            if self._isolation.exhausted(input.at):
                self.aside.append(input)
            elif self._trials.last() not in (None, input.at):
                self._later.append(input)
            else:
                return input
        return None

    def _has_room(self) -> bool:
        alone, jobs = self._isolation.alone, self._held.jobs
        if len(jobs) >= (1 if alone else self._concurrency) or (alone and self._held.inputs) or self._trials.current:
            return False
        place = self._queue[0].at[:2]
        return self._progress.has_room(place, sum(1 for at in jobs if at[:2] == place))

    def poison(self) -> tuple[Input, str] | None:
        """-> an input set aside that is poison by now, and why; it is no longer here."""
        for input in self.aside:
            why = self._isolation.poison(input.at)
            if why is not None:
                self.aside.remove(input)
                return input, why
        return None

    def committed(self) -> None:
        """Those that waited for another one's last try come up again once it is over."""
        if self._trials.last() is None:
            self._queue.extendleft(reversed(self._later))
            self._later = []
