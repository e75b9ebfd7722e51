"""Pure core of the lister: what a listing says when it is laid beside the snapshot of the scan before."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from ingestcore.datasets.spec import ParquetSink, SinkSpec, SourceSpec
from ingestcore.stores.objects import Listed

DatasetOf = Callable[[str], "str | None"]
"""Key -> dataset; None: no route pattern matches."""


class Seen(NamedTuple):
    """One entry of a snapshot: an object that was handed on.

    etag     of the version handed on, and `dataset` the one it was handed on for: another of either is handed on too
    missing  1: the last scan did not list it any more
    """

    key: str
    etag: str
    dataset: str
    missing: int = 0


class Verdict(Enum):
    """What became of a key since the scan before.

    MISSING is believed only when the next scan says so too (GONE): a store whose order turns out not to be the bytes'
    makes keys look missing until the whole listing has been read.
    """

    NEW = auto()
    CHANGED = auto()
    SAME = auto()
    UNMATCHED = auto()
    MISSING = auto()
    GONE = auto()
    NOT_LISTED = auto()


class Change(NamedTuple):
    """One key of the merge: as listed now, as the last snapshot had it, as the next one has it."""

    verdict: Verdict
    listed: Listed | None
    before: Seen | None
    after: Seen | None


class OrderBroken(Exception):
    """The store does not list in byte order."""

    def __init__(self, key: str, previous: str) -> None:
        super().__init__(f"{key!r} was listed after {previous!r}: this store does not list in byte order")


def merge(
    listing: Iterable[Listed], snapshot: Iterable[Seen], dataset_of: DatasetOf, start_after: str = ""
) -> Iterator[Change]:
    """Lay a listing beside the snapshot before it: one Change for every key of either, ascending.

    Both ascend by key (by code point, which is the order of the UTF-8 bytes). The listing begins after
    `start_after`: what the snapshot holds up to there is NOT_LISTED and stays as it is. A key that matches no pattern
    is not entered into the snapshot, so that a later pattern finds it. Raises OrderBroken.
    """
    known = iter(snapshot)
    seen = next(known, None)
    while seen is not None and seen.key <= start_after:
        yield Change(Verdict.NOT_LISTED, None, seen, seen)
        seen = next(known, None)
    previous = start_after
    for listed in listing:
        key = listed.key
        if key <= previous:
            if key == previous:
                continue
            raise OrderBroken(key, previous)
        previous = key
        while seen is not None and seen.key < key:
            yield _not_there(seen)
            seen = next(known, None)
        if seen is not None and seen.key == key:
            yield _judge(listed, seen, dataset_of(key))
            seen = next(known, None)
        else:
            yield _judge(listed, None, dataset_of(key))
    while seen is not None:
        yield _not_there(seen)
        seen = next(known, None)


def _judge(listed: Listed, before: Seen | None, dataset: str | None) -> Change:
    there = before._replace(missing=0) if before is not None and before.missing else before
    if dataset is None:
        return Change(Verdict.UNMATCHED, listed, before, there)
    if before is None:
        return Change(Verdict.NEW, listed, None, Seen(listed.key, listed.etag, dataset))
    if before.etag == listed.etag and before.dataset == dataset:
        return Change(Verdict.SAME, listed, before, there)
    return Change(Verdict.CHANGED, listed, before, Seen(listed.key, listed.etag, dataset))


def _not_there(seen: Seen) -> Change:
    if seen.missing:
        return Change(Verdict.GONE, None, seen, None)
    return Change(Verdict.MISSING, None, seen, seen._replace(missing=1))


def router(spec: SourceSpec, source: str) -> DatasetOf:
    """-> `spec.dataset_of` with its patterns compiled once: a scan asks it for every key."""
    if spec.route is None:
        only = spec.dataset or source
        return lambda key: only
    prefix = len(spec.objects.prefix)
    patterns = [("/" in text, re.compile(fnmatch.translate(text)).match, name) for text, name in spec.route.items()]

    def dataset_of(key: str) -> str | None:
        relative = key[prefix:]
        last = relative.rpartition("/")[2]
        for whole, match, dataset in patterns:
            if match(relative if whole else last):
                return dataset
        return None

    return dataset_of


def is_folder_marker(listed: Listed) -> bool:
    """Consoles and some stores make empty objects to show a folder; they hold no data."""
    return listed.size == 0 and listed.key.endswith("/")


NOTHING: Final = re.compile(r"(?!)")


class OwnOutput(NamedTuple):
    """Keys below a source that the platform itself writes: never to be ingested again."""

    pattern: re.Pattern[str]
    warnings: tuple[str, ...]


def own_output(source: SourceSpec, sinks: Mapping[str, SinkSpec], work_uri: str, endpoint: str | None) -> OwnOutput:
    """-> which listed keys are our own. `work_uri`: where snapshots are kept; `endpoint`: used where none is given.

    Below a sink whose prefix lies inside the source's, everything is skipped. A sink at or above the source's prefix
    is skipped by its layout alone, else nothing would be left.
    """
    patterns: list[str] = []
    warnings: list[str] = []
    for name, sink in sinks.items():
        prefix = _prefix_within(source, sink.parquet.uri) if sink.parquet else None
        if prefix is None or not _same_store(source, sink.lake, endpoint):
            continue
        if prefix.startswith(source.objects.prefix) and prefix != source.objects.prefix:
            patterns.append(re.escape(prefix))
            warnings.append(f"sink {name} writes below this source's prefix: keys under {prefix} are skipped")
        elif source.objects.prefix.startswith(prefix):
            layout = r"(?:_ingest/|[^/]+/tenant=[^/]*/)" if sink.from_ == "normalized" else "(?:_ingest/|dlq/)"
            patterns.append(re.escape(prefix) + layout)
            warnings.append(f"sink {name} writes where this source reads: its tables are skipped; give it a prefix")
    work = _prefix_within(source, work_uri)
    if work:
        patterns.append(re.escape(work))
    return OwnOutput(re.compile("|".join(patterns)) if patterns else NOTHING, tuple(warnings))


def _prefix_within(source: SourceSpec, uri: str) -> str | None:
    """-> key prefix of `uri`, ending in `/` unless empty; None: another bucket."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if bucket != source.objects.bucket:
        return None
    return prefix.rstrip("/") + "/" if prefix.rstrip("/") else ""


def _same_store(source: SourceSpec, sink: ParquetSink, endpoint: str | None) -> bool:
    return (source.objects.endpoint_url or endpoint) == (sink.endpoint_url or endpoint)
