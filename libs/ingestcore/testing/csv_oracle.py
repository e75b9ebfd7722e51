"""A slow, plain reader of CSV, one byte and one value at a time: what the vectorised one is held against.

Shares no code with `ingestcore.tabular`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import re
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ingestcore.datasets.spec import Dialect, FieldSpec, Type

T = TypeVar("T")


@dataclass
class Cell:
    """One field as written. `quoted`: it began with a quote."""

    text: bytearray = field(default_factory=bytearray)
    quoted: bool = False


@dataclass
class Record:
    """One record. `data` is its bytes, line end included; `complete`: it has one; `open_quote`: it ends in quotes."""

    data: bytes = b""
    cells: list[Cell] = field(default_factory=list)
    complete: bool = False
    open_quote: bool = False
    comment: bool = False

    @property
    def blank(self) -> bool:
        return self.comment or (not self.data.strip(b"\r\n") and not self.open_quote)


def records(data: bytes, dialect: Dialect) -> Iterator[Record]:
    """-> every record; the last one may be incomplete."""
    at = 0
    while at < len(data):
        record, end = _record(data, at, dialect)
        record.data = data[at:end]
        yield record
        at = end


def _byte(character: str | None) -> int:
    return -1 if character is None else ord(character)


def _record(data: bytes, at: int, dialect: Dialect) -> tuple[Record, int]:
    delimiter, quote, escape = ord(dialect.delimiter), _byte(dialect.quote), _byte(dialect.escape)
    record = Record(cells=[Cell()], comment=data[at] == _byte(dialect.comment))
    inside, fresh = False, True
    while at < len(data):
        byte = data[at]
        following = data[at + 1] if at + 1 < len(data) else -1
        cell = record.cells[-1]
        at += 1
        if byte == escape:
            if following >= 0:
                cell.text.append(following)
                at += 1
        elif inside:
            if byte != quote:
                cell.text.append(byte)
            elif dialect.double_quote and following == quote:
                cell.text.append(quote)
                at += 1
            else:
                inside = False
        elif byte == 10 or byte == 13:
            if byte == 13 and following < 0:
                # The next piece may begin with its line feed.
                return record, at
            record.complete = True
            return record, at + (byte == 13 and following == 10)
        elif byte == delimiter and not record.comment:
            record.cells.append(Cell())
            fresh = True
            continue
        elif byte == quote and fresh and not record.comment:
            inside = cell.quoted = True
        else:
            cell.text.append(byte)
        fresh = False
    record.open_quote = inside
    return record, at


class Bad(Exception):
    """The text is no value of the field."""


def value_of(cell: Cell, spec: FieldSpec, dialect: Dialect) -> Any:
    """-> the typed value of a cell; None: null. Raises Bad."""
    raw = bytes(cell.text)
    if not cell.quoted and raw.decode(dialect.encoding, "replace") in dialect.null_values:
        value: Any = None
    elif spec.type is Type.STRING:
        value = _text(raw, dialect)
    elif not raw:
        value = None
    else:
        text = _text(raw, dialect)
        value = _TYPES[spec.type](text if spec.type is Type.JSON else text.strip(" \t"), spec)
    _check(value, spec)
    return value


def _text(raw: bytes, dialect: Dialect) -> str:
    try:
        return raw.decode(dialect.encoding)
    except UnicodeDecodeError:
        raise Bad from None


def _integer(text: str, spec: FieldSpec) -> int:
    if not re.fullmatch("[+-]?[0-9]+", text) or not -(2**63) <= int(text) < 2**63:
        raise Bad
    return int(text)


def _float(text: str, spec: FieldSpec) -> float:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) or math.isinf(float(text)):
        raise Bad
    return float(text)


def _decimal(text: str, spec: FieldSpec) -> decimal.Decimal:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)", text):
        raise Bad
    precision, scale = spec.digits
    whole, _, after = text.lstrip("+-").partition(".")
    if after[scale:].strip("0") or len(whole.lstrip("0")) > precision - scale:
        raise Bad
    with decimal.localcontext(prec=100):
        return decimal.Decimal(text).quantize(decimal.Decimal(1).scaleb(-scale)) + 0


def _json(text: str, spec: FieldSpec) -> str:
    def refuse(word: str) -> None:
        raise Bad

    def finite(text: str) -> float:
        if math.isinf(float(text)):
            raise Bad
        return float(text)

    try:
        value = json.loads(text, parse_constant=refuse, parse_float=finite)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        raise Bad from None
    return text


def _boolean(text: str, spec: FieldSpec) -> bool:
    true = spec.true if spec.true is not None else ("true", "t", "yes", "y", "1")
    false = spec.false if spec.false is not None else ("false", "f", "no", "n", "0")
    if text in true or (spec.true is None and text.lower() in true and text not in (spec.false or ())):
        return True
    if text in false or (spec.false is None and text.lower() in false):
        return False
    raise Bad


def _date(text: str, spec: FieldSpec) -> dt.date:
    if spec.format is not None:
        return _formatted(text, spec.format).date()
    found = re.fullmatch("([0-9]{4})-([0-9]{2})-([0-9]{2})", text)
    if not found:
        raise Bad
    return _built(lambda: dt.date(int(found[1]), int(found[2]), int(found[3])))


def _timestamp(text: str, spec: FieldSpec) -> dt.datetime:
    if spec.format is not None:
        moment = _formatted(text, spec.format)
    else:
        found = re.fullmatch(
            r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?)?"
            r"(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?",
            text,
        )
        if not found:
            raise Bad
        day = _date(found[1], FieldSpec(type=Type.DATE))
        hour, minute, second, micros = (
            int(part or 0) for part in (found[2], found[3], found[4], (found[5] or "").ljust(6, "0"))
        )
        moment = _built(lambda: dt.datetime.combine(day, dt.time(hour, minute, second, micros)))
        if found[6]:
            hours, minutes = int(found[6][1:3] or 0) if found[6] != "Z" else 0, int(found[6][3:].strip(":") or 0)
            if hours > 23 or minutes > 59:
                raise Bad
            offset = dt.timedelta(hours=hours, minutes=minutes) * (-1 if found[6][0] == "-" else 1)
            moment = moment.replace(tzinfo=dt.timezone(offset))
    if moment.tzinfo is None:
        zone = zoneinfo.ZoneInfo(spec.timezone or "UTC")
        local = moment.replace(tzinfo=zone)
        if _built(lambda: local.astimezone(dt.UTC).astimezone(zone)).replace(tzinfo=None) != moment:
            raise Bad
        moment = local
    return _built(lambda: moment.astimezone(dt.UTC))


def _formatted(text: str, format: str) -> dt.datetime:
    if re.search("[^ -~]", text) or text != " ".join(text.split(" ")):
        raise Bad
    return _built(lambda: dt.datetime.strptime(text, format))


def _built(make: Callable[[], T]) -> T:
    try:
        return make()
    except (ValueError, OverflowError):
        raise Bad from None


_TYPES = {
    Type.INTEGER: _integer,
    Type.FLOAT: _float,
    Type.BOOLEAN: _boolean,
    Type.DATE: _date,
    Type.TIMESTAMP: _timestamp,
    Type.DECIMAL: _decimal,
    Type.JSON: _json,
}


def _check(value: Any, spec: FieldSpec) -> None:
    if value is None:
        if not spec.nullable:
            raise Bad
        return
    size = len(value) if isinstance(value, str) else 0
    broken = (
        (spec.min is not None and value < _edge(spec.min, spec))
        or (spec.max is not None and value > _edge(spec.max, spec))
        or (spec.length is not None and size != spec.length)
        or (spec.min_length is not None and size < spec.min_length)
        or (spec.max_length is not None and size > spec.max_length)
        or (spec.regex is not None and not re.fullmatch(spec.regex, value))
        or (spec.enum is not None and value not in [_read(text, spec) for text in spec.enum])
    )
    if broken:
        raise Bad


def _edge(bound: Any, spec: FieldSpec) -> Any:
    if spec.type is Type.DECIMAL:
        bound = str(bound)
    return _read(bound, spec.model_copy(update={"format": None})) if isinstance(bound, str) else bound


def _read(text: str, spec: FieldSpec) -> Any:
    return text if spec.type is Type.STRING else _TYPES[spec.type](text, spec)


@dataclass(frozen=True)
class Outcome:
    """What should become of a file: rows by record number (from 0), numbers of bad and of blank records."""

    rows: dict[int, dict[str, Any]]
    bad: dict[int, bytes]
    blank: tuple[int, ...]


def outcome(data: bytes, titles: tuple[str, ...], fields: dict[str, FieldSpec], dialect: Dialect) -> Outcome:
    """`fields`: by output name; those whose column is not in `titles` are null."""
    rows: dict[int, dict[str, Any]] = {}
    bad: dict[int, bytes] = {}
    blank: list[int] = []
    for number, record in enumerate(records(data, dialect)):
        if record.blank:
            blank.append(number)
            continue
        try:
            if record.open_quote or len(record.cells) != len(titles):
                raise Bad
            cells = dict(zip(titles, record.cells, strict=True))
            rows[number] = {
                name: value_of(cells[spec.from_ or name], spec, dialect) if (spec.from_ or name) in cells else None
                for name, spec in fields.items()
            }
        except Bad:
            bad[number] = record.data
    return Outcome(rows, bad, tuple(blank))
