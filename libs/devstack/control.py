"""How others talk to a keeper."""

from __future__ import annotations

from devstack.channel import Answer, Request, Unanswered
from devstack.channel import ask as ask_channel
from devstack.record import Record
from devstack.server import StackError

LEAVE = "leave"  # a line on a detached keeper's stdin: its starter has no more say


def ask(record: Record, request: Request) -> Answer:
    """Send a request to the keeper of a record. Raises StackError when it is gone or says no."""
    try:
        answer = ask_channel(record.control_port, record.control_key, request)
    except Unanswered as error:
        raise StackError(f"the stack's keeper (process {record.keeper_pid}) does not answer: {error}") from error
    if "error" in answer:
        raise StackError(str(answer["error"]))
    return answer
