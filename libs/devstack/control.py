"""How others talk to a keeper: a JSON request and a JSON answer per connection, on loopback, with a key."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from devstack.record import Record
from devstack.server import HOST, StackError

LEAVE = "leave"  # a line on a detached keeper's stdin: its starter has no more say

Request = dict[str, Any]
Answer = dict[str, Any]


class ControlListener:
    """Accepts requests in a daemon thread; `handle` runs there, one request at a time per connection."""

    def __init__(self, handle: Callable[[Request], Answer]) -> None:
        key = secrets.token_bytes(24)
        self.key = key.hex()
        self._handle = handle
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
                request = json.loads(connection.recv_bytes())
                connection.send_bytes(json.dumps(self._handle(request)).encode())
            except (OSError, EOFError, ValueError):
                pass  # the asker went away; what it asked for was done or not, it will look


def ask(record: Record, request: Request) -> Answer:
    """Send a request to the keeper of a record. Raises StackError when it is gone or says no."""
    try:
        with Client((HOST, record.control_port), authkey=bytes.fromhex(record.control_key)) as connection:
            connection.send_bytes(json.dumps(request).encode())
            answer: Answer = json.loads(connection.recv_bytes())
    except (OSError, EOFError, ValueError, AuthenticationError) as error:
        raise StackError(f"the stack's keeper (process {record.keeper_pid}) does not answer: {error!r}") from error
    if "error" in answer:
        raise StackError(str(answer["error"]))
    return answer
