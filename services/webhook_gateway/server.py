"""The gateway as a running process: listens, follows its sources, tells health, drains."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Iterator, Mapping
from threading import Event
from typing import Any, Final

import structlog
import uvicorn
import uvloop

from ingestcore.datasets.secrets import resolve
from ingestcore.kafka.deliveries import Deliveries
from ingestcore.observe.health import Health
from ingestcore.runtime.service import Context
from ingestcore.stage import OperatorNeeded
from ingestcore.stores.idempotency import Claims
from ingestcore.stores.quick_redis import QuickRedis
from ingestcore.stores.token_bucket import SharedBuckets
from services.webhook_gateway.app import application
from services.webhook_gateway.endpoint import PATH, Endpoint
from services.webhook_gateway.intake import Intake
from services.webhook_gateway.once import Once
from services.webhook_gateway.protocol import limited
from services.webhook_gateway.settings import GatewaySettings
from services.webhook_gateway.sources import Sources

log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 0.25
_BACKLOG: Final = 2048
_LEASE_MARGIN_SECONDS: Final = 5.0
"""A claim outlives the deadline for Kafka by this: only a crash leaves one behind."""
_COLLECT_AFTER: Final = 300_000
"""New containers that are still there until Python looks for circles among them: some ten thousand events on their
way."""
_REDIS_VARIABLES: Final = ("INGEST_REDIS_URL", "REDIS_URL")


class Gateway:
    """A `Receiver`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings: GatewaySettings = context.settings
        self._sources = Sources(context.specs)
        self._url = ""
        self._intake: Intake | None = None
        self._redis: QuickRedis | None = None

    def status(self) -> Mapping[str, Any]:
        redis = self._redis.trouble if self._redis else ""
        told: dict[str, dict[str, Any]] = {}
        for name, source in self._sources.known.items():
            told[name] = {"url": f"{self._url}{PATH}{name}", "waiting": source.broken}
            if redis:
                told[name]["without_redis"] = redis
        return told

    def run(self, health: Health, stop: Event) -> None:
        """Raises OperatorNeeded: the port is taken; Refused: the Redis URL is none."""
        listening = self._listen()
        host, port = listening.getsockname()[:2]
        self._url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(listening, health, stop))

    def _listen(self) -> socket.socket:
        settings = self._settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.share_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            made.bind((settings.host, settings.port))
        except OSError as error:
            made.close()
            raise OperatorNeeded(
                f"can't listen at {settings.host}:{settings.port} ({error.strerror}): free it, or choose another with "
                "INGEST_WEBHOOK_GATEWAY_PORT; replicas on one machine share it (INGEST_WEBHOOK_GATEWAY_SHARE_PORT=true)"
            ) from error
        return made

    async def _serve(self, listening: socket.socket, health: Health, stop: Event) -> None:
        settings, platform, metrics = self._settings, self._context.platform, self._context.metrics
        redis = self._redis = QuickRedis(self._redis_url(), settings.redis_seconds)
        deliveries = Deliveries(
            platform,
            "events",
            seconds=settings.ack_seconds,
            buffer_size=settings.buffer_size,
            interval_seconds=settings.batch_interval,
        )
        claims = Claims(redis, settings.ack_seconds + _LEASE_MARGIN_SECONDS)
        once = Once(settings, metrics, deliveries, claims)
        intake = self._intake = Intake(self._sources, settings, metrics, once, SharedBuckets(redis))
        endpoint = Endpoint(intake, settings, metrics, lambda name: self._sources.find(name) is not None)
        config = uvicorn.Config(
            application(endpoint, bare=not settings.through_fastapi),
            http=limited(settings),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=int(settings.keep_alive_seconds),
            timeout_graceful_shutdown=int(platform.drain_seconds),
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
        )
        server = _Server(config)
        metrics.at_scrape(lambda: metrics.set("ingest_webhook_in_flight", float(intake.in_flight)))
        following = asyncio.create_task(self._follow(server, intake, deliveries, health, stop))
        log.info("listening", url=self._url)
        # What was imported stays, and what a request makes goes with it: the collector need not look all the time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        try:
            await server.serve(sockets=[listening])
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            await deliveries.close(settings.ack_seconds)
            await intake.finish()
            await redis.close()

    async def _follow(
        self, server: uvicorn.Server, intake: Intake, deliveries: Deliveries, health: Health, stop: Event
    ) -> None:
        while not stop.is_set():
            intake.draining = health.asked_to_drain
            self._sources.all()  # a source that takes nothing is logged here, and said in `status`: others are served
            if deliveries.seems_down:
                health.waiting(deliveries.trouble or "Kafka does not answer")
                await deliveries.probe()
            else:
                health.ready()
            health.beat()
            busy = intake.in_flight
            health.in_flight(busy, drained=not busy)
            await asyncio.sleep(_LOOK_SECONDS)
        health.draining()
        server.should_exit = True

    def _redis_url(self) -> str:
        """What the environment says wins over files, as everywhere."""
        named = any(os.environ.get(name) for name in _REDIS_VARIABLES)
        written = None if named else self._settings.redis_url
        return resolve(written or self._context.platform.redis_url, os.environ)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the runtime's: it sets `stop`."""
        yield
