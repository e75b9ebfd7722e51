"""Going after an event that was posted, step by step, until it is a row, a repeat or a dead letter."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from rich.markup import escape

from ingestcore.cli.console import err, out
from ingestcore.cli.inputs import open_s3
from ingestcore.datasets.registry import Registry
from ingestcore.settings import Platform
from ingestcore.trace.events import named
from ingestcore.trace.reads import Reads
from ingestcore.trace.story import Fate, Story
from ingestcore.trace.tracer import trace_event

_LOOK_SECONDS: Final = 0.2
_SKEW_SECONDS: Final = 120.0
"""How far this machine's clock may be from the broker's: an event is not looked for before it was posted."""


def arrived(story: Story) -> bool:
    """Whether it ended as a row, its own or that of the event it repeats. Pure."""
    return story.fate in (Fate.PUBLISHED, Fate.DUPLICATE) and not story.letters


def steps(story: Story) -> Iterator[tuple[str, str, int | None]]:
    """-> name, place and broker's time (ms; None: seen now) of each step an event has made. Pure."""
    if story.event is not None:
        yield "accepted", f"events[{story.event.partition}]@{story.event.offset}", story.moments["accepted"]
    for where in story.typed[:1]:
        yield "parsed", str(where), story.moments.get("parsed")
    if story.first is not None:
        yield "repeat", f"of row {story.first.row} of {story.first.uri}, {story.first.where}", None
    for where in story.normalized[:1]:
        yield "published", str(where), story.moments.get("published")
    for letter in story.letters:
        text = f"{letter['reason']} by {letter['stage']}: {letter['message']} (id {letter['id']})"
        yield "dead letter", text, story.moments.get("dead letter")
    # The topic is read before the table: a row may be in Postgres that was not yet published a moment ago.
    for table in story.tables if story.normalized else ():
        yield "in Postgres", str(table), None


class Follower:
    """deadline: seconds from now; quiet: nothing is printed."""

    def __init__(
        self, platform: Platform, specs: Registry, folder: Path, source: str, deadline: float, *, quiet: bool
    ) -> None:
        self._platform, self._specs, self._source, self._quiet = platform, specs, source, quiet
        self._open = partial(open_s3, folder)
        self.late = False
        """Whether something was not seen to its end in time."""
        self._posted, self._until, self._allowed = time.time(), time.monotonic() + deadline, deadline

    def follow(self, taken: Sequence[tuple[str, bool]]) -> list[Story]:
        """(event id, whether it was a repeat) -> what became of them, as far as it was seen in time. Raises Retriable:
        Kafka is away."""
        return [self._one(id, repeat, more=len(taken) > 1) for id, repeat in taken]

    def _one(self, id: str, repeat: bool, *, more: bool) -> Story:
        said = set[str]()
        if more:
            self._say(f"[bold]{escape(id)}[/]")
        while True:
            story = self._look(id, repeat)
            for name, place, moment_ms in steps(story) if story else ():
                if name not in said:
                    said.add(name)
                    after = self._after(story, moment_ms) if story and not repeat else ""
                    self._say(f"{after:>10}  {name:<12} {escape(place)}")
            if story is not None and self._ended(story):
                return story
            if time.monotonic() > self._until:
                self._give_up(id, story)
                return story or Story("", 0, why="not found in the topic events")
            time.sleep(_LOOK_SECONDS)

    def _look(self, id: str, repeat: bool) -> Story | None:
        reads = Reads(self._platform, self._specs, self._open)
        since_ms = 0 if repeat else int((self._posted - _SKEW_SECONDS) * 1000)
        found = next(iter(named(reads, id, self._source, since_ms)), None)
        return trace_event(reads, found, fresh=not repeat) if found is not None else None

    def _ended(self, story: Story) -> bool:
        if story.letters or story.first is not None:
            return True
        table = story.dataset.rpartition("@")[0]
        wanted = {name for name, spec in self._specs.sinks().items() if spec.postgres and spec.takes(table)}
        if not wanted and story.normalized:
            self._say(f"{'':>10}  no sink for Postgres takes {escape(table)}: `ingest trace` finds it in the lake")
            return True
        return bool(story.normalized) and wanted <= {row.sink for row in story.tables} and bool(story.tables)

    def _after(self, story: Story, moment_ms: int | None) -> str:
        """-> time since the event was accepted; by the broker's clock, of what is seen by this machine's."""
        seconds = time.time() - self._posted if moment_ms is None else (moment_ms - story.moments["accepted"]) / 1000
        return f"+{max(0.0, seconds):.3f} s"

    def _give_up(self, id: str, story: Story | None) -> None:
        self.late = True
        if story is None:
            text = f"{id} is not in the topic events: does the gateway write to this Kafka?"
        else:
            last = [name for name, _, _ in steps(story)][-1]
            why = "; ".join(filter(None, (story.why, *story.notes)))
            text = f"{id} was {last} and went no further within {self._allowed:g} s ({why or 'nothing is known'})"
            text += f": `ingest status` shows who is behind, `ingest trace {id}` looks again"
        err().print(f"[red]ingest:[/red] {escape(text)}")

    def _say(self, text: str) -> None:
        if not self._quiet:
            out().print(text)
