"""The bare ASGI side of `/v1/webhooks/...`: reads a request within its limits, writes the answer, counts it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

import structlog

from ingestcore.observe.metrics import Metrics
from services.webhook_gateway.cloud_events import BATCHED
from services.webhook_gateway.intake import Answer, Intake, Post
from services.webhook_gateway.problems import CONTENT_TYPE, Kind, Problem
from services.webhook_gateway.protocol import LATE
from services.webhook_gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PATH: Final = "/v1/webhooks/"
_BATCH: Final = "/batch"
_UNKNOWN: Final = "unknown"
_CLOSE: Final = ((b"connection", b"close"),)


class Gone(Exception):
    """The client went away before its request was complete."""


class Endpoint:
    """An ASGI application."""

    def __init__(
        self, intake: Intake, settings: GatewaySettings, metrics: Metrics, known: Callable[[str], bool]
    ) -> None:
        """known: whether there is such a source; others are counted together."""
        self._intake, self._settings, self._metrics, self._known = intake, settings, metrics, known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, batch = _named(scope["path"])
        try:
            answer = await self._answer(scope, receive, name, batch)
            outcome = (
                "duplicate" if answer.headers else "accepted" if answer.status == 202 else _OUTCOMES[answer.status]
            )
        except Problem as problem:
            answer = Answer(problem.kind.status, problem.body(), problem.all_headers(), CONTENT_TYPE)
            outcome = problem.kind.slug
            if problem.cause:
                log.debug("refused", source=name, outcome=outcome, cause=problem.cause)
        except Gone:
            self._metrics.count("ingest_webhook_requests_total", source=self._label(name), outcome="gone")
            return
        except Exception:
            log.exception("request failed", source=name)
            answer = Answer(500, Problem(Kind.INTERNAL).body(), (), CONTENT_TYPE)
            outcome = Kind.INTERNAL.slug
        self._metrics.count("ingest_webhook_requests_total", source=self._label(name), outcome=outcome)
        await _write(send, answer)

    def _label(self, name: str) -> str:
        return name if self._known(name) else _UNKNOWN

    async def _answer(self, scope: Scope, receive: Receive, name: str, batch: bool) -> Answer:
        if not name:
            raise Problem(Kind.NOT_FOUND)
        if scope["method"] == "GET" and not batch:
            return self._intake.willing(name, scope["query_string"])
        if scope["method"] != "POST":
            raise Problem(Kind.METHOD, headers=((b"allow", b"POST"),))
        headers = _joined(scope["headers"])
        batched = batch or headers.get(b"content-type", b"").lower().startswith(BATCHED.encode())
        limit = self._settings.max_batch_bytes if batched else self._settings.max_body_bytes
        body = await self._body(scope, receive, headers, limit)
        client = scope["client"]
        post = Post(name, headers, body, limit, client[0] if client else "")
        return await (self._intake.batch(post) if batch else self._intake.one(post))

    async def _body(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], limit: int) -> bytes:
        """Raises Problem, Gone."""
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body"):
                return b"".join((*parts, part)) if parts else part
            if LATE in scope:
                seconds = self._settings.body_seconds
                raise Problem(Kind.TIMEOUT, f"the body was not complete after {seconds:g} s", headers=_CLOSE)
            parts.append(part)


_OUTCOMES: Final = {200: "challenge", 207: "partly"}


def _too_large(limit: int) -> Problem:
    return Problem(Kind.TOO_LARGE, f"the body is more than {limit} bytes", headers=_CLOSE)


def _named(path: str) -> tuple[str, bool]:
    """-> source and whether a batch is meant; "": neither."""
    name = path.removeprefix(PATH)
    batch = name.endswith(_BATCH)
    name = name.removesuffix(_BATCH)
    return ("", False) if "/" in name or len(name) > 63 else (name, batch)


def _joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """-> by name; the values of one that came twice are joined, as RFC 9110 says."""
    named = dict(headers)
    if len(named) < len(headers):
        named = {}
        for name, value in headers:
            named[name] = named[name] + b"," + value if name in named else value
    return named


async def _write(send: Send, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    if answer.content_type.startswith(b"text/"):
        headers.append((b"x-content-type-options", b"nosniff"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
