"""From nothing to a running fleet: servers, buckets, topics, configuration, processes. And back."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import devstack
from devstack.stack import last_record
from ingestcore.datasets import publish
from ingestcore.datasets.config_file import Config, load
from ingestcore.datasets.registry import Registry
from ingestcore.datasets.secrets import SecretMissing, Unusable, resolve_spec
from ingestcore.fleet.front import PORT, Front, open_front
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import fleet_lock
from ingestcore.fleet.servers import (
    buckets_of,
    given_servers,
    platform_of,
    quiet,
    reaching,
    wanted_servers,
    with_embedded,
)
from ingestcore.fleet.supervisor import READY_TIMEOUT_SECONDS, Screen, StartFailed, Supervisor
from ingestcore.fleet.wanted import Wanted, wanted_processes
from ingestcore.observe.admin import LOOPBACK_NAMES
from ingestcore.runtime.service import Service, discover
from ingestcore.settings import Platform
from ingestcore.stage import Retriable

SERVERS_TIMEOUT_SECONDS = 60.0
"""How long `up` waits for servers that the environment names before it gives up."""
KILL_GRACE_SECONDS = 5.0
"""Beyond the drain deadline that the services keep themselves."""
_RETRY_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What `ingest up` was asked. `folder`: of the fleet; `replicas` by service or sink, 1 unless given; `composed`:
    services that share a process, joined by `+`; `port`: where health and metrics of all processes are served."""

    folder: Path
    files: tuple[Path, ...] = ()
    replicas: Mapping[str, int] = field(default_factory=dict)
    rekey: bool = False
    composed: tuple[str, ...] = ()
    port: int = PORT
    ready_timeout_seconds: float = READY_TIMEOUT_SECONDS

    def encode(self) -> str:
        """-> JSON text for the detached process."""
        plain = {"folder": str(self.folder), "files": [str(path.absolute()) for path in self.files]}
        rest = {
            "replicas": dict(self.replicas),
            "rekey": self.rekey,
            "composed": self.composed,
            "port": self.port,
            "timeout": self.ready_timeout_seconds,
        }
        return json.dumps({**plain, **rest})

    @classmethod
    def decode(cls, text: str) -> Options:
        raw = json.loads(text)
        files = tuple(Path(path) for path in raw["files"])
        rest = raw["replicas"], raw["rekey"], tuple(raw["composed"]), raw["port"], raw["timeout"]
        return cls(Path(raw["folder"]), files, *rest)


def run(options: Options, screen: Screen) -> None:
    """Bring a fleet up and stay until SIGTERM, SIGINT or `ingest down`; everything is stopped then.

    Raises ConfigError, AlreadyRunning, StackError, Unpublishable, StartFailed, UnknownService, KeyboardInterrupt.
    """
    services = discover()
    config = load(options.files, {name: service.settings for name, service in services.items()})
    check_references(config)
    layout = Layout.of(options.folder)
    layout.make()
    with _signals_interrupt(), fleet_lock(layout), _servers(layout, config, screen) as (stack, reachable):
        platform = quiet(platform_of(reaching(os.environ, reachable)))
        registry = _prepare(platform, config, options, screen)
        supervisor = _supervisor(layout, options, services, config, platform, reachable, registry, stack, screen)
        with _signals_stop(supervisor), _served(supervisor, platform, options.port, screen):
            supervisor.run()


@contextmanager
def _served(supervisor: Supervisor, platform: Platform, port: int, screen: Screen) -> Iterator[None]:
    """Health, metrics and admin of all processes on one port."""
    host = platform.admin_host
    token = platform.admin_token.get_secret_value() if platform.admin_token else None
    front = Front(lambda: supervisor.snapshot, supervisor.begin_drained, token)
    try:
        server = open_front(front, host, port, token, screen.progress)
    except OSError as error:
        raise StartFailed(f"admin host {host}: {error.strerror or error}", configuration=True) from error
    url = f"http://{'127.0.0.1' if host in ('', '0.0.0.0') else host}:{server.server_port}"
    supervisor.is_served_at(url)
    screen.progress(f"health, metrics and admin of all processes: {url}")
    if token is None and host not in LOOPBACK_NAMES:
        screen.progress("anybody who reaches that port may drain the fleet: set INGEST_ADMIN_TOKEN")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def check_references(config: Config) -> None:
    """The services run here, with this environment. Raises SecretMissing."""
    for section, specs in (("sources", config.sources), ("sinks", config.sinks)):
        for name, spec in specs.items():
            try:
                resolve_spec(spec, with_embedded(os.environ))
            except Unusable:
                continue  # whoever needs it says so, and the others work
            except SecretMissing as error:
                raise SecretMissing(f"{section}.{name}: {error}") from None


@contextmanager
def _servers(layout: Layout, config: Config, screen: Screen) -> Iterator[tuple[devstack.Stack | None, dict[str, str]]]:
    """-> the embedded stack, if one is needed, and the variables that reach all servers."""
    last = last_record(layout.stack)
    given = given_servers(os.environ, last.local)
    missing = tuple(name for name in wanted_servers(config, last.ports) if name not in given)
    reachable = {name: value for variables in given.values() for name, value in variables.items()}
    if not missing:
        yield None, reachable
        return
    screen.progress(f"starting {', '.join(missing)}")
    with devstack.start(layout.stack, servers=missing, on_progress=screen.progress) as stack:
        yield stack, {**stack.endpoints.environ(), **reachable}


def _prepare(platform: Platform, config: Config, options: Options, screen: Screen) -> Registry:
    """Topics and configuration. -> a registry that follows `ingest.config`."""
    from ingestcore.kafka import admin, config_topic

    made = _patiently(lambda: admin.create_topics(platform), screen)
    screen.progress(f"topics: {len(made)} created" if made else "topics: all there")
    in_force = _patiently(lambda: config_topic.read(platform), screen)
    # Without files what is applied stays in force, and only what a fleet can't do without is added.
    changes = publish.to_write(
        publish.plan(config, in_force, default_sink_uri=default_sink_uri(os.environ), rekey=options.rekey)
    )
    _patiently(lambda: config_topic.bring_into_force(platform, in_force, changes), screen)
    screen.progress(f"configuration: {', '.join(change.key for change in changes) or 'unchanged'}")
    return config_topic.Follower(platform).start()


def default_sink_uri(environ: Mapping[str, str]) -> str:
    """-> where the sink goes that is made when no file names one."""
    return environ.get("INGEST_DEFAULT_SINK_URI") or publish.DEFAULT_SINK_URI


def _supervisor(
    layout: Layout,
    options: Options,
    services: Mapping[str, Service],
    config: Config,
    platform: Platform,
    reachable: Mapping[str, str],
    registry: Registry,
    stack: devstack.Stack | None,
    screen: Screen,
) -> Supervisor:
    seen = _Buckets(stack, registry, screen)

    def wanted() -> list[Wanted]:
        seen.create()
        return wanted_processes(services, registry.sources(), registry.sinks(), options.replicas, options.composed)

    screen.progress(f"starting {len(wanted())} service processes")
    return Supervisor(
        layout,
        wanted=wanted,
        command=run_command,
        environment=service_environment(layout, config, reaching(os.environ, reachable)),
        endpoints=reachable,
        screen=screen,
        kill_after_seconds=platform.drain_seconds + KILL_GRACE_SECONDS,
        ready_timeout_seconds=options.ready_timeout_seconds,
    )


def run_command(wanted: Wanted) -> Sequence[str]:
    """-> the command line of one service process."""
    sink = ("--sink", wanted.sink) if wanted.sink else ()
    return (sys.executable, "-m", "ingestcore.cli.main", "run", wanted.service, "--replica", wanted.replica, *sink)


_MALLOC: Final = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}
"""For glibc: blocks of some MiB come and go all the time. Mapped anew each time they cost page faults, kept by an arena
per thread they cost memory."""


def service_environment(layout: Layout, config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """-> environment of the processes. What the operator has set wins over the files. Admin ports are free ones:
    many processes share the machine; the one the operator knows serves them all together."""
    return {
        **_MALLOC,
        "INGEST_STATE_DIR": str(layout.state),
        **config.environment(),
        **environ,
        "INGEST_ADMIN_HOST": "127.0.0.1",
        "INGEST_ADMIN_PORT": "0",
    }


class _Buckets:
    """Creates buckets on the embedded S3 as the configuration comes to name them; never anywhere else."""

    def __init__(self, stack: devstack.Stack | None, registry: Registry, screen: Screen) -> None:
        embedded = stack is not None and stack.endpoints.s3 != ""
        self._stack = stack if embedded else None
        self._registry, self._screen = registry, screen
        self._made: set[str] = set()
        self._revision = -1

    def create(self) -> None:
        if self._stack is None or self._revision == self._registry.revision:
            return
        self._revision = self._registry.revision
        for bucket in sorted(buckets_of(self._registry, os.environ) - self._made):
            try:
                self._stack.create_bucket(bucket)
            except devstack.StackError as error:
                self._screen.news(f"bucket {bucket}: {error}")
                continue
            self._made.add(bucket)


def _patiently(call: Callable[[], T], screen: Screen) -> T:
    """Call until the servers answer; say once what is awaited. Raises StartFailed after a minute."""
    deadline = time.monotonic() + SERVERS_TIMEOUT_SECONDS
    told = ""
    while True:
        try:
            return call()
        except Retriable as error:
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"gave up after {SERVERS_TIMEOUT_SECONDS:g} s: {error}", configuration=False
                ) from error
            if str(error) != told:
                told = str(error)
                screen.progress(f"waiting: {told}")
            time.sleep(_RETRY_SECONDS)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """While starting, SIGTERM and a closed terminal end it like Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _handlers(interrupt):
        yield


@contextmanager
def _signals_stop(supervisor: Supervisor) -> Iterator[None]:
    with _handlers(lambda *_: supervisor.stop()):
        yield


@contextmanager
def _handlers(handler: Callable[..., object]) -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
