"""Which date and time formats a column's texts are written in. More than one order of day and month: ambiguous."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import Final

import pyarrow as pa

from ingestcore.datasets.spec import FieldSpec, Type
from ingestcore.tabular.texts import convert

_ORDERS: Final = {"year first": "{y}{s}%m{s}%d", "day first": "%d{s}%m{s}{y}", "month first": "%m{s}%d{s}{y}"}
_WORDED: Final = (
    "%d %b %Y", "%d-%b-%Y", "%d/%b/%Y", "%d.%b.%Y", "%d%b%Y", "%Y-%b-%d", "%b %d, %Y", "%b %d %Y", "%d-%b-%y",
    "%d %b %y", "%d %B %Y", "%d-%B-%Y", "%B %d, %Y", "%B %d %Y",
)  # fmt: skip
_CLOCK: Final = re.compile(
    r"(?P<gap>,? |T|, )(?P<clock>\d{1,2}:\d\d)(?P<second>:\d\d)?(?P<fraction>\.\d{1,6})?"
    r"(?P<half> ?[AaPp][Mm])?(?P<zone> ?(?:Z|[+-]\d\d:?\d\d))?\Z"
)
_LIKE_A_DATE: Final = re.compile(r"\d{1,4}[-/. ]?(?:\d{1,2}|[A-Za-z]{3,9})[-/. ]?\d{1,4}|[A-Za-z]{3,9} \d{1,2},? \d{4}")
COMPACT: Final = {8: (Type.DATE, "%Y%m%d"), 14: (Type.TIMESTAMP, "%Y%m%d%H%M%S")}
"""Digits alone: by their number. They are read so only where the column's name speaks of time."""


@dataclass(frozen=True, slots=True)
class Written:
    """format: absent where it can't be told; orders: all that the texts allow (`day first` …)."""

    type: Type
    format: str | None
    orders: tuple[str, ...]

    @property
    def zoned(self) -> bool:
        return self.format is not None and "%z" in self.format


def written(values: pa.Array) -> Written | None:
    """-> how dates or timestamps that are not ISO 8601 are written; None: they are none. `values`: strings, no null."""
    first = values[0].as_py().strip()
    clock = _CLOCK.search(first)
    day = first[: clock.start()] if clock else first
    if not _LIKE_A_DATE.fullmatch(day):
        return None
    kind = Type.TIMESTAMP if clock else Type.DATE
    time = _time_format(clock) if clock else ""
    fitting: dict[str, str] = {}
    some = values.slice(0, 50)
    for order, format in _day_formats(day):
        field = FieldSpec(type=kind, format=format + time)
        if order not in fitting and fits(some, field) and fits(values, field):
            fitting[order] = format + time
    if not fitting:
        return None
    orders = tuple(fitting)
    return Written(kind, fitting[orders[0]] if len(orders) == 1 else None, orders)


def fits(values: pa.Array, field: FieldSpec) -> bool:
    """Whether the csv-parser takes every one of these texts."""
    return not convert(values.cast(pa.binary()), field).bad.any()


def _day_formats(day: str) -> list[tuple[str, str]]:
    """-> (order, format) of those that may fit."""
    if any(letter.isalpha() for letter in day):
        return [("worded", format) for format in _WORDED]
    separators = {character for character in day if not character.isdigit()}
    if len(separators) != 1:
        return []
    (separator,) = separators
    return [
        (order, format.format(s=separator, y=year)) for year, (order, format) in product(("%Y", "%y"), _ORDERS.items())
    ]


def _time_format(clock: re.Match[str]) -> str:
    half = clock["half"] or ""
    text = clock["gap"] + ("%I:%M" if half else "%H:%M")
    text += ":%S" if clock["second"] else ""
    text += ".%f" if clock["fraction"] else ""
    if half:
        text += " %p" if half.startswith(" ") else "%p"
    if clock["zone"]:
        text += " %z" if clock["zone"].startswith(" ") else "%z"
    return text
