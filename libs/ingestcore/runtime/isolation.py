"""Which input is poison. Pure: told what failed and what passed, it says which input may be dead-lettered.

After an unexpected exception one input at a time is tried, each after a rollback. An input is poison only if it failed
alone several times and another one passed since; an idle topic for a while counts as that. So a stage that is broken
for every input dead-letters nothing: it waits and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ingestcore.stage import At

ATTEMPTS: Final = 3
CAREFUL_COMMITS: Final = 32
"""Commits of one input each after a failure, before inputs run side by side again."""
IDLE_SECONDS: Final = 30.0
IDLE_VERDICTS: Final = 3
"""Inputs in a row that may be condemned without another one passing in between."""


@dataclass(slots=True)
class _Suspect:
    failures: int = 0
    since: float = 0.0
    passes_before: int = 0
    why: str = ""


class Isolation:
    """One stage's record of failures. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._suspects: dict[At, _Suspect] = {}
        self._careful = 0
        self._passes = 0
        self._condemned_in_a_row = 0

    @property
    def alone(self) -> bool:
        """Take one input at a time."""
        return self._careful > 0 or self.focus() is not None

    def focus(self) -> int | None:
        """-> partition of an input that must be tried alone next; others wait so that it comes up soon."""
        return next((at.partition for at, s in self._suspects.items() if s.failures < ATTEMPTS), None)

    def failed(self, at: At | None, why: str, *, alone: bool) -> None:
        """An unexpected exception. at: the input that was worked on; alone: nothing else was held beside it."""
        self._careful = CAREFUL_COMMITS
        if at is None:
            return
        suspect = self._suspects.setdefault(at, _Suspect())
        suspect.failures += alone
        suspect.why = why
        if suspect.failures <= ATTEMPTS:
            suspect.since, suspect.passes_before = self._clock(), self._passes

    def passed(self, finished: list[At]) -> None:
        """A commit with these inputs finished (an input that was dead-lettered here is `condemned` instead)."""
        self._careful = max(0, self._careful - 1)
        for at in finished:
            self._suspects.pop(at, None)
        if finished:
            self._passes += 1
            self._condemned_in_a_row = 0

    def condemned(self, at: At) -> None:
        """The input is dead-lettered and committed."""
        self._suspects.pop(at, None)
        self._condemned_in_a_row += 1

    def exhausted(self, at: At) -> bool:
        """It failed alone as often as it may: it is not tried again before the verdict."""
        suspect = self._suspects.get(at)
        return suspect is not None and suspect.failures >= ATTEMPTS

    def poison(self, at: At) -> str | None:
        """-> the error to put into its dead letter; None: not (yet) poison."""
        suspect = self._suspects.get(at)
        if suspect is None or suspect.failures < ATTEMPTS:
            return None
        if self._passes > suspect.passes_before:
            return suspect.why
        waited = self._clock() - suspect.since >= IDLE_SECONDS
        return suspect.why if waited and self._condemned_in_a_row < IDLE_VERDICTS else None

    def stuck(self) -> str:
        """-> why nothing goes on, for health; "" when it does."""
        stuck = [s for s in self._suspects.values() if s.failures >= ATTEMPTS and self._passes <= s.passes_before]
        if not stuck:
            return ""
        return f"{len(stuck)} input(s) fail and none has passed since: {stuck[0].why}"
