"""A whole fleet for tests, driven the way an operator drives it: by the `ingest` command and Kafka's own tools."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml

from ingestcore.cli.looking.completeness import Completeness, Watch, groups_of, wait_until_idle
from ingestcore.cli.target import platform
from ingestcore.fleet.control import ask
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import Row, read_record
from ingestcore.kafka import admin, config_topic
from ingestcore.kafka.backlog import backlog
from ingestcore.runtime.service import discover
from ingestcore.settings import Platform
from ingestcore.stores.s3 import S3Store, open_store
from ingestcore.testing import lake

_COMMAND_SECONDS = 180.0
_POLL_SECONDS = 0.1
_SOON: Mapping[str, str] = {"lake": "2s", "dlq": "1s"}
"""A test waits for rows and letters; what each file costs does not matter to it."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where S3 is, from the variables that services read."""

    s3: str
    s3_access_key: str
    s3_secret_key: str
    s3_region: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Keys:
        names = ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
        return cls(*(environ.get(name, "") for name in names))


class LocalFleet:
    """One fleet with topics, folder and buckets of its own on servers that the environment names.

    folder         of the fleet; name: makes topics, buckets and sources its own
    environ        endpoints and settings, added to this process's environment
    tools          folder with `kafka-consumer-groups.sh`
    create_bucket  makes a bucket on the S3 server
    max_age        of its two sinks, `lake` and `dlq`
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        environ: Mapping[str, str],
        tools: Path,
        create_bucket: Callable[[str], None],
        *,
        max_age: Mapping[str, str] = _SOON,
    ) -> None:
        self.folder, self.name, self.tools, self._max_age = folder, name, tools, max_age
        self.bucket, self.out = f"{name}-in", f"{name}-out"
        self.uri = f"s3://{self.out}/"
        self._store: S3Store | None = None
        self._watch: Watch | None = None
        self._environ = {**environ, "INGEST_TOPIC_PREFIX": f"{name}."}
        for bucket in (self.bucket, self.out):
            create_bucket(bucket)

    # -- what an operator does
    def set(self, name: str, value: str) -> None:
        """Set a variable of the environment of its commands, and so of all it starts from now on."""
        self._environ[name] = value

    def up(self, config: Mapping[str, Any] | None = None, *options: str) -> None:
        """Start everything, with the fleet's two sinks beside what the configuration says."""
        sinks = {
            "lake": {"parquet": {"uri": self.uri, "max_age": self._max_age["lake"]}},
            "dlq": {"from": "dlq", "parquet": {"uri": self.uri, "max_age": self._max_age["dlq"]}},
        }
        files = [self._write("base", {"sinks": sinks})] + ([self._write("config", config)] if config else [])
        self.ingest("up", *map(str, files), "--detach", *options)

    def apply(self, config: Mapping[str, Any], *options: str) -> None:
        self.ingest("apply", str(self._write("applied", config)), *options)

    def down(self) -> None:
        self.ingest("down")

    def ingest(self, *arguments: str, exit_code: int = 0) -> str:
        """Run a command. -> its stdout. Raises AssertionError: another exit code."""
        done = self.ran(*arguments)
        assert done.returncode == exit_code, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def ran(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command, however it ends."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )

    def command(self, *arguments: str) -> list[str]:
        """-> `ingest ...` for this fleet, as words."""
        return [sys.executable, "-m", "ingestcore.cli.main", *arguments, "--dir", str(self.folder)]

    def reset(self, instance: str, topic: str, *how: str) -> None:
        """Move a group's offsets with Kafka's own tool; by default to the earliest. The members must be stopped."""
        settings = self.platform()
        done = subprocess.run(
            [
                str(self.tools / "kafka-consumer-groups.sh"),
                *("--group", settings.group(instance), "--topic", settings.topic_prefix + topic),
                *("--reset-offsets", *(how or ("--to-earliest",)), "--execute"),
            ],
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0 and "Error" not in done.stdout + done.stderr, done.stdout + done.stderr

    def source(self, **more: Any) -> dict[str, Any]:
        """-> a source over this fleet's bucket, for a configuration."""
        return {"s3": {"bucket": self.bucket, "prefix": "raw/", "poll_interval": "1s"}, **more}

    # -- harm
    def kill(self, label: str) -> int:
        """kill -9 a process by its label (`csv-parser-0`). -> its process id."""
        return self._signal(label, signal.SIGKILL)

    def freeze(self, label: str) -> int:
        return self._signal(label, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    def await_restart(self, label: str, old_pid: int, seconds: float = 60.0) -> None:
        """Wait until another process with this label is ready."""
        deadline = time.monotonic() + seconds
        while True:
            row = self.processes().get(label)
            if row is not None and row.pid not in (0, old_pid) and row.state == "ready":
                return
            assert time.monotonic() < deadline, f"{label} did not come back: {row}"
            time.sleep(_POLL_SECONDS)

    def url(self) -> str:
        """-> where health and metrics of all processes are served."""
        return read_record(Layout.of(self.folder)).admin_url

    def processes(self) -> dict[str, Row]:
        """-> every process by label."""
        layout = Layout.of(self.folder)
        rows = [Row(**row) for row in ask(layout, {"do": "status"})["services"]]
        return {f"{row.sink or row.service}-{row.replica}": row for row in rows}

    def _signal(self, label: str, number: int) -> int:
        pid = self.processes()[label].pid
        os.kill(pid, number)
        return pid

    # -- what goes in and what comes out
    def upload(self, key: str, data: bytes | Path) -> None:
        """Put an object below `raw/` of the source bucket."""
        if isinstance(data, Path):
            self.store().put_new(self.bucket, f"raw/{key}", data)
        else:
            self.store().put(self.bucket, f"raw/{key}", data)

    def store(self) -> S3Store:
        """-> the S3 server; the same client each time, since making one costs a fifth of a second."""
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _open_store(self) -> S3Store:
        keys = Keys.of(self.environ())
        return open_store(keys.s3 or None, keys.s3_region, None, keys.s3_access_key, keys.s3_secret_key)

    def settled(self, objects: int, seconds: float = 240.0) -> Completeness:
        """Wait until that many objects are accounted for. Raises AssertionError: they are not in time."""
        if self._watch is None:
            self._watch = Watch(self.platform())
        found = self._watch.wait(objects, timeout_seconds=seconds)
        assert not found.open and len({o.origin.id for o in found.objects}) >= objects, found.objects
        return found

    def waiting(self, instance: str) -> int:
        """-> records in front of a service or sink that it has not finished."""
        settings = self.platform()
        groups = groups_of(settings, discover().values(), config_topic.read(settings))
        group = settings.group(instance)
        return backlog(settings, {group: groups[group]}).waiting[group]

    def end_offset(self, topic: str) -> int:
        """-> end offsets of all partitions of a topic, added up."""
        return sum(admin.describe(self.platform())[topic].end_offsets)

    def quiet(self, seconds: float = 240.0) -> None:
        """Wait until every group has read its topic to the end. Raises AssertionError: they have not in time."""
        left = wait_until_idle(self.platform(), timeout_seconds=seconds)
        assert left.idle, f"still working: {left.waiting}"

    def connection(self) -> duckdb.DuckDBPyConnection:
        return lake.connect(Keys.of(self.environ()))

    def rows(self, connection: duckdb.DuckDBPyConnection, dataset: str) -> duckdb.DuckDBPyRelation:
        """-> the Parquet rows of a dataset."""
        return lake.rows(connection, self.uri, dataset)

    def letters(self, connection: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """-> these columns of the dead letters in the lake."""
        names = ", ".join(f'"{name}"' for name in columns)
        return lake.rows(connection, self.uri, "dlq").project(names).fetchall()

    def platform(self) -> Platform:
        """-> the settings its services have."""
        own = {name: self._environ.get(f"INGEST_{name.upper()}") for name in Platform.model_fields}
        given = {name: value for name, value in own.items() if value is not None}
        return Platform.model_validate({**platform(self.folder).model_dump(), **given})

    def environ(self) -> dict[str, str]:
        return {**os.environ, **read_record(Layout.of(self.folder)).environment, **self._environ}

    def _write(self, name: str, config: Mapping[str, Any]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        return path
