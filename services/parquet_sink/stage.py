"""The Parquet sink. Pure: it decides what is held, claimed, written and skipped; files and stores come in.

Inputs stream into local files at once and stay open in Kafka until their range is claimed, sent and marked done. A
range that is done is never written again, so whatever Kafka delivers twice (a crash before the commit, a frozen owner,
an operator's reset) is recognised by its offsets and passed through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ingestcore.datasets.registry import NotSeenYet
from ingestcore.datasets.spec import S3Access, SinkSpec
from ingestcore.stage import Fate, Input, Line, Step
from services.parquet_sink.claim import Layout
from services.parquet_sink.content import Content, Parcel
from services.parquet_sink.lake import Lake
from services.parquet_sink.owned import OwnedPartition, Run
from services.parquet_sink.writing import Writing

OpenLake = Callable[[SinkSpec], Lake]
OpenPartition = Callable[[Lake, int], OwnedPartition]
"""Reads the partition's claims. May raise Unavailable, Refused."""


class ParquetSink:
    """One sink. See `Stage` for who calls what.

    sink           its name
    spec           the spec in force; raises NotSeenYet when it was removed
    open_writing   opens local files for rows of one layout
    held_bytes     input bytes held at most; beyond it the largest partitions are written
    clock          monotonic seconds
    """

    concurrency = 1

    def __init__(
        self,
        sink: str,
        spec: Callable[[], SinkSpec],
        content: Content,
        open_lake: OpenLake,
        open_partition: OpenPartition,
        open_writing: Callable[[Layout], Writing],
        *,
        held_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._sink, self._read_spec, self._content = sink, spec, content
        self._open_lake, self._open_partition, self._open_writing = open_lake, open_partition, open_writing
        self._held_bytes, self._clock = held_bytes, clock
        self._spec = spec()
        self._lake = open_lake(self._spec)
        self._lake_spec = self._spec
        self._owned: dict[int, OwnedPartition] = {}
        self._claims_written = 0

    # -- assignment
    def assigned(self, partitions: Sequence[int]) -> None:
        """Read the claims and finish those without a done mark. Raises Gap: their records are gone."""
        self.revoked(partitions)
        for number in partitions:
            owned = self._open_partition(self._lake, number)
            owned.finish_others()
            self._owned[number] = owned

    def revoked(self, partitions: Sequence[int]) -> None:
        for number in partitions:
            owned = self._owned.pop(number, None)
            if owned:
                owned.drop_run()

    def committed(self) -> None:
        """Nothing is pending: what is written is true once its claim is done."""

    def aborted(self) -> None:
        for owned in self._owned.values():
            owned.drop_run()

    # -- inputs
    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        self._follow_spec()
        owned = self._owned[input.at.partition]
        parcel = self._content.read(input)
        lines = self._lines_if_settled(owned, input, parcel)
        if lines is None:
            run = owned.run or self._new_run(owned)
            run.add(input, parcel)
        elif owned.run:
            owned.run.follow(input.at, lines)
        else:
            yield Step((input.at,), lines)

    def _lines_if_settled(self, owned: OwnedPartition, input: Input, parcel: Parcel) -> tuple[Line, ...] | None:
        """-> ledger lines of an input that is not to be written; None: hold it."""
        settled = owned.settled_lines(input, parcel)
        if settled is not None:
            return settled
        if parcel.table and not self._spec.takes(parcel.table):
            return tuple(line._replace(fate=Fate.NOT_FOR_US) for line in parcel.lines)
        return None if parcel.rows else parcel.lines

    def _new_run(self, owned: OwnedPartition) -> Run:
        parquet = self._spec.lake
        layout = Layout(self._lake.uri, parquet.batch_size, self._sink, self._spec.from_)
        owned.run = Run(layout, self._open_writing(layout), self._clock())
        return owned.run

    # -- writing
    def settle(self, *, final: bool) -> Iterator[Step]:
        """Write the partitions that are due. All is in the store before the first step is yielded."""
        self._follow_spec()
        due = self._due(final)
        ready = [(owned, owned.claim_run(run)) for owned, run in due]
        self._lake.send(file for _, upload in ready if upload for file in upload.files)
        for owned, upload in ready:
            if upload:
                owned.claims.finish(upload.claim, upload.facts)
                self._claims_written += 1
        for owned, run in due:
            owned.drop_run()
            yield run.step()

    def _due(self, final: bool) -> list[tuple[OwnedPartition, Run]]:
        """-> partitions to write now: too large, too old, the last chance, or their share of too much held."""
        held = [(owned, owned.run) for owned in self._owned.values() if owned.run]
        if final or self._moved():
            return held
        parquet, now = self._spec.lake, self._clock()
        late = [r for _, r in held if r.nbytes >= parquet.max_bytes or now - r.since >= parquet.max_age]
        left = sum(run.nbytes for _, run in held if run not in late)
        if sum(run.nbytes for _, run in held) > self._held_bytes:
            for run in sorted((r for _, r in held if r not in late), key=lambda r: -r.nbytes):
                if left <= self._held_bytes // 2:
                    break
                late.append(run)
                left -= run.nbytes
        return [(owned, run) for owned, run in held if run in late]

    # -- settings
    def _follow_spec(self) -> None:
        """Take the spec in force. Another place is gone to only with empty hands: what is held was laid out for the
        old one."""
        try:
            self._spec = self._read_spec()
        except NotSeenYet:
            return  # the sink was removed: go on as it was until this process is stopped
        if self._moved() and not any(owned.run for owned in self._owned.values()):
            lake = self._open_lake(self._spec)
            self._lake, self._lake_spec = lake, self._spec
            self.assigned(list(self._owned))

    def _moved(self) -> bool:
        return _place(self._spec) != _place(self._lake_spec)

    def status(self) -> dict[str, Any]:
        runs = [owned.run for owned in list(self._owned.values()) if owned.run]
        now = self._clock()
        return {
            "held_bytes": sum(run.nbytes for run in runs),
            "held_rows": sum(run.writing.rows for run in runs),
            "oldest_seconds": round(max((now - run.since for run in runs), default=0.0), 1),
            "claims_written": self._claims_written,
            "partitions": sorted(self._owned),
            "uri": self._lake.uri,
        }


def _place(spec: SinkSpec) -> tuple[Any, ...]:
    """-> the settings that decide which store and folder are meant."""
    return spec.lake.uri, *(getattr(spec.lake, name) for name in S3Access.model_fields)
