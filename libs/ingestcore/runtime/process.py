"""One service as a process: settings, logs, admin port, waits for what it needs, runs, drains, exit code."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog
from pydantic import ValidationError

from ingestcore.datasets.registry import Registry
from ingestcore.datasets.spec import S3Access
from ingestcore.observe import admin, logs
from ingestcore.observe.health import Health
from ingestcore.observe.metrics import Metrics
from ingestcore.observe.traces import Tracing, open_tracing
from ingestcore.runtime.service import Context, Receiver, Service, discover
from ingestcore.runtime.spans import OtelSpans, Spans
from ingestcore.runtime.trouble import in_words, is_full, no_room
from ingestcore.settings import Platform, replica_of
from ingestcore.stage import Fenced, Gap, NewerFormat, OperatorNeeded, Retriable, Stateless, Unbalanced
from ingestcore.stores.objects import ObjectStore, Unavailable
from ingestcore.topics import topic_name

log = structlog.get_logger(__name__)

EXIT_FAILED = 1
"""It did not work this time: worth another start."""
EXIT_CONFIGURATION = 2
"""Only an operator can mend it: not worth a restart."""
EXIT_STOPPED = 3
"""A gap, an unbalanced step or a newer format: stopped so that nothing is lost."""
EXIT_FENCED = 4
"""Another process does this work."""

_COMPOSED = "chunk-downloader+csv-parser"
_LOOK_SECONDS = 1.0
_T = TypeVar("_T")


class Misconfigured(OperatorNeeded):
    """Settings or arguments."""


def run_service(
    name: str, *, replica: str | None = None, instance: str | None = None, environ: Mapping[str, str] | None = None
) -> int:
    """Run the service of this name until SIGTERM or SIGINT. -> exit code.

    name       a service, or two joined by `+`: the second takes what the first emits, without the topic between them
    instance   the sink, for services that run once per sink
    environ    takes the place of this process's environment
    """
    if environ is not None:
        os.environ.clear()
        os.environ.update(environ)
    try:
        service, inner = _find(name, instance)
    except Misconfigured as error:
        print(f"ingest {name}: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    return serve(service, inner, replica=replica, instance=instance)


def serve(
    service: Service, inner: Service | None = None, *, replica: str | None = None, instance: str | None = None
) -> int:
    """`run_service` of a service at hand; `inner` takes what it emits."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        platform = _settings(Platform, replica=replica or replica_of())
        settings = _settings(service.settings)
        who = instance or service.name
        logs.configure(platform.log_level, platform.log_format, service=who, replica=platform.replica)
    except (OperatorNeeded, ValueError) as error:
        print(f"ingest {service.name}: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    health, metrics = Health(drain=platform.start_drained), Metrics(platform.metrics_label_sets)
    try:
        _serve_admin(platform, admin.OneService(health, metrics, who))
        tracing = open_tracing(os.environ, who, platform.replica)
        try:
            return _Process(service, inner, who, platform, settings, health, metrics, stop, tracing).run()
        finally:
            if tracing:
                tracing.close()
    except (OperatorNeeded, ValueError) as error:
        return _fail(health, str(error), EXIT_CONFIGURATION)
    except (Gap, Unbalanced, NewerFormat) as error:
        return _fail(health, f"{type(error).__name__}: {error}", EXIT_STOPPED)
    except Fenced as error:
        return _fail(health, str(error), EXIT_FENCED)
    except OSError as error:
        return _fail(health, in_words(error, platform.state_dir), EXIT_FAILED)


def _find(name: str, instance: str | None) -> tuple[Service, Service | None]:
    services = discover()
    names = name.split("+")
    unknown = [part for part in names if part not in services]
    if unknown:
        raise Misconfigured(f"no such service; there are: {', '.join(sorted(services))}")
    service, *rest = (services[part] for part in names)
    if service.per == "sink" and not instance:
        raise Misconfigured("runs once per sink: say which (--sink NAME)")
    if len(rest) > 1:
        raise Misconfigured("two services can share a process, not more")
    for inner in rest:
        if service.consumes is None or inner.consumes not in service.produces or inner.per:
            raise Misconfigured(f"{inner.name} can't take over from {service.name}: write e.g. {_COMPOSED}")
    return service, (rest[0] if rest else None)


def _settings(kind: type[_T], **given: Any) -> _T:
    try:
        return kind(**given)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise Misconfigured("settings: " + "; ".join(lines)) from error


def _serve_admin(platform: Platform, answers: admin.OneService) -> None:
    try:
        token = platform.admin_token.get_secret_value() if platform.admin_token else None
        server = admin.serve(platform.admin_host, platform.admin_port, answers, token)
    except OSError as error:
        raise Misconfigured(f"admin port {platform.admin_host}:{platform.admin_port}: {error.strerror}") from error
    if token is None and platform.admin_host not in admin.LOOPBACK_NAMES:
        log.warning(
            "anybody who reaches this port may drain the service: set INGEST_ADMIN_TOKEN", port=server.server_port
        )
    run_file = os.environ.get("INGEST_RUN_FILE")
    if run_file:
        _tell(Path(run_file), server.server_port)


def _tell(run_file: Path, port: int) -> None:
    """Raises OSError."""
    run_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = run_file.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps({"pid": os.getpid(), "port": port}))
    temporary.replace(run_file)


def _fail(health: Health, message: str, code: int) -> int:
    health.failed(message)
    return code


class _Process:
    """The parts of a running service, put together once Kafka answers."""

    def __init__(
        self,
        service: Service,
        inner: Service | None,
        instance: str,
        platform: Platform,
        settings: Any,
        health: Health,
        metrics: Metrics,
        stop: threading.Event,
        tracing: Tracing | None,
    ) -> None:
        self._service, self._inner, self._instance = service, inner, instance
        self._platform, self._settings, self._tracing = platform, settings, tracing
        self._health, self._metrics, self._stop = health, metrics, stop

    def run(self) -> int:
        from ingestcore.kafka.config_topic import Follower
        from ingestcore.kafka.transactions import Transactions
        from ingestcore.runtime.access import Topics

        follower = Follower(self._platform, os.environ)
        try:
            state = self._when_ready(self._own_state_folder)
            self._when_ready(self._check_topics)
            specs = self._when_ready(follower.start)
            consumes = self._when_ready(lambda: self._input_topic(specs))
            group = self._platform.group(self._instance)
            transactions = Transactions(self._platform, f"{group}-{self._platform.replica}")
            topics = Topics(self._platform, transactions)
            context = Context(
                self._platform, self._settings, self._instance, specs, topics, self._metrics, state, self._open_store
            )
            built = self._when_ready(lambda: self._service.build(context))
            inner = self._build_inner(context) if self._inner else None
            # What was loaded and built stays: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            details = getattr(built, "status", None)
            if details and not self._service.listens:
                self._health.explain(self._service.name, details)
            breaker = getattr(built, "circuit_open", None)
            if breaker:
                self._health.watch_breaker(breaker)
            if self._service.listens:
                self._run_receiver(built)
            elif consumes is None:
                self._run_sources(built, specs)
            else:
                self._run_stage(built, inner, consumes, topics, transactions)
        except _Stopped:
            pass
        finally:
            follower.stop()
        log.info("ended")
        return 0

    def _build_inner(self, outer: Context) -> Any:
        """Raises Misconfigured: it is no plain map."""
        from ingestcore.runtime.gauges import StageGauges
        from ingestcore.runtime.inner import Inner

        assert self._inner is not None and self._inner.consumes is not None
        context = replace(outer, settings=_settings(self._inner.settings), instance=self._inner.name)
        stage = self._inner.build(context)
        if not isinstance(stage, Stateless):
            raise Misconfigured(f"{self._inner.name} keeps state: it needs a process of its own")
        gauges = StageGauges(self._metrics, self._inner.name)
        return Inner(stage, self._inner.name, self._inner.consumes, self._platform.replica, gauges)

    def _run_stage(self, stage: Any, inner: Any, consumes: str, topics: Any, transactions: Any) -> None:
        from ingestcore.runtime.gauges import StageGauges
        from ingestcore.runtime.loop import StageRunner

        gauges = StageGauges(self._metrics, self._instance)
        self._health.explain("adapters", gauges.adapters)
        self._health.explain("progress", gauges.progress)
        StageRunner(
            stage,
            service=self._service.name,
            instance=self._instance,
            consumes=consumes,
            platform=self._platform,
            topics=topics,
            transactions=transactions,
            gauges=gauges,
            health=self._health,
            stop=self._stop,
            inner=inner,
            spans=self._spans(topic_name(self._platform.topic_prefix, consumes)),
        ).run()

    def _spans(self, topic: str) -> Spans:
        return OtelSpans(self._tracing.tracer, self._service.name, topic) if self._tracing else Spans()

    def _run_receiver(self, receiver: Receiver) -> None:
        self._health.explain("adapters", receiver.status)
        receiver.run(self._health, self._stop)

    def _run_sources(self, open_source: Any, specs: Registry) -> None:
        from ingestcore.runtime.source import SourceRunner

        SourceRunner(
            open_source,
            service=self._service.name,
            own=self._service.sources,
            takes=self._service.takes,
            platform=self._platform,
            specs=specs,
            metrics=self._metrics,
            health=self._health,
            stop=self._stop,
            spans=self._spans(""),
        ).run()

    def _check_topics(self) -> None:
        from ingestcore.kafka.admin import check_topics

        used = {"config", "ledger", "dlq", *self._service.produces}
        if self._inner:
            used |= set(self._inner.produces)
        if self._service.consumes:
            used.add(self._service.consumes)
        check_topics(self._platform, tuple(sorted(used)))

    def _input_topic(self, specs: Registry) -> str | None:
        """A sink's spec says what it reads."""
        if self._service.per != "sink":
            return self._service.consumes
        return specs.sink(self._instance).from_

    def _own_state_folder(self) -> Path:
        """This replica's own folder. The lock is held by the process: it goes with it, however it ends."""
        from ingestcore.stores.temp import sweep

        folder = self._platform.state_dir / f"{self._instance}-{self._platform.replica}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / ".lock", "w")  # noqa: SIM115 - held for as long as the process lives
        except OSError as error:
            if is_full(error):
                raise no_room(error, folder) from error
            raise Misconfigured(
                f"{folder}: {error.strerror}: mend it, or name another folder (INGEST_STATE_DIR)"
            ) from error
        deadline = time.monotonic() + 5
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline or self._stop.is_set():
                    raise Fenced(
                        f"{folder} is in use by another process: two replicas need two replica ids (INGEST_REPLICA)"
                    ) from error
                time.sleep(0.1)
        sweep(self._platform.state_dir, self._platform.temp_max_age_seconds)
        return folder

    def _open_store(self, spec: S3Access | None) -> ObjectStore:
        from ingestcore.stores.s3 import open_store
        from ingestcore.stores.s3_role import role_of

        return open_store(
            endpoint_url=(spec.endpoint_url if spec else None) or self._platform.s3_endpoint_url,
            region=spec.region if spec else None,
            path_style=spec.path_style if spec else None,
            access_key_id=spec.access_key_id if spec else None,
            secret_access_key=spec.secret_access_key if spec else None,
            role=role_of(spec, self._instance),
            on_retry=self._count_retry,
        )

    def _count_retry(self, error: Unavailable) -> None:
        self._metrics.count("ingest_retry_total", stage=self._instance, reason=error.reason)
        if error.throttled:
            self._health.throttled()

    def _when_ready(self, call: Any) -> Any:
        """Call until what it needs is there; say once what is awaited. Raises _Stopped."""
        while not self._stop.is_set():
            try:
                return call()
            except Retriable as error:
                self._health.waiting(str(error))
                self._stop.wait(_LOOK_SECONDS)
        raise _Stopped


class _Stopped(Exception):
    """Asked to end while still waiting."""
