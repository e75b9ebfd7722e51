"""How one process asks another on this machine: a JSON request and a JSON answer per connection, on loopback, with a
key. Used by the keeper of a stack and by the supervisor of a fleet."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from devstack.server import HOST

Request = dict[str, Any]
Answer = dict[str, Any]


class Unanswered(Exception):
    """Nobody listens there, the key is another one, or the connection ended before the answer."""


class Channel:
    """Accepts requests in a daemon thread. `handle` runs in a thread of each connection and may take its time."""

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


def ask(port: int, key: str, request: Request) -> Answer:
    """Send a request, wait for the answer. Raises Unanswered."""
    try:
        with Client((HOST, port), authkey=bytes.fromhex(key)) as connection:
            connection.send_bytes(json.dumps(request).encode())
            answer: Answer = json.loads(connection.recv_bytes())
    except (OSError, EOFError, ValueError, AuthenticationError) as error:
        raise Unanswered(repr(error)) from error
    return answer
