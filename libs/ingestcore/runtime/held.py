"""What is taken up and not committed: open jobs, inputs, the ledger's lines of the next commit and when that is due."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ingestcore.messages.ledger import LedgerRecord
from ingestcore.runtime.progress import Progress
from ingestcore.runtime.recording import Delivery, LedgerBook, rows_of
from ingestcore.stage import At, Input, Step, Unbalanced, check


class Held:
    """All of it is forgotten by a rollback; a commit leaves the inputs that are not finished."""

    def __init__(self, progress: Progress, book: LedgerBook) -> None:
        self._progress, self._book = progress, book
        self.forget()

    def forget(self) -> None:
        """Nothing is held, nothing is uncommitted."""
        self.jobs: dict[At, Iterator[Step | None]] = {}
        self.inputs: dict[At, Delivery] = {}
        self.finished: list[At] = []
        self.condemned: list[At] = []
        """Finished as poison: their letters are in this commit."""
        self.at_work: At | None = None
        """Whose job is being run, or failed."""
        self.size_bytes = 0
        """Of inputs taken and messages sent since the last commit."""
        self.since: float | None = None
        """When the first of what is to be committed came (monotonic seconds)."""
        self._book.clear()

    # -- inputs and their steps
    def start(self, input: Input, job: Iterator[Step | None]) -> Delivery:
        mark = self._progress.mark(input.at)
        delivery = self.inputs[input.at] = Delivery(input, mark.pass_id, mark.entries)
        self.jobs[input.at] = job
        self.grew(len(input.value))
        return delivery

    def turn(self) -> Iterator[Step | None]:
        """-> a step of every open job that has one; None of a job that ended. The job is `at_work` while its step is
        dealt with."""
        for at, job in list(self.jobs.items()):
            self.at_work = at
            try:
                step = next(job)
            except StopIteration:
                del self.jobs[at]
                yield None
                continue
            if step is not None:
                yield step
        self.at_work = None

    def take(self, step: Step) -> list[Delivery]:
        """Check a step and note its progress. -> deliveries of the inputs it covers. Raises Unbalanced."""
        check(step)
        rows = rows_of(step.tally)
        deliveries = [self.inputs[at] for at in step.covers]
        for at, delivery in zip(step.covers, deliveries, strict=True):
            total = self._progress.note(at, rows.get(at, 0), step.resume)
            if total is not None:
                if delivery.rows not in (None, total):
                    raise Unbalanced(f"{at}: {total} rows settled, {delivery.rows} promised")
                self.finished.append(at)
        self._book.add(step)
        return deliveries

    def close_jobs(self) -> None:
        for job in self.jobs.values():
            close = getattr(job, "close", None)
            if close:
                close()

    # -- the next commit
    def began(self) -> None:
        """There is something to commit from now on."""
        self.since = self.since or time.monotonic()

    def grew(self, nbytes: int) -> None:
        self.began()
        self.size_bytes += nbytes

    def due(self, seconds: float, nbytes: int) -> bool:
        """-> is it old or large enough to be committed?"""
        old = self.since is not None and time.monotonic() - self.since >= seconds
        return old or self.size_bytes >= nbytes

    def advanced(self) -> bool:
        """-> does the commit take inputs along?"""
        return bool(self.finished or self._book.inputs())

    def records(self, topic_ids: dict[str, str]) -> list[LedgerRecord]:
        """-> the ledger's records of the commit."""
        return self._book.records(self.inputs, topic_ids)

    def count_entries(self) -> None:
        """The next entry of an input still open gets the next sequence number, also after a crash."""
        for at in self._book.inputs():
            if at not in self.finished:
                self.inputs[at].sequence += 1
                self._progress.mark(at).entries = self.inputs[at].sequence

    def committed(self) -> None:
        """It is in: finished inputs are no longer held."""
        for at in self.finished:
            del self.inputs[at]
        self.finished, self.condemned = [], []

    def begin_anew(self) -> None:
        """The time and the size of the next commit count from now on."""
        self.size_bytes, self.since = 0, (time.monotonic() if self.inputs else None)
        self._book.clear()
