"""Events in, typed rows out. Pure: no Kafka, no clock.

Events are held, per dataset version, until enough is gathered or a commit is due: one step then covers many events, and
one message carries rows of many sources.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from ingestcore.datasets.registry import Registry
from ingestcore.messages.events import Event
from ingestcore.reasons import Reason
from ingestcore.stage import Fate, Input, Line, Stateless, Step
from ingestcore.tabular.event_body import MAX_DEPTH
from ingestcore.tabular.events import BadEvent, EventReader
from services.event_parser.gather import Group
from services.event_parser.letters import letter_of, stranger

_READERS: Final = 256
"""Dataset versions whose readers are kept."""


class EventParser(Stateless):
    """The stage. `partitions`: of `ingest.typed`; sizes are in bytes of bodies, see `EventParserSettings`."""

    def __init__(
        self,
        specs: Registry,
        partitions: int,
        *,
        gather_bytes: int = 4 << 20,
        gather_events: int = 10_000,
        message_bytes: int = 4 << 20,
        max_depth: int = MAX_DEPTH,
    ) -> None:
        self._specs = specs
        self._partitions = partitions
        self._gather_bytes = gather_bytes
        self._gather_events = gather_events
        self._message_bytes = message_bytes
        self._max_depth = max_depth
        self._groups: dict[str, Group] = {}
        self._held_bytes = self._held_events = 0
        self._readers: OrderedDict[str, EventReader | str] = OrderedDict()

    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        """Raises NotSeenYet: the dataset version has not come through the configuration yet."""
        try:
            event = Event.of(input.value, input.headers)
        except ValueError as error:
            reject = stranger(input, str(error))
            yield Step((input.at,), (Line(input.at, reject.origin, Fate.REJECTED, 1),), rejects=(reject,))
            return
        reader = self._reader(event.object.dataset)
        if isinstance(reader, str):
            reject = letter_of(BadEvent(0, Reason.SCHEMA_DRIFT, reader), event, input)
            yield Step((input.at,), (Line(input.at, reject.origin, Fate.REJECTED, 1),), rejects=(reject,))
            return
        dataset = event.object.dataset
        group = self._groups.get(dataset)
        if group is None:
            group = self._groups[dataset] = Group(dataset, reader)
        group.add(input, event)
        self._held_bytes += len(event.body)
        self._held_events += 1
        if self._held_bytes >= self._gather_bytes or self._held_events >= self._gather_events:
            yield from self.settle(final=False)

    def settle(self, *, final: bool) -> Iterator[Step]:
        groups = list(self._groups.values())
        self.aborted()
        for group in groups:
            yield group.step(self._partitions, self._message_bytes)

    def aborted(self) -> None:
        self._groups.clear()
        self._held_bytes = self._held_events = 0

    def _reader(self, dataset: str) -> EventReader | str:
        """-> the dataset's, or why there can be none."""
        known = self._readers.get(dataset)
        if known is None:
            known = self._readers[dataset] = self._make_reader(dataset)
            if len(self._readers) > _READERS:
                self._readers.popitem(last=False)
        self._readers.move_to_end(dataset)
        return known

    def _make_reader(self, dataset: str) -> EventReader | str:
        spec = self._specs.dataset(dataset)
        try:
            return EventReader(spec, self._max_depth)
        except ValueError as error:
            return f"the dataset {dataset} can't take events: {error}. Mend the spec, apply it, and post them again"
