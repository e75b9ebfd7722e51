"""What goes wrong on the command line, as one message and an exit code."""

from __future__ import annotations

from pydantic import ValidationError

import devstack
from ingestcore.fleet.record import FleetError
from ingestcore.fleet.supervisor import StartFailed
from ingestcore.stage import Gap, NewerFormat, OperatorNeeded, Retriable

EXIT_FAILED = 1
"""It did not work: a server is away, nothing runs here."""
EXIT_CONFIGURATION = 2
"""What was given is wrong: arguments, files, settings, credentials. The same call would fail again."""


class OperatorError(Exception):
    """A command can't go on. The message is for the operator; no traceback is shown."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def explained(error: BaseException) -> OperatorError | None:
    """-> an expected error in an operator's words; None: a defect, which keeps its traceback."""
    if isinstance(error, OperatorError):
        return error
    if isinstance(error, StartFailed):
        return OperatorError(str(error), EXIT_CONFIGURATION if error.configuration else EXIT_FAILED)
    if isinstance(error, OperatorNeeded):
        return OperatorError(str(error), EXIT_CONFIGURATION)
    if isinstance(error, FleetError | Retriable | Gap | NewerFormat | devstack.StackError):
        return OperatorError(str(error))
    if isinstance(error, TimeoutError):
        return OperatorError("no answer in time: a server is away or overloaded; `ingest status` shows which")
    if isinstance(error, ValidationError):
        wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        return OperatorError(f"settings: {'; '.join(wrong)}", EXIT_CONFIGURATION)
    if isinstance(error, OSError) and error.filename is not None:
        return OperatorError(f"{error.filename}: {error.strerror}")
    return None
