"""Events of one dataset version, held until they are parsed and emitted together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.datasets.spec import FieldSpec, Type
from ingestcore.messages import rows as messages
from ingestcore.messages.events import Event
from ingestcore.stage import Emit, Fate, Input, Line, Origin, Step
from ingestcore.tabular.events import EventReader, EventRows
from ingestcore.tabular.keys import Owner, event_keys
from ingestcore.tabular.texts import convert
from ingestcore.tabular.typed import Coded, typed_messages
from services.event_parser.letters import letter_of

_MOMENT: Final = FieldSpec(type=Type.TIMESTAMP)
_TOO_FINE = re.compile(r"(\.\d{6})\d+")


@dataclass
class Group:
    """Events of one dataset version. `dataset`: `name@version`; `nbytes`: of the bodies held."""

    dataset: str
    reader: EventReader
    inputs: list[Input] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    nbytes: int = 0

    def add(self, input: Input, event: Event) -> None:
        self.inputs.append(input)
        self.events.append(event)
        self.nbytes += len(event.body)

    def step(self, partitions: int, message_bytes: int) -> Step:
        """-> one step that covers all events: per partition as few messages as the limits allow."""
        parsed = self.reader.read(self.events)
        refused = {bad.place for bad in parsed.bad}
        tally = [
            Line(input.at, Origin.of(event.object), Fate.REJECTED if place in refused else Fate.EMITTED, 1)
            for place, (input, event) in enumerate(zip(self.inputs, self.events, strict=True))
        ]
        return Step(
            covers=[input.at for input in self.inputs],
            tally=tally,
            emits=[emit for made in parsed.rows for emit in self._emits(made, partitions, message_bytes)],
            rejects=[letter_of(bad, self.events[bad.place], self.inputs[bad.place]) for bad in parsed.bad],
        )

    def _emits(self, made: EventRows, partitions: int, message_bytes: int) -> Iterator[Emit]:
        if not made.rows.num_rows:
            return
        rows = made.rows.combine_chunks()
        coded = {messages.OBJECT: Coded(), messages.HASH: Coded()}
        platform = self._platform_columns(rows, made.places, coded)
        yield from typed_messages(
            rows,
            dict(zip((*messages.TYPED_FIELDS, *messages.EVENT_FIELDS), platform, strict=True)),
            coded,
            dataset=self.dataset,
            partitions=partitions,
            message_bytes=message_bytes,
        )

    def _platform_columns(self, rows: pa.Table, places: NDArray[np.int64], coded: dict[str, Coded]) -> list[pa.Array]:
        """-> in the order of TYPED_FIELDS and EVENT_FIELDS; `_object` and `_hash` still as codes."""
        events = [self.events[place] for place in places.tolist()]
        owners = [(owner, len(list(same))) for owner, same in groupby(Owner.of_events(e.object) for e in events)]
        made = event_keys(rows, self.reader.spec, owners, pa.array([e.identity for e in events], pa.string()))
        received, observed = _moments([e.received for e in events]), _moments([e.time for e in events])
        hashes = [hashlib.sha256(e.body).hexdigest() for e in events]
        return [
            made.entity,
            made.key,
            pa.array(coded[messages.OBJECT].codes(e.object.encode() for e in events)),
            pa.array(coded[messages.HASH].codes(hashes)),
            pa.array([self.inputs[place].at.offset for place in places.tolist()], pa.int64()),
            received.cast(pa.timestamp("ms", "UTC"), safe=False),
            observed,
        ]


def _moments(moments: list[str]) -> pa.Array:
    """RFC 3339 -> microseconds, UTC; null where there is none, or what stands there is none."""
    texts = [_TOO_FINE.sub(r"\1", text.upper()).encode() for text in moments]
    return convert(pa.array(texts, pa.binary()), _MOMENT).values
