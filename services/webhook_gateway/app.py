"""The application: the hot route bare, all else (OpenAPI, its pages, unknown paths) FastAPI's."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from services.webhook_gateway.endpoint import PATH, Endpoint, Receive, Scope, Send
from services.webhook_gateway.problems import Kind, Problem

_PROBLEM: Final = "application/problem+json"
_STORED: Final = {
    "type": "object",
    "required": ["event_id", "duplicate"],
    "properties": {"event_id": {"type": "string"}, "duplicate": {"type": "boolean"}},
}
_ITEMS: Final = {
    "type": "object",
    "required": ["accepted", "refused", "items"],
    "properties": {
        "accepted": {"type": "integer"},
        "refused": {"type": "integer"},
        "items": {"type": "array", "items": {"oneOf": [_STORED, {"$ref": "#/components/schemas/Problem"}]}},
    },
}


class _Direct(Response):
    """An endpoint's own answer."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(scope, receive, send)


def application(endpoint: Endpoint, *, bare: bool = True) -> Any:
    """-> the ASGI application. bare: the hot route does not pass through FastAPI."""
    api = FastAPI(title="Webhook gateway", version="1", description="Takes events from producers.", redoc_url=None)

    @api.post(
        PATH + "{source}",
        summary="Post one event",
        response_class=Response,
        status_code=202,
        responses=_answers(_STORED, Kind.BUSY, Kind.KEY_REUSED, Kind.IN_FLIGHT),
        openapi_extra=_takes(
            {"application/json": {"type": "object"}, "application/cloudevents+json": {"type": "object"}}
        ),
    )
    async def post_event(source: str, request: Request) -> Response:
        return _Direct(endpoint)

    @api.post(
        PATH + "{source}/batch",
        summary="Post many events; each has an answer of its own",
        response_class=Response,
        status_code=202,
        responses={**_answers(_ITEMS, Kind.BUSY), 207: _content("Some were refused", _ITEMS)},
        openapi_extra=_takes(
            {
                "application/json": {"type": "array"},
                "application/x-ndjson": {"type": "string"},
                "application/cloudevents-batch+json": {"type": "array"},
            }
        ),
    )
    async def post_batch(source: str, request: Request) -> Response:
        return _Direct(endpoint)

    @api.get(PATH + "{source}", summary="A handshake, where the source has one", response_class=Response)
    async def get_handshake(source: str, request: Request) -> Response:
        return _Direct(endpoint)

    @api.exception_handler(HTTPException)
    async def problem(request: Request, error: HTTPException) -> Response:
        kind = Kind.METHOD if error.status_code == 405 else Kind.NOT_FOUND
        return Response(Problem(kind).body(), kind.status, dict(error.headers or {}), _PROBLEM)

    _describe_problems(api)
    if not bare:
        return api

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PATH):
            await endpoint(scope, receive, send)
        else:
            await api(scope, receive, send)

    return app


def _takes(bodies: dict[str, dict[str, str]]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {name: {"schema": s} for name, s in bodies.items()}}}


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _answers(schema: dict[str, Any], *more: Kind) -> dict[int | str, Any]:
    usual = (Kind.INVALID_JSON, Kind.UNAUTHORIZED, Kind.TIMEOUT, Kind.TOO_LARGE, Kind.MEDIA_TYPE, Kind.RATE_LIMITED)
    told: dict[int | str, Any] = {202: _content("Kafka has it, on all in-sync replicas", schema)}
    for kind in (*usual, *more):
        content = {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        told[kind.status] = {"description": kind.value.title, "content": content}
    return told


def _describe_problems(api: FastAPI) -> None:
    made = api.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        properties = {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "retry": {"type": "boolean"},
        }
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = {"type": "object", "required": list(properties), "properties": properties}
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None) if "batch" in operation["operationId"] else None
        return document

    api.openapi = openapi  # type: ignore[method-assign]
