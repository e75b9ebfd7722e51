"""Events of one dataset version -> typed rows and bad events. Pure; every event comes out once.

What becomes of an event never depends on the events beside it.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.datasets.encodings import UTF_8
from ingestcore.datasets.event_paths import MISSING
from ingestcore.datasets.spec import DatasetSpec
from ingestcore.messages.events import Event
from ingestcore.reasons import Reason
from ingestcore.tabular.event_body import MAX_DEPTH, Unfit, exact_payload, is_structured, payload
from ingestcore.tabular.event_columns import PERHAPS_INEXACT, column_of, shown
from ingestcore.tabular.event_plan import EventPlan
from ingestcore.tabular.judge import checks, good_rows, judge
from ingestcore.tabular.reader import Part
from ingestcore.tabular.texts import Converted

_PLANS: Final = 256
"""Sets of further members whose plans are kept."""


@dataclass(frozen=True, slots=True)
class BadEvent:
    """An event that is no row of the dataset. `place`: among those given; `fault`: what is wrong with the body as a
    whole; `column`: by its name in the rows."""

    place: int
    reason: Reason
    message: str
    fault: str = ""
    column: str = ""
    value: str = ""


@dataclass(frozen=True)
class EventRows:
    """Good rows of one schema. `places`: of their events, ascending."""

    rows: pa.Table
    places: NDArray[np.int64]


@dataclass(frozen=True)
class ParsedEvents:
    """What became of some events: each is in one of `rows`, or bad."""

    rows: tuple[EventRows, ...]
    bad: tuple[BadEvent, ...]


class EventReader:
    """Reads events of one dataset version."""

    def __init__(self, spec: DatasetSpec, max_depth: int = MAX_DEPTH) -> None:
        """Raises ValueError: the spec is none for events."""
        self.spec = spec
        self._max_depth = max_depth
        self._plain = EventPlan.of(spec)
        self._plans: OrderedDict[tuple[str, ...], EventPlan] = OrderedDict()

    def read(self, events: Sequence[Event]) -> ParsedEvents:
        """-> rows of all of them."""
        bad: list[BadEvent] = []
        alike: dict[tuple[str, ...], tuple[list[int], list[Any]]] = defaultdict(lambda: ([], []))
        for place, event in enumerate(events):
            try:
                body = payload(event, self._max_depth)
            except Unfit as unfit:
                bad.append(BadEvent(place, Reason.VALIDATION_FAIL, str(unfit), unfit.fault.value))
                continue
            rest, refusal = self._plain.surplus(body.keys())
            if refusal:
                bad.append(BadEvent(place, Reason.SCHEMA_DRIFT, refusal))
                continue
            places, bodies = alike[rest]
            places.append(place)
            bodies.append(body)
        rows = []
        for rest, (places, bodies) in alike.items():
            made, refused = _Bodies(self._plan(rest), events, places, bodies).read()
            rows.append(made)
            bad += refused
        return ParsedEvents(tuple(rows), tuple(sorted(bad, key=lambda one: one.place)))

    def _plan(self, rest: tuple[str, ...]) -> EventPlan:
        if not rest:
            return self._plain
        known = self._plans.get(rest)
        if known is None:
            known = self._plans[rest] = EventPlan.of(self.spec, rest)
            if len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(rest)
        return known


class _Bodies:
    """Bodies with the same members, so far as these become columns."""

    def __init__(self, plan: EventPlan, events: Sequence[Event], places: list[int], bodies: list[Any]) -> None:
        self._plan, self._events, self._places, self._bodies = plan, events, places, bodies
        self._exact: dict[int, Any] = {}
        self._inexact: dict[int, bool] = {}

    def read(self) -> tuple[EventRows, list[BadEvent]]:
        plan = self._plan
        values = [self._values(number) for number in range(len(plan.columns))]
        bad = self._missing(values)
        if bad:
            kept = [at for at in range(len(self._places)) if at not in bad]
            whole = _Bodies(
                plan, self._events, [self._places[at] for at in kept], [self._bodies[at] for at in kept]
            ).read()
            return whole[0], [*bad.values(), *whole[1]]
        columns = {column.name: self._column(number, values[number]) for number, column in enumerate(plan.columns)}
        part = Part(np.arange(len(self._places), dtype=np.int64), columns)
        judged = judge(part, plan.columns)
        rows, good = good_rows([judged], plan.schema)
        known = checks(plan.columns, UTF_8) if len(good) < len(self._places) else []
        refused = []
        for at in np.flatnonzero(judged.broken >= 0).tolist():
            column, words = known[judged.broken[at]]
            refused.append(
                BadEvent(
                    self._places[at],
                    Reason.VALIDATION_FAIL,
                    f"{column.name} {words}",
                    column=column.name,
                    value=shown(self._as_written(column.place, values[column.place], at)),
                )
            )
        return EventRows(rows, np.array(self._places, np.int64)[good]), refused

    def _values(self, number: int) -> list[Any]:
        """-> the values of one column, MISSING where there is nothing."""
        path = self._plan.paths[number]
        if path.attribute:
            return [_attribute(self._events[place], path.attribute) for place in self._places]
        if path.whole:
            return self._bodies
        if len(path.steps) == 1:
            name = path.head
            return [body.get(name, MISSING) for body in self._bodies]
        return [path.find(body) for body in self._bodies]

    def _missing(self, values: list[list[Any]]) -> dict[int, BadEvent]:
        """What a required field lacks, by place in the bodies; MISSING of others becomes None."""
        bad: dict[int, BadEvent] = {}
        for column, found in zip(self._plan.columns, values, strict=True):
            if MISSING not in found:
                continue
            for at, value in enumerate(found):
                if value is not MISSING:
                    continue
                found[at] = None
                if column.field.required and at not in bad:
                    message = (
                        f"{column.name} is missing: nothing stands at {column.source!r}. Send it, or null, or set "
                        "`required: false`"
                    )
                    bad[at] = BadEvent(self._places[at], Reason.SCHEMA_DRIFT, message, column=column.name)
        return bad

    def _column(self, number: int, values: list[Any]) -> Converted:
        field = self._plan.columns[number].field
        return column_of(values, field, lambda at: self._as_written(number, values, at), self._may_be_inexact)

    def _as_written(self, number: int, values: list[Any], at: int) -> Any:
        """-> one value, its numbers as the producer wrote them."""
        if type(values[at]) not in (float, dict, list):
            return values[at]
        if at not in self._exact:
            self._exact[at] = exact_payload(self._events[self._places[at]])
        return self._plan.paths[number].find(self._exact[at])

    def _may_be_inexact(self, at: int) -> bool:
        if at not in self._inexact:
            event = self._events[self._places[at]]
            self._inexact[at] = is_structured(event) or PERHAPS_INEXACT.search(event.body) is not None
        return self._inexact[at]


def _attribute(event: Event, name: str) -> str | None:
    return {
        "$event_id": event.id,
        "$event_source": event.source,
        "$event_type": event.type,
        "$event_time": event.time or None,
        "$event_received": event.received,
    }[name]
