"""How other shells talk to a supervisor: one JSON request and one JSON answer per connection, on loopback, with a key.

Requests: `{"do": "status"}`, `{"do": "stop" | "start", "names": [...]}`, `{"do": "down"}`.
"""

from __future__ import annotations

import queue
from concurrent.futures import Future
from dataclasses import dataclass, field

from devstack.channel import Answer, Channel, Request, Unanswered
from devstack.channel import ask as ask_channel
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import FleetError, is_supervised, read_record

LONGEST_ANSWER_SECONDS = 180.0
"""A start is answered when the service is ready, a stop when it has drained."""


class NotRunning(FleetError):
    """No supervisor answers in the folder."""


class Declined(FleetError):
    """The supervisor says no, and why."""


@dataclass
class Errand:
    """A request for the supervisor's main thread, and the place where its answer goes."""

    request: Request
    answer: Future[Answer] = field(default_factory=Future)


class Listening:
    """Accepts requests in daemon threads and queues them as errands."""

    def __init__(self) -> None:
        self.errands: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        channel = Channel(self._run)
        self.key, self.port = channel.key, channel.port

    def _run(self, request: Request) -> Answer:
        errand = Errand(request)
        self.errands.put(errand)
        # TimeoutError ends the connection; the asker will look what became of it.
        return errand.answer.result(LONGEST_ANSWER_SECONDS)


def ask(layout: Layout, request: Request) -> Answer:
    """Send a request to the folder's supervisor, wait for the answer. Raises NotRunning, Declined."""
    if not is_supervised(layout):
        raise NotRunning(f"nothing runs in {layout.folder}: `ingest up` starts a fleet, --dir names another folder")
    record = read_record(layout)
    if not record.control_port:
        raise NotRunning(f"the fleet in {layout.folder} is only just starting: try again in a moment")
    try:
        answer = ask_channel(record.control_port, record.control_key, request)
    except Unanswered as error:
        raise NotRunning(f"the supervisor (process {record.supervisor_pid}) gave no answer: {error}") from error
    if "error" in answer:
        raise Declined(str(answer["error"]))
    return answer
