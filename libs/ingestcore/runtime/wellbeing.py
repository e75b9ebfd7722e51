"""Whether a service is well: what it waits for, as its health tells, and since when it has been sound."""

from __future__ import annotations

import math
import time

from ingestcore.kafka.group import GroupMember
from ingestcore.observe.health import Health

QUIET_SECONDS = 5.0


class Wellbeing:
    """Trouble is over when a commit takes inputs along, or when nothing has gone wrong for a while at rest."""

    def __init__(self, health: Health, member: GroupMember) -> None:
        self._health, self._member = health, member
        self._troubled_at, self._began_at = -math.inf, time.monotonic()
        self.sound = False
        """It has been well for once, so what the broker refuses from then on is waited out."""

    def waits_for(self, text: str) -> None:
        self._troubled_at = time.monotonic()
        self._health.waiting(text)

    def is_well(self) -> None:
        self._troubled_at = -math.inf
        self._health.ready()

    def worked(self) -> None:
        """A commit took inputs along."""
        self.sound = True
        self.is_well()

    def ready_unless_troubled(self) -> None:
        if self._troubled_at == -math.inf:
            self._health.ready()

    def kafka_is_there(self, *, started: bool) -> bool:
        """-> is it, as far as is known? Says so if not, or if trouble is over. started: it was reached before."""
        away = self._member.away()
        if away:
            self.waits_for(away)
        elif started and time.monotonic() - self._troubled_at > QUIET_SECONDS:
            self.is_well()
        return not away

    def at_rest(self) -> None:
        """There is nothing to do, and Kafka is there."""
        joined = self._member.membership is not None
        self.sound = self.sound or (joined and time.monotonic() - self._began_at > QUIET_SECONDS)
