"""Reads a file of addresses line by line and hands each object on. The checkpoint is a number of lines in a file: it
moves after Kafka has the objects, so a crash repeats some, and an object that comes twice counts once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from ingestcore.datasets.spec import SourceSpec
from ingestcore.messages.moments import iso_utc
from ingestcore.messages.objects import ObjectRef
from ingestcore.runtime.service import Context
from ingestcore.stage import Emit, OperatorNeeded, Step
from ingestcore.stores.objects import ObjectStore
from manifest_source import ManifestSettings

STEP_LINES: Final = 1_000


class Manifest:
    """A `Source`. One process runs it: it takes no lease."""

    def __init__(self, name: str, context: Context) -> None:
        self.name = name
        self.term: object = None
        self._settings: ManifestSettings = context.settings
        self._specs, self._open_store = context.specs, context.store
        self._checkpoint = context.state / f"{name}.position"
        self._skipped: list[str] = []

    def scan(self) -> Iterator[Step | None]:
        spec = self._specs.source(self._settings.source)
        found = partial(self._found, spec, self._open_store(spec.s3))
        lines = self._settings.file.read_text(encoding="utf-8").splitlines()
        for start in range(self._position(), len(lines), STEP_LINES):
            batch = lines[start : start + STEP_LINES]
            emits = [Emit("objects", ref.encode(), key=bytes.fromhex(ref.id)) for ref in map(found, batch) if ref]
            yield Step(covers=(), tally=(), emits=emits, resume=str(start + len(batch)))

    def acknowledged(self, token: str | None) -> None:
        temporary = self._checkpoint.with_suffix(".tmp")
        temporary.write_text(token or "0")
        temporary.replace(self._checkpoint)

    def pause_seconds(self) -> float:
        return self._settings.poll_interval

    def check(self) -> None:
        if not self._settings.file.is_file():
            raise OperatorNeeded(f"{self._settings.file} is no file: write one, or set INGEST_MANIFEST_SOURCE_FILE")

    def status(self) -> Mapping[str, Any]:
        return {"lines_done": self._position(), "skipped": self._skipped[-10:]}

    def close(self) -> None: ...

    def _position(self) -> int:
        return int(self._checkpoint.read_text()) if self._checkpoint.exists() else 0

    def _found(self, spec: SourceSpec, store: ObjectStore, line: str) -> ObjectRef | None:
        """-> the object as it is now; None: there is none, or its key matches no route."""
        bucket, _, key = line.strip().removeprefix("s3://").partition("/")
        listed = next((entry for entry in store.list(bucket, key) if entry.key == key), None)
        dataset = spec.dataset_of(key, self._settings.source)
        if listed is None or dataset is None:
            self._skipped.append(line)
            return None
        return ObjectRef(
            tenant=spec.tenant,
            source=self._settings.source,
            dataset=dataset,
            bucket=bucket,
            key=key,
            etag=listed.etag,
            size=listed.size,
            last_modified=listed.last_modified,
            first_seen=iso_utc(datetime.now(UTC)),
        )
