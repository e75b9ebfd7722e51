"""What `ingest apply` writes: configuration files compared with the specs in force. Pure.

A dataset's record `dataset/NAME@VERSION` is never changed: another spec is another version, and the pointer
`dataset/NAME` moves. Only `prune` removes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import orjson

from ingestcore.datasets import checks
from ingestcore.datasets.config_file import Config, with_provenance
from ingestcore.datasets.problems import shown
from ingestcore.datasets.registry import Registry
from ingestcore.datasets.spec import DatasetSpec, ParquetSink, SinkSpec, SourceSpec, Spec
from ingestcore.stage import OperatorNeeded

DEFAULT_SINK = "lake"
DEFAULT_SINK_URI = "s3://ingest-lake/"
DEAD_LETTER_SINK = "dlq"


class Kind(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One record of `ingest.config` and why it is (not) written. `value` None: a tombstone."""

    key: str
    value: bytes | None
    kind: Kind
    note: str = ""


class Unpublishable(OperatorNeeded):
    """The configuration does not fit what is in force. One line per reason, each with what to do."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("\n".join(self.reasons))


def plan(
    config: Config,
    registry: Registry,
    *,
    default_sink_uri: str = DEFAULT_SINK_URI,
    rekey: bool = False,
    prune: bool = False,
) -> list[Change]:
    """-> one change per spec, in the order to write them: datasets before the sources that lead to them.

    Adds what the files leave out: datasets that a route names (all columns as strings), a sink `lake` where there is
    none at all, a sink `dlq` where none reads dead letters.

    Raises Unpublishable: keys of a dataset would change without `rekey`, or a sink would write where a source reads.
    """
    sources = {name: with_provenance(source) for name, source in config.sources.items()}
    in_force = {} if prune else registry.sinks()
    sinks = sinks_of(config, default_sink_uri, in_force)
    datasets = datasets_of(config, registry)

    kept = {} if prune else registry.sources()
    clashes = checks.conflict_findings({**kept, **sources}, {**in_force, **sinks})
    reasons = [f"{shown(clash.path)}: {clash.message} -> {clash.instead}" for clash in clashes]
    if not rekey:
        reasons += _changed_keys(datasets, registry)
    if reasons:
        raise Unpublishable(reasons)

    changes = [change for name, spec in datasets.items() for change in _dataset_changes(name, spec, registry)]
    changes += [_spec_change(f"sink/{name}", spec, registry.sinks().get(name)) for name, spec in sinks.items()]
    changes += [_spec_change(f"source/{name}", spec, registry.sources().get(name)) for name, spec in sources.items()]
    if prune:
        changes = [*_removals(sources, sinks, datasets, registry), *changes]
    return changes


def to_write(changes: Iterable[Change]) -> list[Change]:
    """-> those that change something."""
    return [change for change in changes if change.kind is not Kind.UNCHANGED]


def sinks_of(
    config: Config, default_uri: str = DEFAULT_SINK_URI, in_force: Mapping[str, SinkSpec] | None = None
) -> dict[str, SinkSpec]:
    """-> sinks of the files, and those that are made where neither they nor what is in force has any."""
    known = {**(in_force or {}), **config.sinks}
    implied: dict[str, SinkSpec] = {}
    if not any(sink.from_ == "normalized" for sink in known.values()):
        settings = {"batch_size": config.default_batch_size} if config.default_batch_size else {}
        implied[DEFAULT_SINK] = SinkSpec(parquet=ParquetSink.model_validate({"uri": default_uri, **settings}))
    if not any(sink.from_ == "dlq" for sink in known.values()):
        lakes = [sink.parquet for sink in {**known, **implied}.values() if sink.parquet]
        first = lakes[0] if lakes else ParquetSink(uri=default_uri)
        implied[DEAD_LETTER_SINK] = SinkSpec.model_validate({"parquet": first, "from": "dlq"})
    return {**config.sinks, **implied}


def datasets_of(config: Config, registry: Registry | None = None) -> dict[str, DatasetSpec]:
    """-> datasets of the files, and those that sources lead to and nobody has declared."""
    declared = {*config.datasets, *(registry.pointers() if registry else ())}
    wanted = [name for source, spec in config.sources.items() for name in sorted(checks.targets(source, spec))]
    return {**config.datasets, **{name: DatasetSpec() for name in dict.fromkeys(wanted) if name not in declared}}


def rekeyed(old: DatasetSpec, new: DatasetSpec) -> bool:
    """Whether no row of the new spec would be recognised as a duplicate of one published under the old."""
    return old.key_version() != new.key_version()


def _changed_keys(datasets: Mapping[str, DatasetSpec], registry: Registry) -> Iterator[str]:
    for name, spec in datasets.items():
        version = _latest(name, registry)
        if version and rekeyed(registry.dataset(f"{name}@{version}"), spec):
            yield (
                f"datasets.{name}: key columns or their types differ from version {version}: no row would be "
                f"recognised as a duplicate of one already published, all rows will be new -> `--rekey` if that is "
                f"meant, or another name for the dataset"
            )


def _latest(name: str, registry: Registry) -> int:
    """-> highest version ever published, 0: none. A pruned dataset keeps its versions."""
    versions = (reference.rpartition("@") for reference in registry.datasets())
    return max((int(version) for owner, _, version in versions if owner == name), default=0)


def _dataset_changes(name: str, spec: DatasetSpec, registry: Registry) -> Iterator[Change]:
    latest = _latest(name, registry)
    current = registry.pointers().get(name)
    if latest and registry.dataset(f"{name}@{latest}").canonical() == spec.canonical():
        kind = Kind.UNCHANGED if current == latest else Kind.CHANGED
        yield Change(f"dataset/{name}", _pointer(latest), kind, f"version {latest}")
        return
    version = latest + 1
    yield Change(f"dataset/{name}@{version}", spec.canonical(), Kind.ADDED, _summary(spec))
    note = f"version {version}"
    if latest and rekeyed(registry.dataset(f"{name}@{latest}"), spec):
        note += ", other keys: all rows will be new"
    yield Change(f"dataset/{name}", _pointer(version), Kind.CHANGED if current else Kind.ADDED, note)


def _pointer(version: int) -> bytes:
    return orjson.dumps({"version": version})


def _summary(spec: DatasetSpec) -> str:
    keys = spec.key_columns()
    unique = "coordinate" if keys is None else keys if isinstance(keys, str) else ", ".join(keys)
    return f"{len(spec.named) or 'all'} columns, unique by {unique}"


def _spec_change(key: str, spec: Spec, old: Spec | None) -> Change:
    value = spec.canonical()
    if old is None:
        return Change(key, value, Kind.ADDED)
    return Change(key, value, Kind.UNCHANGED if old.canonical() == value else Kind.CHANGED)


def _removals(
    sources: Mapping[str, SourceSpec],
    sinks: Mapping[str, SinkSpec],
    datasets: Mapping[str, DatasetSpec],
    registry: Registry,
) -> Iterator[Change]:
    """Sources first, so that nothing leads to a dataset that is gone. Versions stay: messages name them."""
    for name in registry.sources():
        if name not in sources:
            yield Change(f"source/{name}", None, Kind.REMOVED)
    for name in registry.sinks():
        if name not in sinks:
            yield Change(f"sink/{name}", None, Kind.REMOVED, "its process stops; what it wrote stays")
    routed = set().union(*(checks.targets(name, source) for name, source in sources.items()))
    for name in registry.pointers():
        if name not in datasets and name not in routed:
            yield Change(f"dataset/{name}", None, Kind.REMOVED, "its versions stay")
