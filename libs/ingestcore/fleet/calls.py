"""HTTP calls to the admin ports of service processes on this machine."""

from __future__ import annotations

import http.client
import json
from typing import Any, NamedTuple

LOOPBACK = "127.0.0.1"


class Reply(NamedTuple):
    """body: as sent."""

    status: int
    body: bytes

    def told(self) -> dict[str, Any]:
        """-> the JSON object in the body, an empty one where there is none."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}


class Silent(Exception):
    """The process did not answer in time, or not at all."""


def call(port: int, path: str, timeout_seconds: float, *, method: str = "GET", token: str | None = None) -> Reply:
    """Raises Silent."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_seconds)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return Reply(response.status, response.read())
    except (OSError, http.client.HTTPException) as error:
        raise Silent(f"port {port}: {error!r}") from error
    finally:
        connection.close()


def answer(
    port: int, path: str, timeout_seconds: float, *, method: str = "GET", token: str | None = None
) -> Reply | None:
    """-> None: the process did not answer, or has no port yet (0)."""
    try:
        return call(port, path, timeout_seconds, method=method, token=token) if port else None
    except Silent:
        return None
