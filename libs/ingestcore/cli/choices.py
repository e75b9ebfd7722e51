"""Names an operator may give: completed in the shell, and the closest one told where a name is unknown."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path

import typer

from ingestcore.cli.errors import EXIT_CONFIGURATION, OperatorError
from ingestcore.datasets.problems import nearest
from ingestcore.reasons import Reason
from ingestcore.topics import TOPICS, topic_name


def topic_named(text: str, prefix: str) -> str:
    """-> logical name of a topic given with or without its prefix. Raises OperatorError with the closest one."""
    logical = text.removeprefix(prefix)
    if logical in TOPICS:
        return logical
    meant = nearest(logical, TOPICS)
    advice = f"the closest is {topic_name(prefix, meant)}" if meant else f"there are {', '.join(TOPICS)}"
    raise OperatorError(f"no topic {text!r}; {advice}", EXIT_CONFIGURATION)


def names_object(pattern: str, object_id: str, uri: str) -> bool:
    """Whether an object is meant: by part of its URI, a shell pattern over URI or file name, or the start of its id."""
    if not pattern or pattern in uri or object_id.startswith(pattern):
        return True
    return fnmatch.fnmatchcase(uri, pattern) or fnmatch.fnmatchcase(uri.rpartition("/")[2], pattern)


def names_dataset(name: str, dataset: str) -> bool:
    """Whether `name` or `name@version` is the dataset meant."""
    return name in (dataset, dataset.rpartition("@")[0])


# -- shell completion: never an error, never a wait
def topics(incomplete: str) -> Iterable[str]:
    return [name for name in TOPICS if name.startswith(incomplete)]


def reasons(incomplete: str) -> Iterable[str]:
    return [reason.value for reason in Reason if reason.value.startswith(incomplete.upper())]


def services(incomplete: str) -> Iterable[str]:
    from ingestcore.runtime.service import discover

    return [name for name in discover() if name.startswith(incomplete)]


def running(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Services, sinks and replicas of the fleet in `--dir`, from its record: nobody is asked."""
    from ingestcore.fleet.layout import Layout
    from ingestcore.fleet.record import read_record

    try:
        rows = read_record(Layout.of(Path(context.params.get("folder") or ".ingest"))).rows()
    except Exception:
        rows = []
    if not rows:
        return services(incomplete)
    names = [name for row in rows for name in (row.sink or row.service, f"{row.sink or row.service}-{row.replica}")]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def datasets(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Datasets that are applied, if Kafka answers at once."""
    return [name for name in _applied(context, "dataset") if name.startswith(incomplete)]


def sources(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Sources that are applied, if Kafka answers at once."""
    return [name for name in _applied(context, "source") if name.startswith(incomplete)]


def _applied(context: typer.Context, kind: str) -> Iterable[str]:
    from ingestcore.cli.target import listens, platform
    from ingestcore.kafka import config_topic

    try:
        target = platform(Path(context.params.get("folder") or ".ingest"))
        if not listens(target.kafka_bootstrap):
            return []
        registry = config_topic.read(target)
    except Exception:
        return []
    return registry.pointers() if kind == "dataset" else registry.sources()
