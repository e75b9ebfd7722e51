"""The specs in force, as read from `ingest.config`. Pure: a reader feeds it records, stages ask it.

Keys: `source/NAME`, `sink/NAME`, `dataset/NAME@VERSION` (kept for ever) and the pointer `dataset/NAME`, whose value is
`{"version": N}`. A record without a value (tombstone) removes a source, a sink or a pointer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import orjson

from ingestcore.datasets.secrets import resolve_spec
from ingestcore.datasets.spec import DatasetSpec, SinkSpec, SourceSpec, Spec
from ingestcore.stage import Retriable

RESOLVED_SECONDS: Final = 10.0
"""How long a secret's file that was changed may go unnoticed."""

T = TypeVar("T")
S = TypeVar("S", bound=Spec)


class NotSeenYet(Retriable):
    """A message names a spec that `ingest.config` has not delivered yet: wait for it."""

    reason = "CONFIG_PENDING"


class Registry:
    """Thread-safe: one thread feeds, the stage's thread asks.

    environ  resolves `${VAR}` and `${file:path}` in what is asked for; None: specs are given as they were applied
    clock    monotonic seconds
    """

    def __init__(self, environ: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._environ, self._clock = environ, clock
        self._resolved: dict[tuple[str, str], tuple[Spec, float]] = {}
        self._sources: dict[str, SourceSpec] = {}
        self._sinks: dict[str, SinkSpec] = {}
        self._datasets: dict[str, DatasetSpec] = {}
        self._pointers: dict[str, int] = {}
        self.revision = 0
        """Counts the records fed: unchanged means nothing new."""

    def feed(self, key: str, value: bytes | None) -> None:
        """Take one record. Raises ValueError: the record is no spec this version reads."""
        kind, _, name = key.partition("/")
        with self._lock:
            if kind == "source":
                _put(self._sources, name, None if value is None else SourceSpec.model_validate_json(value))
            elif kind == "sink":
                _put(self._sinks, name, None if value is None else SinkSpec.model_validate_json(value))
            elif kind == "dataset" and "@" in name:
                _put(self._datasets, name, None if value is None else DatasetSpec.model_validate_json(value))
            elif kind == "dataset":
                _put(self._pointers, name, None if value is None else int(orjson.loads(value)["version"]))
            else:
                raise ValueError(f"{key}: unknown kind of spec; this service may be older than the configuration")
            self._resolved.clear()
            self.revision += 1

    def sources(self) -> dict[str, SourceSpec]:
        """-> as applied, references unresolved."""
        with self._lock:
            return dict(self._sources)

    def sources_of(self, part: str) -> dict[str, SourceSpec]:
        """-> those that have a part (`s3`, `http`), references unresolved; "": all."""
        return {name: spec for name, spec in self.sources().items() if not part or getattr(spec, part) is not None}

    def source(self, name: str) -> SourceSpec:
        """Raises NotSeenYet; SecretMissing: it refers to a variable or file that is not there."""
        with self._lock:
            return self._use("source", name, _get(self._sources, name, "source"))

    def sinks(self) -> dict[str, SinkSpec]:
        """-> as applied, references unresolved."""
        with self._lock:
            return dict(self._sinks)

    def sink(self, name: str) -> SinkSpec:
        """Raises NotSeenYet; SecretMissing."""
        with self._lock:
            return self._use("sink", name, _get(self._sinks, name, "sink"))

    def _use(self, kind: str, name: str, spec: S) -> S:
        """-> with references resolved: once in a while, since asking is on the path of every input and a secret's file
        may be written anew."""
        if self._environ is None:
            return spec
        place, now = (kind, name), self._clock()
        found, until = self._resolved.get(place, (None, now))
        if found is None or now >= until:
            found = resolve_spec(spec, self._environ)
            self._resolved[place] = found, now + RESOLVED_SECONDS
        assert isinstance(found, type(spec))
        return found

    def current(self, dataset: str) -> str:
        """-> `name@version` in force. Only the downloader asks. Raises NotSeenYet."""
        with self._lock:
            return f"{dataset}@{_get(self._pointers, dataset, 'dataset')}"

    def dataset(self, reference: str) -> DatasetSpec:
        """-> the spec of `name@version`. Raises NotSeenYet."""
        with self._lock:
            return _get(self._datasets, reference, "dataset")

    def datasets(self) -> dict[str, DatasetSpec]:
        """-> all versions by `name@version`."""
        with self._lock:
            return dict(self._datasets)

    def pointers(self) -> dict[str, int]:
        """-> version in force by dataset name."""
        with self._lock:
            return dict(self._pointers)


def _put(specs: dict[str, T], name: str, spec: T | None) -> None:
    if spec is None:
        specs.pop(name, None)
    else:
        specs[name] = spec


def _get(specs: dict[str, T], name: str, kind: str) -> T:
    try:
        return specs[name]
    except KeyError:
        raise NotSeenYet(f"{kind} {name} is not in the configuration topic (yet): waiting for `ingest apply`") from None
