"""`from:` of a field of events: where in an event its value is. Pure.

    issue.id                a member of a member of the body
    issue.fields[0].name    an item of an array, from 0
    ["a.b"].c               a name that holds a point or a bracket
    $                       the whole body; `$.issue.id` is `issue.id`
    $event_id               what is known of the event beside its body, see ATTRIBUTES

A field without `from` is the body's member of the field's own name, whatever characters that has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

ATTRIBUTES: Final = {
    "$event_id": "CloudEvents `id`: the producer's, or the one that was made",
    "$event_source": "CloudEvents `source`",
    "$event_type": "CloudEvents `type`",
    "$event_time": "CloudEvents `time`, null where nobody said",
    "$event_received": "when it was taken in",
}

_STEP = re.compile(r'(?:\A|\.)(?P<name>[^.\[\]"$][^.\[\]"]*)|\[(?P<item>\d{1,9})\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]')


class Missing:
    """The type of MISSING."""


MISSING: Final = Missing()
"""Nothing stands there: not the same as a null."""


@dataclass(frozen=True, slots=True)
class Path:
    """steps: names of members and numbers of items, from the body on; none: the whole body.
    attribute: one of ATTRIBUTES, which is no part of the body."""

    text: str
    steps: tuple[str | int, ...] = ()
    attribute: str = ""

    @property
    def head(self) -> str:
        """-> the member of the body it leads into; "": none in particular."""
        return str(self.steps[0]) if self.steps else ""

    @property
    def whole(self) -> bool:
        return not self.steps and not self.attribute

    def find(self, body: Any) -> Any:
        """-> the value there, or MISSING. Not of an attribute."""
        value = body
        for step in self.steps:
            if type(step) is str:
                if type(value) is not dict:
                    return MISSING
                value = value.get(step, MISSING)
            elif type(value) is list and step < len(value):  # type: ignore[operator]
                value = value[step]  # type: ignore[index]
            else:
                return MISSING
        return value


def path_of(name: str, from_: str | None) -> Path:
    """-> path of a field. Raises ValueError: `from` is none, with what to write."""
    if from_ is None:
        return Path(name, (name,))
    if from_ in ATTRIBUTES:
        return Path(from_, (), from_)
    rest = from_.removeprefix("$")
    if rest != from_:
        if rest and rest[0] not in ".[":
            raise ValueError(f"from: {from_!r} is not known; known: $, {', '.join(ATTRIBUTES)}")
        if not rest:
            return Path(from_)
        rest = rest.removeprefix(".") or "."
    steps: list[str | int] = []
    place = 0
    while place < len(rest):
        found = _STEP.match(rest, place)
        if found is None or (place == 0 and (rest[0] == "." or found["item"] is not None)):
            raise ValueError(f'from: {from_!r} is no path: write a.b, a[0].b, ["a.b"] or $')
        steps.append(int(found["item"]) if found["item"] is not None else _name(found, from_))
        place = found.end()
    if not steps:
        raise ValueError("from: an empty path: write a.b, a[0].b or $")
    return Path(from_, tuple(steps))


def _name(found: re.Match[str], from_: str) -> str:
    if found["name"] is not None:
        return found["name"]
    import orjson

    try:
        return str(orjson.loads(found["quoted"]))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"from: {from_!r}: {found['quoted']} is no name in quotes") from error
