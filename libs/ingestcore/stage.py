"""The stage contract: values only. Nothing here knows Kafka, S3 or a clock.

A service is a pure `Stage` (or `Source`) plus a thin `build`. The runtime alone talks to Kafka; it calls the stage
on one thread, checks every step against the conservation law and commits steps atomically.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from ingestcore.messages.dead_letters import Refusal
from ingestcore.messages.objects import ObjectFacts
from ingestcore.reasons import Reason

Owner = tuple[str, str, str]
"""Tenant, source, dataset without its version: what metrics tell apart."""


class Origin(NamedTuple):
    """Whose rows a ledger line counts. `id`: of the object (32 hex digits), or a source's name.
    `dataset` is `name@version`, or the bare name where no version is chosen yet."""

    id: str
    tenant: str
    source: str
    dataset: str
    uri: str

    @classmethod
    def of(cls, facts: ObjectFacts) -> Origin:
        return cls(facts.id, facts.tenant, facts.source, facts.dataset, facts.uri)

    @property
    def owner(self) -> Owner:
        return self.tenant, self.source, self.dataset.partition("@")[0]


class Fate(StrEnum):
    """Where a row ends in one stage. Every row has exactly one fate per stage."""

    EMITTED = "emitted"
    REJECTED = "rejected"
    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    STALE = "stale"
    SHED = "shed"
    BLANK = "blank"
    NOT_FOR_US = "not_for_us"


class At(NamedTuple):
    """Coordinate of an input. `topic` is the logical name (`blocks`); a Source uses its name, 0, sequence."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Input:
    """One message as read, committed records only. `headers` are decoded UTF-8."""

    at: At
    value: bytes
    headers: Mapping[str, str]
    key: bytes = b""
    timestamp_ms: int = 0

    @property
    def rows(self) -> int | None:
        """Rows its producer promised; None: this stage finds out (an object whose rows nobody has counted)."""
        text = self.headers.get("rows")
        return None if text is None else int(text)


class Line(NamedTuple):
    """One ledger line: what became of rows (and, where a stage conserves bytes, bytes) of one input and origin."""

    at: At
    origin: Origin
    fate: Fate
    rows: int
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Emit:
    """A message to produce.

    topic      logical name from `ingestcore.topics`
    value      bytes-like, ready to send
    rows       rows it carries; 0 for what carries none (changelog, control)
    nbytes     source bytes it carries, where the stage conserves bytes
    partition  None: the key decides
    headers    without `format`, `rows`, `traceparent`, `first_seen`, `pass`: the runtime adds those
    """

    topic: str
    value: bytes
    rows: int = 0
    nbytes: int = 0
    key: bytes | None = None
    partition: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject(Refusal):
    """A dead letter in the making. Rejects are values, never exceptions.

    at      the input it was in; origin: whose rows these are
    fate    of its rows in the tally; STALE: a letter beside a row that is no loss
    Of a Refusal `reentry` is a logical topic here.
    """

    at: At
    origin: Origin
    fate: Fate = Fate.REJECTED


@dataclass(frozen=True, slots=True)
class Step:
    """One atomic advance: all of it commits, or none.

    covers   inputs this step speaks about: one; many when a stage held them; a Source: none
    tally    ledger lines; they say what became of every row of the covers
    resume   None: `covers` are finished. Else a token of at most 400 bytes: after a crash
             `process(input, resume)` yields exactly the steps that follow this one.
    """

    covers: Sequence[At]
    tally: Sequence[Line]
    emits: Sequence[Emit] = ()
    rejects: Sequence[Reject] = ()
    resume: str | None = None


class Stage(Protocol):
    """Turns inputs into steps. Runs on the runtime's thread; its own threads only fetch or write.

    May raise `Retriable` (everything since the last commit is redone after a backoff) or any other exception
    (a defect or a poison input: the runtime isolates it and dead-letters that input). Must not keep an Input's
    `value` after its last step. One instance per process; `partition` says whose state an input touches.
    """

    concurrency: int
    """Inputs open side by side; 1 for maps."""

    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        """Yield steps. None = nothing ready, ask me again. No step = held until `settle` (or until a later
        `process` yields a step that covers it)."""

    def settle(self, *, final: bool) -> Iterator[Step]:
        """Commit boundary: finish what is held. `final`: the partitions leave, nothing comes after.
        May leave an input open (a claimed range not complete yet); its offset then stays uncommitted."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """These partitions were added, or a commit's outcome is unknown: rebuild their state from what is
        committed, finish claims."""

    def revoked(self, partitions: Sequence[int]) -> None:
        """These partitions left: drop their state. `aborted` follows before the next `process`."""

    def committed(self) -> None:
        """The transaction is in: pending state becomes true."""

    def aborted(self) -> None:
        """Forget everything since `committed`: held inputs, pending state, open jobs."""


class Stateless:
    """The parts of `Stage` a plain map does not need."""

    concurrency = 1

    def settle(self, *, final: bool) -> Iterator[Step]:
        return iter(())

    def assigned(self, partitions: Sequence[int]) -> None: ...

    def revoked(self, partitions: Sequence[int]) -> None: ...

    def committed(self) -> None: ...

    def aborted(self) -> None: ...


class Source(Protocol):
    """No inputs: a lister, a poller, a foreign cluster. The same steps; the token lives in its own checkpoint.

    The runtime commits a step's emits in a transaction of the source's own transactional id (so that a second
    instance fences the first), then calls `acknowledged(token)`, which moves the checkpoint.
    """

    name: str
    """Of the source in the config; its transactional id and its ledger origin."""

    term: object
    """Changes whenever ownership of the source was taken anew: the runtime then makes a fresh producer."""

    def scan(self) -> Iterator[Step | None]:
        """One pass over the source from its checkpoint. None = nothing ready. Ends when the pass is over."""

    def acknowledged(self, token: str | None) -> None:
        """Everything up to the step that carried `resume == token` is in Kafka. Raises `Fenced` when another
        instance owns the checkpoint."""

    def pause_seconds(self) -> float:
        """How long to wait before the next pass."""

    def check(self) -> None:
        """Can it be read at all? Raises OperatorNeeded: missing, or refused; Retriable: away."""

    def status(self) -> Mapping[str, Any]:
        """What health says of it. Called from another thread."""

    def close(self) -> None:
        """The source ends here: give ownership back, so that another replica may take over at once."""


class Retriable(Exception):
    """Not the input's fault: roll back, wait, try again. The message says what is awaited."""

    reason: str = Reason.CONNECTION_ERROR.value
    """How `ingest_retry_total` calls it."""

    wait_seconds: float = 0.0
    """Trying again sooner is of no use."""


class OperatorNeeded(Exception):
    """Only an operator can mend it (configuration, credentials, permissions). The message is one clear sentence that
    says what to do; a service that meets it at start ends with the exit code for configuration errors."""


class NewerFormat(Exception):
    """A message was written by a newer version of the platform: upgrade this service."""


class Fenced(Exception):
    """Another instance owns this work: exit."""


class Gap(Exception):
    """Records that should be there are gone: stop, alarm, account."""


class Unbalanced(AssertionError):
    """Rows went missing or appeared from nowhere: stop, never commit."""


def check(step: Step) -> None:
    """Conservation law of one step: its emits and rejects equal its tally, in rows and in bytes. Rows of another fate
    may have a letter each, and need none.

    Raises Unbalanced.
    """
    for unit in ("rows", "nbytes"):
        told: Counter[Fate] = Counter()
        for line in step.tally:
            told[line.fate] += getattr(line, unit)
        made = Counter({Fate.EMITTED: sum(getattr(emit, unit) for emit in step.emits)})
        for reject in step.rejects:
            made[reject.fate] += getattr(reject, unit)
        for fate in {*made, Fate.REJECTED}:
            must_equal = fate in (Fate.EMITTED, Fate.REJECTED)
            if made[fate] > told[fate] or (must_equal and made[fate] < told[fate]):
                raise Unbalanced(
                    f"{fate} {unit}: the tally says {told[fate]}, the step carries {made[fate]}: {step.covers}"
                )
    covered = set(step.covers)
    stray = [line.at for line in step.tally if line.at not in covered]
    if covered and stray:
        raise Unbalanced(f"the tally speaks of inputs the step does not cover: {stray[:3]}")
