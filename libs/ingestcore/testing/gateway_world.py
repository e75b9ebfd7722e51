"""A running gateway for tests, with topics and sources of its own: post to it, see what came into `events`."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from ingestcore.datasets.http_source import Auth
from ingestcore.datasets.webhook_signing import proof
from ingestcore.kafka import admin
from ingestcore.kafka.config_topic import publish
from ingestcore.kafka.reading import read_all
from ingestcore.messages.events import Event
from ingestcore.settings import Platform
from ingestcore.testing.one_service import OneService
from ingestcore.testing.producers import Client

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD = {"scheme": "standard-webhooks", "secrets": [SECRET]}


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: Message

    @property
    def told(self) -> Any:
        return json.loads(self.body)


class GatewayWorld:
    """sources: values of SourceSpec by name."""

    def __init__(self, platform: Platform, folder: Path, sources: Mapping[str, Any], **environ: str) -> None:
        self.platform, self.sources = platform, dict(sources)
        admin.create_topics(platform)
        self.apply(sources)
        settings = {
            "INGEST_TOPIC_PREFIX": platform.topic_prefix,
            "INGEST_PARTITIONS": str(platform.partitions),
            "INGEST_STATE_DIR": str(platform.state_dir),
            "INGEST_KAFKA_BOOTSTRAP": platform.kafka_bootstrap,
            "INGEST_WEBHOOK_GATEWAY_PORT": "0",
            **environ,
        }
        self.service = OneService.named(folder, settings, "webhook-gateway")

    def apply(self, sources: Mapping[str, Any]) -> None:
        self.sources |= sources
        records = [SimpleNamespace(key=f"dataset/{name}@1", value=b"{}") for name in sources]
        records += [SimpleNamespace(key=f"dataset/{name}", value=b'{"version": 1}') for name in sources]
        records += [SimpleNamespace(key=f"source/{n}", value=json.dumps(spec).encode()) for n, spec in sources.items()]
        publish(self.platform, records)

    def start(self) -> None:
        self.service.start()
        self.service.wait_until("ready")

    def stop(self) -> None:
        self.service.stop()

    def beside(self, folder: Path) -> GatewayWorld:
        """-> another replica, not started."""
        other = GatewayWorld.__new__(GatewayWorld)
        other.platform, other.sources = self.platform, self.sources
        environ = {**self.service.environ, "INGEST_REPLICA": "1"}
        other.service = OneService.named(folder, environ, "webhook-gateway")
        return other

    async def post_all(
        self,
        posts: Sequence[tuple[str, bytes, Mapping[str, str]]],
        concurrency: int,
        answered: Callable[[int], None] = lambda count: None,
    ) -> list[tuple[int, bytes]]:
        """(source, body, headers) each -> status and body in the same order; 0: the connection broke.

        answered  called after each answer, with how many there were
        """
        told: list[tuple[int, bytes]] = [(0, b"")] * len(posts)
        left = iter(enumerate(posts))
        port, count = self.port(), itertools.count(1)

        async def producer() -> None:
            client = Client(port)
            for number, (source, body, headers) in left:
                reply = await client.post(source, body, headers)
                told[number] = reply.status, reply.body
                answered(next(count))
            client.close()

        await asyncio.gather(*(producer() for _ in range(concurrency)))
        return told

    @property
    def root(self) -> str:
        """-> http://127.0.0.1:port"""
        adapters = self.service.health()["adapters"]
        return str(next(iter(adapters.values()))["url"]).partition("/v1/")[0]

    def port(self) -> int:
        return int(self.root.rpartition(":")[2])

    def signed(self, source: str, body: bytes, id: str, now: float | None = None) -> dict[str, str]:
        auth = Auth.model_validate(self.sources[source]["http"]["auth"])
        return proof(auth, body, id=id, now=time.time() if now is None else now)

    def send(self, source: str, body: bytes, id: str, path: str = "", **headers: str) -> Reply:
        """Sign and post. headers: with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.post(f"{source}{path}", body, {**self.signed(source, body, id), **named})

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None, method: str = "POST") -> Reply:
        """path: below /v1/webhooks/."""
        given = {"Content-Type": "application/json", **(headers or {})}
        data = None if method == "GET" else body
        request = urllib.request.Request(f"{self.root}/v1/webhooks/{path}", data, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Reply(answer.status, answer.read(), answer.headers)
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read(), error.headers)

    def events(self) -> Sequence[Event]:
        """-> all that are in Kafka."""
        return [Event.of(record.value, record.headers) for record in read_all(self.platform, "events")]

    def metrics(self) -> str:
        return self._admin("/metrics", None)

    def act(self, wish: str) -> None:
        """`drain` or `resume`."""
        self._admin(f"/admin/{wish}", b"")

    def _admin(self, path: str, body: bytes | None) -> str:
        port = json.loads((Path(self.service.environ["INGEST_RUN_FILE"])).read_text())["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=5) as answer:
            return str(answer.read().decode())


def own_platform(folder: Path, **settings: Any) -> Platform:
    """-> settings with topics of their own."""
    prefix = f"gw{os.getpid()}x{time.time_ns() % 10**9}."
    own = {"topic_prefix": prefix, "partitions": 2, "state_dir": folder / "state"}
    return Platform.model_validate(own | settings)
