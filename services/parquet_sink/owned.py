"""One partition this process owns: its claim log, what is done, and the range that is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from ingestcore.messages.lake import Span
from ingestcore.runtime.service import TopicAccess
from ingestcore.stage import At, Fate, Gap, Input, Line, Retriable, Step
from services.parquet_sink.claim import Claim, Layout
from services.parquet_sink.claims import ClaimLog
from services.parquet_sink.content import Content, Parcel
from services.parquet_sink.known import KnownLetters
from services.parquet_sink.lake import Finished, Lake
from services.parquet_sink.offsets import Offsets
from services.parquet_sink.writing import Writing

log = structlog.get_logger(__name__)

_CLAIM_ATTEMPTS: Final = 100


@dataclass(frozen=True, slots=True)
class Place:
    """topic: logical name; topic_id: of the topic as it exists now."""

    topic: str
    topic_id: str
    partition: int


@dataclass(slots=True)
class _Held:
    """One input that waits for its range to be written. `written`: its rows are in the range's files."""

    at: At
    lines: tuple[Line, ...]
    written: bool
    letter: bytes | None


class Run:
    """Inputs held since the last claim, and the files they stream into.

    since   monotonic seconds when the oldest was read; nbytes: input bytes held
    """

    def __init__(self, layout: Layout, writing: Writing, since: float) -> None:
        self.layout, self.writing, self.since = layout, writing, since
        self.nbytes = 0
        self.inputs: dict[int, _Held] = {}

    def add(self, input: Input, parcel: Parcel) -> None:
        fate = self.writing.add(input, parcel)
        self.inputs[input.at.offset] = _Held(input.at, _as(fate, parcel.lines), True, parcel.letter)
        self.nbytes += parcel.nbytes

    def follow(self, at: At, lines: tuple[Line, ...]) -> None:
        """Commit an input together with the range though nothing of it is written: finished before the ones held
        below it, it would have to be remembered one by one."""
        self.inputs[at.offset] = _Held(at, lines, False, None)

    def offsets(self) -> Offsets:
        """-> of the inputs whose rows are in the files."""
        return Offsets.of(offset for offset, held in self.inputs.items() if held.written)

    def step(self) -> Step:
        held = self.inputs.values()
        return Step([h.at for h in held], [line for h in held for line in h.lines])


@dataclass(frozen=True, slots=True)
class Upload:
    """A claimed range, its files complete on this machine."""

    claim: Claim
    files: Sequence[tuple[Finished, Span]]
    facts: dict[str, Any]


class OwnedPartition:
    """Not thread-safe.

    known  ids of dead letters written before; None where rows are written
    open   makes the files of one range, by the batch size of its layout
    """

    def __init__(
        self,
        place: Place,
        lake: Lake,
        claims: ClaimLog,
        known: KnownLetters | None,
        content: Content,
        topics: TopicAccess,
        open: Callable[[Layout], Writing],
    ) -> None:
        self.place, self.claims, self.run = place, claims, None
        self._lake, self._known, self._content, self._topics, self._open = lake, known, content, topics, open
        self._repeats: dict[int, Offsets] = {}

    run: Run | None

    # -- what is written already
    def settled_lines(self, input: Input, parcel: Parcel) -> tuple[Line, ...] | None:
        """-> ledger lines of an input that needs no writing any more; None: it is free.

        Finishes the claim that covers it where its owner did not.
        """
        fate = self._fate_at(input.at.offset)
        return _as(fate, parcel.lines) if fate else self._known_already(parcel.letter, parcel.lines)

    def _fate_at(self, offset: int) -> Fate | None:
        """-> what became of an offset that is claimed, once its files are complete; None: it is free. Rows are
        delivered by the claim that covers them; a letter is once, its repeats in the range are not."""
        before = self.claims.known_at(offset)
        if offset in before.covered:
            return Fate.DUPLICATE if offset in before.repeats else Fate.DELIVERED
        claim = self.claims.covering(offset)
        if claim is None:
            return None
        if not self.claims.is_done(claim):
            self.write_from_topic(claim)
        if self._known is None:
            return Fate.DELIVERED
        return self._fate_of_letter(claim, offset)

    def _fate_of_letter(self, claim: Claim, offset: int) -> Fate:
        if claim.sequence not in self._repeats:
            self._repeats = {claim.sequence: self.claims.repeats(claim)}
        return Fate.DUPLICATE if offset in self._repeats[claim.sequence] else Fate.DELIVERED

    def _known_already(self, letter: bytes | None, lines: tuple[Line, ...]) -> tuple[Line, ...] | None:
        if letter is None or self._known is None:
            return None
        self.finish_others()
        return _as(Fate.DUPLICATE, lines) if letter in self._known else None

    def finish_others(self) -> None:
        """Write what was claimed and not finished, by the dead or the slow. Raises Gap: its records are gone."""
        for claim in self.claims.unfinished():
            self.write_from_topic(claim)

    def write_from_topic(self, claim: Claim) -> None:
        """Write a claim's files from the topic, by the layout recorded in it, and mark it done."""
        log.info(
            "writing a claimed range from the topic", claim=self.claims.name(claim), partition=self.place.partition
        )
        upload = self._read_again(claim)
        self._lake.send(upload.files)
        self.claims.finish(claim, upload.facts)

    def _read_again(self, claim: Claim) -> Upload:
        offsets, place = claim.offsets, self.place
        writing, found = self._open(claim.layout), 0
        try:
            for input in self._topics.replay(place.topic, place.partition, offsets.first, offsets.last):
                if input.at.offset in offsets:
                    writing.add(input, self._content.read(input))
                    found += 1
            if found != len(offsets):
                raise Gap(f"{found} of {len(offsets)} records are there")
            return self._ready(claim, writing)
        except Gap as gap:
            writing.discard()
            raise Gap(self._advice(claim, gap)) from gap
        except BaseException:
            writing.discard()
            raise

    def _advice(self, claim: Claim, gap: Gap) -> str:
        name = self.claims.name(claim)
        return (
            f"{name} claims offsets {claim.offsets.first}-{claim.offsets.last} of {self.place.topic}"
            f"[{self.place.partition}] and was never finished; its records can't be read any more ({gap}). Its rows "
            f"may be missing from {claim.layout.uri}. Restore the topic, or upload the objects again; to accept the "
            f"loss put an empty object at {name.removesuffix('json')}done and start again"
        )

    # -- writing
    def claim_run(self, run: Run) -> Upload | None:
        """Claim what is held and complete its files. -> what to send; None: others have written all of it.

        Where another writer claimed some of it first, the rest is claimed and read from the topic again: the local
        files hold too much.
        """
        whole = run.offsets()
        claim = self._claim_what_is_free(run)
        if claim is None:
            return None
        return self._ready(claim, run.writing) if claim.offsets == whole else self._read_again(claim)

    def _claim_what_is_free(self, run: Run) -> Claim | None:
        for _ in range(_CLAIM_ATTEMPTS):
            offsets = run.offsets()
            if not offsets:
                return None
            claim = self.claims.add(offsets, run.layout)
            if claim is not None:
                return claim
            self._drop_what_others_wrote(run)
        raise Retriable(f"partition {self.place.partition}: other writers keep claiming in {self._lake.uri}")

    def _drop_what_others_wrote(self, run: Run) -> None:
        for offset, held in run.inputs.items():
            if not held.written:
                continue
            fate = self._fate_at(offset)
            lines = _as(fate, held.lines) if fate else self._known_already(held.letter, held.lines)
            if lines is not None:
                run.inputs[offset] = replace(held, lines=lines, written=False)

    def _ready(self, claim: Claim, writing: Writing) -> Upload:
        span = Span(*_coordinates(self.place), claim.offsets.first, claim.offsets.last)
        files, facts = writing.finish(self._lake, span)
        return Upload(claim, [(file, span) for file in files], facts)

    def drop_run(self) -> None:
        """Forget what is held; local files go."""
        if self.run is not None:
            self.run.writing.discard()
            self.run = None


def _coordinates(place: Place) -> tuple[str, str, int]:
    return place.topic, place.topic_id, place.partition


def _as(fate: Fate, lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple(line._replace(fate=fate) for line in lines)
