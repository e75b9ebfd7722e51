"""One port for a whole fleet: health and metrics of all its processes together, drain and resume for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any, Final

from ingestcore.fleet import merging
from ingestcore.fleet.calls import Reply, answer
from ingestcore.fleet.merging import Said, label_of
from ingestcore.fleet.record import Phase, Row
from ingestcore.observe import admin
from ingestcore.observe.admin import Answer

PORT: Final = 8080
"""The one the runbooks type."""
_LOOK_SECONDS: Final = 2.0
"""For one process; a frozen one must not hold up what the others say."""
_THREADS: Final = 16


class Front:
    """The answers of a fleet.

    rows   its processes as they are now; called from many threads
    begin  told whether processes that are started from now on begin drained
    token  of the services' own ports, which ask for the same as this one
    """

    def __init__(
        self, rows: Callable[[], Sequence[Row]], begin: Callable[[bool], None], token: str | None = None
    ) -> None:
        self._rows, self._begin, self._token = rows, begin, token
        self._calls = ThreadPoolExecutor(_THREADS, thread_name_prefix="front")
        self._acting = threading.Lock()

    def ready(self) -> Answer:
        """Whether every process is, except those an operator has stopped."""
        late = {label_of(row): row.state.value for row in self._rows() if row.state not in _AS_WANTED}
        if late:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not ready", "services": late})
        return Answer(HTTPStatus.OK, {"status": "ready"})

    def detailed(self) -> Mapping[str, Any]:
        return merging.health(self._said())

    def metrics(self) -> bytes:
        replies = self._ask("GET", "/metrics")
        return merging.metrics(
            (row, reply.body.decode() if reply is not None and reply.status == HTTPStatus.OK else None)
            for row, reply in replies
        )

    def drain(self) -> Answer:
        return self._act("/admin/drain", drained=True)

    def resume(self) -> Answer:
        return self._act("/admin/resume", drained=False)

    def _said(self) -> list[Said]:
        replies = self._ask("GET", "/health/detailed")
        return [Said(row, None if reply is None else reply.told()) for row, reply in replies]

    def _act(self, path: str, *, drained: bool) -> Answer:
        """Tell all processes. 502 where one that runs did not do it: the others have."""
        with self._acting:
            self._begin(drained)
            replies = self._ask("POST", path)
        failed = {
            label_of(row): "no answer" if reply is None else f"status {reply.status}"
            for row, reply in replies
            if row.pid and (reply is None or reply.status != HTTPStatus.OK)
        }
        told: dict[str, Any] = {"backpressure": merging.backpressure(self._said())}
        if failed:
            detail = f"{path} did not reach {', '.join(failed)}: call it again, or look at `ingest status`"
            return Answer(HTTPStatus.BAD_GATEWAY, {"detail": detail, "failed": failed, **told})
        return Answer(HTTPStatus.OK, told)

    def _ask(self, method: str, path: str) -> list[tuple[Row, Reply | None]]:
        """-> every process and what it answered."""
        rows = list(self._rows())
        return list(zip(rows, self._calls.map(lambda row: self._reply(row, method, path), rows), strict=True))

    def _reply(self, row: Row, method: str, path: str) -> Reply | None:
        return answer(row.admin_port, path, _LOOK_SECONDS, method=method, token=self._token)


_AS_WANTED: Final = (Phase.READY, Phase.STOPPED)


def open_front(
    front: Front, host: str, port: int, token: str | None, say: Callable[[str], None]
) -> ThreadingHTTPServer:
    """Serve on the port; where it is taken, say so and take any free one. Raises OSError: no such address."""
    try:
        return admin.serve(host, port, front, token)
    except OSError as error:
        server = admin.serve(host, 0, front, token)
        say(f"port {port} of {host}: {error.strerror or error}; port {server.server_port} instead (--port chooses one)")
        return server
