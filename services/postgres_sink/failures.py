"""What an error of Postgres means: the row's fault, something to wait for, or an operator's business. Pure."""

from __future__ import annotations

import re
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

_LOGIN: Final = "mend user and password in the sink's `dsn` (special characters as %XX), or the role in the database"
_REFUSALS: Final = (
    ("no password supplied", "it wants a password: write one into the sink's `dsn`, as a reference"),
    ("password authentication failed|not permitted to log in|role .* does not exist", _LOGIN),
    ("database .* does not exist", "create it, or name another one in the sink's `dsn`"),
    ("no encryption", "it lets this user in with TLS only: `?sslmode=verify-full&sslrootcert=...` in the sink's `dsn`"),
    ("pg_hba.conf", "let the user in from this address in the server's pg_hba.conf"),
    (
        "certificate verify failed",
        "its certificate has expired, or is not of the authority that `sslrootcert` in the sink's `dsn` names",
    ),
    ("does not match host name", "name the host in the sink's `dsn` as its certificate does"),
    ("certificate file|private key file|certificate present", "mend the files that the sink's `dsn` names"),
    ("client certificate|certificate authentication failed", "name `sslcert` and `sslkey` in the sink's `dsn`"),
    ("does not support SSL", "switch TLS on there (`ssl = on`), or say `sslmode=disable` in the sink's `dsn`"),
    ("^connection is bad: invalid", "mend it in the sink's `dsn`: postgresql://user:password@host:5432/database"),
)
"""Why no connection came about -> what to do. It carries no SQLSTATE, only words of Postgres' client."""


def refusal(words: str) -> str:
    """words: of a connection that did not come about -> what an operator does; "": nothing, the server is away."""
    return next((advice for pattern, advice in _REFUSALS if re.search(pattern, words)), "")


def fault(sqlstate: str | None) -> Fault:
    """sqlstate: None: the connection broke. What is not known is an operator's: it must be looked at."""
    if sqlstate is None:
        return Fault.DATABASE
    if sqlstate in _TIMES:
        return Fault.TIME
    if sqlstate[:2] in _OF_ROWS:
        return Fault.ROW
    return Fault.DATABASE if sqlstate[:2] in _PASSING else Fault.OPERATOR
