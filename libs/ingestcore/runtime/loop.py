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
from collections.abc import Iterator

import structlog
from confluent_kafka import KafkaException

from ingestcore.kafka.errors import KafkaRefused, Rebalanced
from ingestcore.kafka.group import GroupMember
from ingestcore.kafka.transactions import Transactions
from ingestcore.observe.health import Health
from ingestcore.runtime.access import Topics
from ingestcore.runtime.admission import Admission
from ingestcore.runtime.gauges import StageGauges
from ingestcore.runtime.held import Held
from ingestcore.runtime.inner import Inner
from ingestcore.runtime.isolation import Isolation
from ingestcore.runtime.poison import DEADLY, condemn
from ingestcore.runtime.progress import Progress
from ingestcore.runtime.publishing import Publishing
from ingestcore.runtime.recording import LedgerBook
from ingestcore.runtime.spans import Spans
from ingestcore.runtime.trials import DEATHS, Trials, Way
from ingestcore.runtime.trouble import in_words
from ingestcore.runtime.wellbeing import Wellbeing
from ingestcore.settings import Platform
from ingestcore.stage import Fenced, Gap, Input, NewerFormat, OperatorNeeded, Retriable, Stage, Step, Unbalanced
from ingestcore.topics import topic_name

log = structlog.get_logger(__name__)

_BUSY_WAIT_SECONDS = 0.01
_REST_SECONDS = 1.0
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
        self._topic_ids: dict[str, str] = {}
        self._progress = Progress()
        self._isolation = Isolation(time.monotonic)
        self._trials = Trials(self._progress, time.monotonic)
        self._member = GroupMember(
            platform, self._input_topic, platform.group(instance), self._on_located, self._on_left
        )
        self._held = Held(self._progress, LedgerBook(service, instance, platform.replica))
        self._admission = Admission(
            self._member, consumes, stage.concurrency, self._progress, self._isolation, self._trials, self._held
        )
        self._publishing = Publishing(
            platform.topic_prefix, self._input_topic, transactions, self._held, self._spans, inner
        )
        self._wellbeing = Wellbeing(health, self._member)
        self._rested_at = 0.0
        # The first turn makes the producer, which fences an elder process of the same replica id.
        self._needs_rollback = True

    def _forget_held(self) -> None:
        """Nothing is held, nothing is uncommitted."""
        self._admission.forget()
        self._held.forget()
        if self._inner is not None:
            self._inner.clear()

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
                if self._health.asked_to_drain and not self._held.jobs:
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
                if isinstance(error, KafkaRefused) and not self._wellbeing.sound:
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
            self._gauges.tick(self._held.inputs.values(), len(self._admission) + waiting)
            self._health.in_flight(len(self._held.inputs))

    def _stand_aside(self) -> None:
        """An operator asked to drain and no input is open: commit, then take nothing until resumed. The group keeps
        its members, so nobody else takes the input over."""
        self._commit(final=True)
        self._needs_rollback = True  # what was fetched and not begun is read again
        self._forget_held()
        self._member.idle(math.inf, self._drain_is_over)

    def _drain_is_over(self) -> bool:
        self._beat()
        self._wellbeing.kafka_is_there(started=bool(self._topic_ids))
        self._health.in_flight(0, drained=True)
        return self._stop.is_set() or not self._health.asked_to_drain

    def _suspect(self, error: Exception) -> None:
        """Say what is awaited, or note which input may be at fault."""
        if isinstance(error, _NOT_THE_INPUTS_FAULT):
            text = in_words(error, self._platform.state_dir)
            if isinstance(error, KafkaException):
                log.info("rolling back", reason=text)
            else:
                self._wellbeing.waits_for(text)
            return
        alone = self._isolation.alone and len(self._held.inputs) <= 1
        at = self._held.at_work
        if at is None and alone:
            at = next(iter(self._held.inputs), None)
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
        careful = self._isolation.alone and self._held.since is not None and not self._held.jobs
        careful = self._end_of_trial() or careful
        if careful or self._held.due(self._platform.commit_seconds, self._platform.commit_bytes):
            self._commit(final=careful)
        self._tx.poll()
        if not (self._held.inputs or self._admission):
            self._at_rest()
        elif not advanced and self._admission.queued:
            time.sleep(_BUSY_WAIT_SECONDS)

    def _end_of_trial(self) -> bool:
        """The stage is through with the input that is tried, or has lived with it for long. -> settle it alone?"""
        at = self._trials.current
        if at is None:
            return False
        if self._trials.beat():
            self._commit(final=False)
        if at in self._held.jobs or self._trials.current is None:
            return False
        held = at in self._held.inputs and at not in self._held.finished
        if held and self._trials.thorough:
            return True
        if held:
            self._trials.taken()
        self._commit(final=False)
        return False

    def _at_rest(self) -> None:
        """Nothing to do: say whether that is because Kafka is away."""
        if self._wellbeing.kafka_is_there(started=bool(self._topic_ids)) and self._topic_ids:
            self._pass_markers()
            self._wellbeing.at_rest()

    def _pass_markers(self) -> None:
        """Commit past the transaction markers behind the last record, so that a drained group shows no lag."""
        now = time.monotonic()
        if self._member.membership is None or now - self._rested_at < _REST_SECONDS:
            return
        self._rested_at = now
        positions = self._member.positions().items()
        moved = [p for p, position in positions if self._progress.pass_markers((self._consumes, p), position)]
        if moved:
            self._held.began()

    # -- taking inputs
    def _admit(self) -> None:
        self._admission.fetch_if_due()
        if self._admission.aside and not (self._isolation.alone and self._held.inputs):
            self._reconsider()
        while not self._health.asked_to_drain and (input := self._admission.next()) is not None:
            self._take_up(input)

    def _take_up(self, input: Input) -> None:
        """Begin an input, or put it aside, as its past says."""
        at = input.at
        way = self._trials.way(at)
        if way is Way.ASIDE:
            self._admission.aside.append(input)
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

    def _start(self, input: Input, job: Iterator[Step | None]) -> None:
        delivery = self._held.start(input, job)
        self._gauges.took(input, delivery)
        self._spans.taken(input)

    def _reconsider(self) -> None:
        """Dead-letter an input set aside that is poison by now, or say what those set aside wait for."""
        found = self._admission.poison()
        if found is not None:
            self._dead_letter(*found)
            return
        stuck = self._isolation.stuck() or self._trials.stuck()
        if stuck:
            self._health.waiting(stuck)
        if self._trials.due_for_last_try(idle=not (self._admission.queued or self._held.inputs)):
            # Nothing may be beside it.
            self._needs_rollback = True

    def _dead_letter(self, input: Input, why: str, *, killed: bool = False, look: bool = True) -> None:
        log.error(
            "input dead-lettered: it failed alone while others passed",
            partition=input.at.partition,
            offset=input.at.offset,
            error=why,
        )
        self._held.condemned.append(input.at)
        self._start(input, iter([condemn(input, self._service, why, killed=killed, look=look)]))

    # -- running the stage
    def _advance(self) -> bool:
        """One step of every open job. -> did any yield one, or end?"""
        advanced = False
        for step in self._held.turn():
            advanced = True
            if step is not None:
                self._take(step)
        return advanced

    def _take(self, step: Step) -> None:
        """Check a step, note its progress, produce what it carries."""
        self._publishing.publish(step, self._held.take(step), self._service)
        self._gauges.stepped(step, self._held.inputs)

    # -- commit and rollback
    def _commit(self, *, final: bool) -> None:
        started = time.monotonic()
        since = started if self._held.since is None else self._held.since
        for step in self._stage.settle(final=final):
            self._take(step)
        self._publishing.publish_ledger(self._held.records(self._topic_ids))
        self._held.count_entries()
        self._trials.before_commit()
        offsets = self._offsets()
        if offsets or self._tx.open:
            advanced = self._held.advanced()
            self._tx.commit(offsets, self._member.membership)
            self._stage.committed()
            if self._inner is not None:
                self._inner.committed()
            self._after_commit()
            now = time.monotonic()
            self._gauges.committed(now - since, now - started, self._held.inputs.values())
            if advanced:
                self._wellbeing.worked()
        self._held.begin_anew()

    def _offsets(self) -> dict[tuple[str, int], tuple[int, str]]:
        """-> offset and metadata to commit, by full topic name and partition; none before the group is joined."""
        if self._member.membership is None:
            return {}
        return {(self._input_topic, p): where for (_, p), where in self._progress.commit().items()}

    def _after_commit(self) -> None:
        finished, condemned = self._held.finished, self._held.condemned
        self._held.committed()
        for at in condemned:
            self._isolation.condemned(at)
        passed = [at for at in finished if at not in condemned]
        if passed or not condemned:
            self._isolation.passed(passed)
        self._trials.after_commit(len(passed))
        self._admission.committed()
        self._spans.committed(finished)
        self._focus()

    def _focus(self) -> None:
        """Fetch only the partition of an input that must come up next."""
        last = self._trials.last()
        self._member.focus(self._isolation.focus() if last is None else last.partition)

    def _roll_back(self) -> None:
        """Forget everything since the last commit: jobs, transaction, the stage's memory; back to what is committed."""
        self._held.close_jobs()
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

    def _restore_fresh(self) -> None:
        """Stage state of partitions that came. Raises Retriable: called again."""
        fresh = sorted(self._member.fresh)
        if not fresh and self._topic_ids:
            return
        self._topic_ids = {self._consumes: self._topics.topic_id(self._consumes)}
        if not self._publishing.dlq_partitions:
            self._publishing.dlq_partitions = self._topics.partitions("dlq")
        self._stage.assigned(fresh)
        self._member.fresh -= set(fresh)
        self._wellbeing.ready_unless_troubled()

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
        self._held.close_jobs()
        if not self._member.close(max(1.0, deadline - time.monotonic())):
            log.warning("the group could not be left in time; its session will expire")

    def _abandon(self, error: Exception) -> None:
        """Leave at once after something fatal: nothing of it may be committed."""
        if not isinstance(error, Fenced):
            self._withdraw()
        self._member.close(3.0)

    def _withdraw(self) -> None:
        """The input that is tried is not what ends this process: commit that, on top of what is committed."""
        self._held.close_jobs()
        self._progress.rewind()
        self._trials.withdraw()
        offsets = self._offsets()
        if not (offsets or self._tx.open):
            return
        try:
            self._tx.abort()
            if offsets:
                self._tx.commit(offsets, self._member.membership)
        except Exception as failure:
            log.warning("what was begun could not be taken back", error=failure)
