"""How other shells talk to a supervisor: one JSON request and one JSON answer per connection, on loopback, with a key.

Requests: `{"do": "status"}`, `{"do": "stop" | "start", "names": [...]}`, `{"do": "down"}`.
"""

from __future__ import annotations

import json
import queue
import secrets
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import FleetError, is_supervised, read_record

HOST = "127.0.0.1"
LONGEST_ANSWER_SECONDS = 180.0
"""A start is answered when the service is ready, a stop when it has drained."""

Request = dict[str, Any]
Answer = dict[str, Any]


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
        key = secrets.token_bytes(24)
        self.key = key.hex()
        self.errands: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        self._listener = Listener((HOST, 0), authkey=key)
        address = self._listener.address
        assert isinstance(address, tuple)
        self.port = int(address[1])
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (AuthenticationError, OSError, EOFError):
                continue  # a stranger, or one who gave up
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection[Any, Any]) -> None:
        with connection:
            try:
                errand = Errand(json.loads(connection.recv_bytes()))
                self.errands.put(errand)
                connection.send_bytes(json.dumps(errand.answer.result(LONGEST_ANSWER_SECONDS)).encode())
            except (OSError, EOFError, ValueError, TimeoutError):
                pass  # the asker went away; it will look what became of it


def ask(layout: Layout, request: Request) -> Answer:
    """Send a request to the folder's supervisor, wait for the answer. Raises NotRunning, Declined."""
    if not is_supervised(layout):
        raise NotRunning(f"nothing runs in {layout.folder}: `ingest up` starts a fleet, --dir names another folder")
    record = read_record(layout)
    if not record.control_port:
        raise NotRunning(f"the fleet in {layout.folder} is only just starting: try again in a moment")
    try:
        with Client((HOST, record.control_port), authkey=bytes.fromhex(record.control_key)) as connection:
            connection.send_bytes(json.dumps(request).encode())
            answer: Answer = json.loads(connection.recv_bytes())
    except (OSError, EOFError, ValueError, AuthenticationError) as error:
        raise NotRunning(f"the supervisor (process {record.supervisor_pid}) gave no answer: {error!r}") from error
    if "error" in answer:
        raise Declined(str(answer["error"]))
    return answer
