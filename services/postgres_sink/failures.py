"""What an error of Postgres means: the row's fault, something to wait for, or an operator's business. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Final

from ingestcore.reasons import Reason
from ingestcore.stage import Retriable


class Away(Retriable):
    """The database can't be reached, or ends what was begun."""

    reason = Reason.CONNECTION_ERROR.value


class TimedOut(Retriable):
    """It did not answer in time."""

    reason = Reason.SINK_TIMEOUT.value


class CircuitOpen(Retriable):
    """It is left alone for a while."""

    reason = Reason.CIRCUIT_OPEN.value

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


Outage = Away | TimedOut


class Fault(Enum):
    """Whose."""

    ROW = "row"
    TIME = "time"
    DATABASE = "database"
    OPERATOR = "operator"


_TIMES: Final = ("57014", "55P03")
"""query_canceled (statement_timeout), lock_not_available."""
_OF_ROWS: Final = ("22", "23", "44", "54", "P0")
"""Data exceptions, integrity constraints, WITH CHECK, limits of a row, RAISE of a trigger."""
_PASSING: Final = ("08", "25", "40", "53", "55", "57", "58", "XX")
"""Connections, read-only standby, deadlocks, resources, locks, shutdown, system errors."""


def fault(sqlstate: str | None) -> Fault:
    """sqlstate: None: the connection broke. What is not known is an operator's: it must be looked at."""
    if sqlstate is None:
        return Fault.DATABASE
    if sqlstate in _TIMES:
        return Fault.TIME
    if sqlstate[:2] in _OF_ROWS:
        return Fault.ROW
    return Fault.DATABASE if sqlstate[:2] in _PASSING else Fault.OPERATOR
