"""The one loop: reads inputs, runs a stage, commits its steps. Does not know which stage it runs.

Order of every commit: settle -> produce (outputs, dead letters, ledger) -> offsets with resume tokens -> commit. After
an abort, a fence, a rebalance or an unknown outcome everything since the last commit is dropped, here and in the stage,
and read again from what is committed.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import structlog
from confluent_kafka import KafkaException

from ingestcore.kafka.errors import KafkaRefused, Rebalanced
from ingestcore.kafka.group import GroupMember
from ingestcore.kafka.reading import as_input
from ingestcore.kafka.transactions import Transactions
from ingestcore.messages.moments import iso_utc
from ingestcore.observe.health import Health
from ingestcore.runtime.access import Topics
from ingestcore.runtime.gauges import StageGauges
from ingestcore.runtime.inner import Inner
from ingestcore.runtime.isolation import Isolation
from ingestcore.runtime.poison import DEADLY, condemn
from ingestcore.runtime.progress import Progress
from ingestcore.runtime.recording import (
    LEDGER_HEADERS,
    Delivery,
    LedgerBook,
    dead_letter,
    emitted,
    headers,
    lettered,
    rows_of,
)
from ingestcore.runtime.spans import Spans
from ingestcore.runtime.trials import DEATHS, Trials, Way
from ingestcore.runtime.trouble import in_words
from ingestcore.settings import Platform
from ingestcore.stage import (
    At,
    Fenced,
    Gap,
    Input,
    NewerFormat,
    OperatorNeeded,
    Reject,
    Retriable,
    Stage,
    Step,
    Unbalanced,
    check,
)
from ingestcore.topics import topic_name

log = structlog.get_logger(__name__)

_FETCH_RECORDS = 16
_IDLE_WAIT_SECONDS = 0.2
_BUSY_WAIT_SECONDS = 0.01
_POLL_EVERY_SECONDS = 0.5
_REST_SECONDS = 1.0
_QUIET_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 0.1, 10.0
_FATAL = (Unbalanced, Gap, Fenced, NewerFormat)
_NOT_THE_INPUTS_FAULT = (Retriable, OperatorNeeded, KafkaException, OSError, MemoryError)


class StageRunner:
    """Runs one stage on one topic until `stop` is set or something fatal is raised."""

    def __init__(
        self,
        stage: Stage,
        *,
        service: str,
        instance: str,
        consumes: str,
        platform: Platform,
        topics: Topics,
        transactions: Transactions,
        gauges: StageGauges,
        health: Health,
        stop: threading.Event,
        inner: Inner | None = None,
        spans: Spans | None = None,
    ) -> None:
        """`inner`: a stage that takes what this one emits, in the same transaction."""
        self._inner, self._spans = inner, spans or Spans()
        self._stage, self._service, self._consumes, self._platform = stage, service, consumes, platform
        self._topics, self._tx, self._gauges, self._health, self._stop = topics, transactions, gauges, health, stop
        self._input_topic = topic_name(platform.topic_prefix, consumes)
        self._progress = Progress()
        self._isolation = Isolation(time.monotonic)
        self._trials = Trials(self._progress, time.monotonic)
        self._book = LedgerBook(service, instance, platform.replica)
        self._member = GroupMember(
            platform, self._input_topic, platform.group(instance), self._on_located, self._on_left
        )
        self._topic_ids: dict[str, str] = {}
        self._dlq_partitions = 0
        self._polled_at = self._rested_at = 0.0
        self._troubled_at = -math.inf
        """When something was last waited for. It is over when a commit takes inputs along, or when nothing has gone
        wrong for a while with nothing to do."""
        self._sound, self._began_at = False, time.monotonic()
        """Sound: it has been well for once, so what the broker refuses from then on is waited out."""
        # The first turn makes the producer, which fences an elder process of the same replica id.
        self._needs_rollback = True
        self._forget_held()

    def _forget_held(self) -> None:
        """Nothing is held, nothing is uncommitted."""
        self._queue: deque[Input] = deque()
        self._aside: list[Input] = []
        self._later: list[Input] = []
        self._jobs: dict[At, Iterator[Step | None]] = {}
        self._held: dict[At, Delivery] = {}
        self._finished: list[At] = []
        self._condemned: list[At] = []
        self._at_work: At | None = None
        self._size_bytes, self._since = 0, None
        self._book.clear()
        if self._inner is not None:
            self._inner.clear()

    _since: float | None

    # -- positions
    def _on_located(self, partition: int, offset: int, metadata: str) -> None:
        self._progress.assign((self._consumes, partition), offset, metadata)
        self._trials.located((self._consumes, partition))

    def _on_left(self, partition: int) -> None:
        self._progress.forget((self._consumes, partition))
        self._trials.left((self._consumes, partition))
        self._topics.forget(partition)

    # -- the loop
    def run(self) -> None:
        """Until stopped, then drain. Raises Unbalanced, Gap, Fenced, NewerFormat; KafkaRefused: from the very start."""
        backoff = _FIRST_BACKOFF_SECONDS
        while not self._stop.is_set():
            try:
                if self._needs_rollback:
                    self._roll_back()
                if self._health.asked_to_drain and not self._jobs:
                    self._stand_aside()
                else:
                    self._turn()
                self._beat()
                backoff = _FIRST_BACKOFF_SECONDS
            except _FATAL as error:
                self._abandon(error)
                raise
            except Rebalanced as error:
                self._gauges.rebalanced()
                self._spans.rolled_back(str(error))
                self._needs_rollback = True
            except Exception as error:
                if isinstance(error, KafkaRefused) and not self._sound:
                    self._abandon(error)
                    raise
                self._suspect(error)
                self._needs_rollback = True
                self._gauges.failed(error)
                self._spans.rolled_back(repr(error))
                self._wait(max(random.uniform(backoff / 2, backoff), getattr(error, "wait_seconds", 0.0)))
                backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
        self._drain()

    def _beat(self) -> None:
        self._health.beat()
        if self._gauges.due():
            waiting = self._progress.waiting(self._member.ends(), self._consumes)
            here = len(self._queue) + len(self._aside) + len(self._later)
            self._gauges.tick(self._held.values(), here + waiting)
            self._health.in_flight(len(self._held))

    def _stand_aside(self) -> None:
        """An operator asked to drain and no input is open: commit, then take nothing until resumed. The group keeps
        its members, so nobody else takes the input over."""
        self._commit(final=True)
        self._needs_rollback = True  # what was fetched and not begun is read again
        self._forget_held()
        self._member.idle(math.inf, self._drain_is_over)

    def _drain_is_over(self) -> bool:
        self._beat()
        self._say_whether_away()
        self._health.in_flight(0, drained=True)
        return self._stop.is_set() or not self._health.asked_to_drain

    def _suspect(self, error: Exception) -> None:
        """Say what is awaited, or note which input may be at fault."""
        if isinstance(error, _NOT_THE_INPUTS_FAULT):
            text = in_words(error, self._platform.state_dir)
            if isinstance(error, KafkaException):
                log.info("rolling back", reason=text)
            else:
                self._troubled_at = time.monotonic()
                self._health.waiting(text)
            return
        alone = self._isolation.alone and len(self._held) <= 1
        at = self._at_work
        if at is None and alone:
            at = next(iter(self._held), None)
        log.error(
            "unexpected failure, trying inputs one by one",
            offset=at and at.offset,
            partition=at and at.partition,
            exc_info=error,
        )
        self._isolation.failed(at, repr(error), alone=alone)

    def _wait(self, seconds: float) -> None:
        try:
            self._member.idle(seconds, self._is_stopped)
        except (Retriable, OperatorNeeded, KafkaException) as error:
            log.debug("while waiting", error=str(error))
            self._stop.wait(seconds)

    def _is_stopped(self) -> bool:
        """Asked again and again while something is waited for."""
        self._beat()
        return self._stop.is_set()

    def _turn(self) -> None:
        self._admit()
        advanced = self._advance()
        now = time.monotonic()
        due = self._since is not None and now - self._since >= self._platform.commit_seconds
        careful = self._isolation.alone and self._since is not None and not self._jobs
        careful = self._end_of_trial() or careful
        if due or careful or self._size_bytes >= self._platform.commit_bytes:
            self._commit(final=careful)
        self._tx.poll()
        if not (self._held or self._queue or self._aside or self._later):
            self._at_rest()
        elif not advanced and self._queue:
            time.sleep(_BUSY_WAIT_SECONDS)

    def _end_of_trial(self) -> bool:
        """The stage is through with the input that is tried, or has lived with it for long. -> settle it alone?"""
        at = self._trials.current
        if at is None:
            return False
        if self._trials.beat():
            self._commit(final=False)
        if at in self._jobs or self._trials.current is None:
            return False
        held = at in self._held and at not in self._finished
        if held and self._trials.thorough:
            return True
        if held:
            self._trials.taken()
        self._commit(final=False)
        return False

    def _at_rest(self) -> None:
        """Nothing to do: say whether that is because Kafka is away."""
        if self._say_whether_away() and self._topic_ids:
            self._pass_markers()
            joined = self._member.membership is not None
            self._sound = self._sound or (joined and time.monotonic() - self._began_at > _QUIET_SECONDS)

    def _say_whether_away(self) -> bool:
        """-> is Kafka there, as far as is known?"""
        away = self._member.away()
        if away:
            self._troubled_at = time.monotonic()
            self._health.waiting(away)
        elif self._topic_ids and time.monotonic() - self._troubled_at > _QUIET_SECONDS:
            self._is_well()
        return not away

    def _is_well(self) -> None:
        self._troubled_at = -math.inf
        self._health.ready()

    def _pass_markers(self) -> None:
        """Commit past the transaction markers behind the last record, so that a drained group shows no lag."""
        now = time.monotonic()
        if self._member.membership is None or now - self._rested_at < _REST_SECONDS:
            return
        self._rested_at = now
        positions = self._member.positions().items()
        moved = [p for p, position in positions if self._progress.pass_markers((self._consumes, p), position)]
        if moved:
            self._since = self._since or now

    # -- taking inputs
    def _admit(self) -> None:
        if not self._queue or time.monotonic() - self._polled_at > _POLL_EVERY_SECONDS:
            self._fetch()
        alone = self._isolation.alone
        limit = 0 if self._health.asked_to_drain else 1 if alone else self._stage.concurrency
        if self._aside and not (alone and self._held):
            self._reconsider()
        while self._queue and len(self._jobs) < limit and not (alone and self._held) and not self._trials.current:
            place = self._queue[0].at[:2]
            running = sum(1 for at in self._jobs if at[:2] == place)
            if not self._progress.has_room(place, running):
                break
            input = self._queue.popleft()
            if self._isolation.exhausted(input.at):
                self._aside.append(input)
            elif self._trials.last() not in (None, input.at):
                self._later.append(input)
            else:
                self._take_up(input)

    def _take_up(self, input: Input) -> None:
        """Begin an input, or put it aside, as its past says."""
        at = input.at
        way = self._trials.way(at)
        if way is Way.ASIDE:
            self._aside.append(input)
            self._trials.put_aside(at)
            return
        deaths = self._trials.deaths(at)
        if way is not Way.FREE:
            log.info("input tried alone", partition=at.partition, offset=at.offset, deaths=deaths)
            self._trials.begin(at, input.key)
        if self._trials.announce(at) or way is not Way.FREE:
            self._commit(final=False)
        if way is Way.CONDEMN:
            # Looking into it may be what kills.
            self._dead_letter(input, DEADLY, killed=True, look=deaths == DEATHS)
        else:
            self._start(input, self._stage.process(input, self._progress.mark(at).token))

    def _fetch(self) -> None:
        idle = not self._jobs and not self._queue
        wait = _IDLE_WAIT_SECONDS if idle else (0.0 if self._queue else _BUSY_WAIT_SECONDS)
        limit = 1 if self._queue or self._isolation.alone else _FETCH_RECORDS
        holding = bool(self._queue or self._held or self._aside or self._later or self._since is not None)
        self._polled_at = time.monotonic()
        for message in self._member.fetch(limit, wait, holding=holding):
            input = as_input(message, self._consumes)
            if self._progress.admit(input.at, input.key) is None:
                self._since = self._since or time.monotonic()
            else:
                self._queue.append(input)

    def _start(self, input: Input, job: Iterator[Step | None]) -> None:
        mark = self._progress.mark(input.at)
        delivery = self._held[input.at] = Delivery(input, mark.pass_id, mark.entries)
        self._jobs[input.at] = job
        self._size_bytes += len(input.value)
        self._since = self._since or time.monotonic()
        self._gauges.took(input, delivery)
        self._spans.taken(input)

    def _reconsider(self) -> None:
        """Dead-letter inputs set aside that are poison by now."""
        for input in list(self._aside):
            why = self._isolation.poison(input.at)
            if why is not None:
                self._aside.remove(input)
                self._dead_letter(input, why)
                return
        stuck = self._isolation.stuck() or self._trials.stuck()
        if stuck:
            self._health.waiting(stuck)
        if self._trials.due_for_last_try(idle=not (self._queue or self._held)):
            # Nothing may be beside it.
            self._needs_rollback = True

    def _dead_letter(self, input: Input, why: str, *, killed: bool = False, look: bool = True) -> None:
        log.error(
            "input dead-lettered: it failed alone while others passed",
            partition=input.at.partition,
            offset=input.at.offset,
            error=why,
        )
        self._condemned.append(input.at)
        self._start(input, iter([condemn(input, self._service, why, killed=killed, look=look)]))

    # -- running the stage
    def _advance(self) -> bool:
        """One step of every open job. -> did any yield one?"""
        advanced = False
        for at, job in list(self._jobs.items()):
            self._at_work = at
            try:
                step = next(job)
            except StopIteration:
                del self._jobs[at]
                advanced = True
                continue
            if step is not None:
                advanced = True
                self._take(step)
        self._at_work = None
        return advanced

    def _take(self, step: Step) -> None:
        """Check a step, note its progress, produce what it carries."""
        check(step)
        rows = rows_of(step.tally)
        deliveries = [self._held[at] for at in step.covers]
        for at, delivery in zip(step.covers, deliveries, strict=True):
            total = self._progress.note(at, rows.get(at, 0), step.resume)
            if total is not None:
                if delivery.rows not in (None, total):
                    raise Unbalanced(f"{at}: {total} rows settled, {delivery.rows} promised")
                self._finished.append(at)
        self._book.add(step)
        self._publish(step, deliveries, self._service)
        self._gauges.stepped(step, self._held)

    def _publish(self, step: Step, deliveries: Sequence[Delivery], service: str) -> None:
        """Produce what a step carries, or hand it on to the inner stage."""
        added = headers(step, deliveries, iso_utc(datetime.now(UTC)))
        self._spans.stepped(step, added, service)
        for emit in step.emits:
            named = emitted(emit, added)
            if self._inner is not None and self._inner.takes(emit):
                (outer,) = step.covers
                self._publish_inner(self._inner.feed(emit, named, outer, self._held[outer]))
            else:
                self._send(emit.topic, emit.value, emit.key, emit.partition, named)
        for reject in step.rejects:
            self._send_letter(reject, added, service)

    def _publish_inner(self, steps: Iterator[Step]) -> None:
        assert self._inner is not None
        for step in steps:
            deliveries = [self._inner.deliveries[at] for at in dict.fromkeys(step.covers)]
            self._publish(step, deliveries, self._inner.service)
            self._inner.gauges.stepped(step, self._inner.deliveries)

    def _send(self, topic: str, value: bytes, key: bytes | None, partition: int | None, named: dict[str, str]) -> None:
        self._since = self._since or time.monotonic()
        self._tx.send(
            topic_name(self._platform.topic_prefix, topic), value, key=key, partition=partition, headers=named
        )
        self._size_bytes += len(value)

    def _send_letter(self, reject: Reject, added: dict[str, str], service: str) -> None:
        letter = dead_letter(reject, service, self._input_topic, added["first_seen"])
        partition = int(letter.id[:8], 16) % self._dlq_partitions
        self._send("dlq", letter.raw, bytes.fromhex(letter.id), partition, lettered(letter, added))

    # -- commit and rollback
    def _commit(self, *, final: bool) -> None:
        started = time.monotonic()
        since = started if self._since is None else self._since
        for step in self._stage.settle(final=final):
            self._take(step)
        records = self._book.records(self._held, self._topic_ids)
        if self._inner is not None:
            self._publish_inner(self._inner.settle())
            records += self._inner.records()
        for record in records:
            self._send("ledger", record.encode(), record.origin.id.encode(), None, LEDGER_HEADERS)
        self._count_entries()
        self._trials.before_commit()
        offsets = self._progress.commit() if self._member.membership is not None else {}
        if offsets or self._tx.open:
            advanced = bool(self._finished or self._book.inputs())
            named = {(self._input_topic, p): where for (_, p), where in offsets.items()}
            self._tx.commit(named, self._member.membership)
            self._stage.committed()
            if self._inner is not None:
                self._inner.committed()
            self._after_commit()
            now = time.monotonic()
            self._gauges.committed(now - since, now - started, self._held.values())
            if advanced:
                self._sound = True
                self._is_well()
        self._size_bytes, self._since = 0, (time.monotonic() if self._held else None)
        self._book.clear()

    def _count_entries(self) -> None:
        """The next entry of an input still open gets the next sequence number, also after a crash."""
        for at in self._book.inputs():
            if at not in self._finished:
                self._held[at].sequence += 1
                self._progress.mark(at).entries = self._held[at].sequence

    def _after_commit(self) -> None:
        for at in self._finished:
            del self._held[at]
        for at in self._condemned:
            self._isolation.condemned(at)
        passed = [at for at in self._finished if at not in self._condemned]
        if passed or not self._condemned:
            self._isolation.passed(passed)
        self._trials.after_commit(len(passed))
        if self._trials.last() is None:
            self._queue.extendleft(reversed(self._later))
            self._later = []
        self._spans.committed(self._finished)
        self._finished, self._condemned = [], []
        self._focus()

    def _focus(self) -> None:
        """Fetch only the partition of an input that must come up next."""
        last = self._trials.last()
        self._member.focus(self._isolation.focus() if last is None else last.partition)

    def _roll_back(self) -> None:
        """Forget everything since the last commit: jobs, transaction, the stage's memory; back to what is committed."""
        self._close_jobs()
        rebuilt = self._tx.broken
        self._forget_held()
        self._tx.abort()
        self._stage.aborted()
        if self._inner is not None:
            self._inner.aborted()
        lost, self._member.lost = self._member.lost, set()
        if lost:
            self._stage.revoked(sorted(lost))
        self._trials.rolled_back()
        self._member.relocate()
        self._focus()
        if rebuilt:
            # Only after relocate: state must not be older than the offsets.
            self._member.fresh |= set(self._member.owned())
        self._restore_fresh()
        self._needs_rollback = False

    def _close_jobs(self) -> None:
        for job in self._jobs.values():
            close = getattr(job, "close", None)
            if close:
                close()

    def _restore_fresh(self) -> None:
        """Stage state of partitions that came. Raises Retriable: called again."""
        fresh = sorted(self._member.fresh)
        if not fresh and self._topic_ids:
            return
        self._topic_ids = {self._consumes: self._topics.topic_id(self._consumes)}
        self._dlq_partitions = self._dlq_partitions or self._topics.partitions("dlq")
        self._stage.assigned(fresh)
        self._member.fresh -= set(fresh)
        if self._troubled_at == -math.inf:
            self._health.ready()

    # -- the end
    def _drain(self) -> None:
        """Settle and commit what is held, leave the group, within the deadline."""
        self._health.draining()
        deadline = time.monotonic() + self._platform.drain_seconds
        if not self._needs_rollback:
            try:
                self._trials.withdraw()
                self._commit(final=True)
            except Exception as error:
                log.warning("the last commit failed; the next owner redoes it", error=error)
        self._close_jobs()
        if not self._member.close(max(1.0, deadline - time.monotonic())):
            log.warning("the group could not be left in time; its session will expire")

    def _abandon(self, error: Exception) -> None:
        """Leave at once after something fatal: nothing of it may be committed."""
        if not isinstance(error, Fenced):
            self._withdraw()
        self._member.close(3.0)

    def _withdraw(self) -> None:
        """The input that is tried is not what ends this process: commit that, on top of what is committed."""
        self._close_jobs()
        self._progress.rewind()
        self._trials.withdraw()
        offsets = self._progress.commit() if self._member.membership is not None else {}
        if not (offsets or self._tx.open):
            return
        try:
            self._tx.abort()
            if offsets:
                named = {(self._input_topic, p): where for (_, p), where in offsets.items()}
                self._tx.commit(named, self._member.membership)
        except Exception as failure:
            log.warning("what was begun could not be taken back", error=failure)
