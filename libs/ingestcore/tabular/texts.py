"""What the text of a field means: the language of each type, and its exact, vectorised reading.

string     any text in the file's encoding; here it is UTF-8 already
integer    an optional sign and digits, within 64 bits: `7`, `+7`, `007`.
           Refused, though the reader takes some of them: `0x1F`, `7.0`, `1e3`, `1_000`
float      a decimal number with an optional exponent: `1`, `+1.`, `.5`, `1e5`; one too small for 64 bits is 0.
           Refused: `inf`, `NaN`, `1e400`, `1,5`
decimal    a number of so many digits before and after the point, without exponent: `1.50`, `-.5`, `007`; zeros after
           the last place are welcome. Refused: what would have to be rounded or cut, `1e3`, `1,5`
boolean    the field's words as written; else true/false, t/f, yes/no, y/n, 1/0 in any case
date       `YYYY-MM-DD`, years 0001-9999.
           Refused: a timestamp, `2024-1-5`, `2024-02-30`
timestamp  a date, `T` or one space, `hh`, `hh:mm` or `hh:mm:ss` with up to 6 decimals, and optionally a zone: `Z`,
           `+hh`, `+hhmm`, `+hh:mm`. Years 0001-9999.
           Refused: a mere date, `24:00`, a leap second, nanoseconds, a local time that the zone's clocks skip

json       one JSON value as in `json_texts`; white space around it stays

With `format` a date or timestamp is what the format says, with four-digit `%Y`, and one or two digits for the others.
A local time that occurs twice (clocks set back) is the earlier one.
Spaces and tabs around anything but a string are ignored; an empty text, quoted or not, is null there.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingestcore.datasets.decimal_digits import wanted
from ingestcore.datasets.encodings import UTF_8, spelled
from ingestcore.datasets.spec import FieldSpec, Type
from ingestcore.tabular.decimals import parse_decimals
from ingestcore.tabular.formats import parse_formatted
from ingestcore.tabular.json_texts import parse_json

Mask = NDArray[np.bool_]

UTC_TIMESTAMP: Final = pa.timestamp("us", "UTC")
LOCAL_TIMESTAMP: Final = pa.timestamp("us")
_ARROW_TYPES: Final = {
    Type.STRING: pa.string(),
    Type.INTEGER: pa.int64(),
    Type.FLOAT: pa.float64(),
    Type.BOOLEAN: pa.bool_(),
    Type.DATE: pa.date32(),
    Type.TIMESTAMP: UTC_TIMESTAMP,
    Type.JSON: pa.string(),
}
READ_AS_TEXT: Final = (Type.DECIMAL, Type.JSON)
"""Types that are always read as text: pyarrow's reader takes exponents for decimals, and knows no JSON columns."""

EXPECTED: Final = {
    Type.INTEGER: "a whole number of at most 64 bits",
    Type.FLOAT: "a finite decimal number",
    Type.BOOLEAN: "a boolean word",
    Type.DATE: "a date like 2024-12-31",
    Type.TIMESTAMP: "a date with a time like 2024-12-31T23:59:59",
    Type.JSON: "one JSON value",
}
TRUE_WORDS: Final = ("true", "t", "yes", "y", "1")
FALSE_WORDS: Final = ("false", "f", "no", "n", "0")

_DAY_OF_MONTH = (
    r"(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|02-(?:0[1-9]|1\d|2[0-8]))"
    r"|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_ZONE = r"(?:Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)"
_CLOCK = r"(?:[01]\d|2[0-3])(?::[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?)?"
_TIMESTAMP = rf"{_DAY_OF_MONTH}[T ]{_CLOCK}{_ZONE}?"
_GRAMMAR: Final = {
    Type.INTEGER: r"[+-]?\d+",
    Type.FLOAT: r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?",
    Type.DATE: _DAY_OF_MONTH,
    Type.TIMESTAMP: _TIMESTAMP,
}
_ZONED = rf"[T ]{_CLOCK}{_ZONE}\z"

_MICROSECONDS_A_DAY: Final = 86_400_000_000
_FIRST_DAY: Final = -719_162
_LAST_DAY: Final = 2_932_896


@dataclass(frozen=True, slots=True)
class Converted:
    """Values of one column and which rows could not be read (their values are null)."""

    values: pa.Array
    bad: Mask


def arrow_type(field: FieldSpec) -> pa.DataType:
    """-> type of the field's column."""
    if field.type is Type.DECIMAL:
        return pa.decimal128(*field.digits)
    return _ARROW_TYPES[field.type]


def expected(field: FieldSpec, encoding: str) -> str:
    """-> what an operator should write in a file of that encoding, for messages."""
    if field.type is Type.STRING:
        return f"{spelled(encoding)} text"
    if field.type is Type.DECIMAL:
        return wanted(*field.digits)
    if field.format is not None:
        return f"a {field.type.value} written as {field.format}"
    if field.type is Type.BOOLEAN and (field.true or field.false):
        true, false = boolean_words(field)
        return "one of " + ", ".join((*true, *false)[:12])
    return EXPECTED[field.type]


def convert(text: pa.Array, field: FieldSpec) -> Converted:
    """Read a column of raw texts. `text`: binary; null where the reader saw a null."""
    if field.type is Type.STRING:
        return _strings(text)
    text = pc.if_else(pc.equal(pc.binary_length(text), 0), pa.scalar(None, text.type), text)
    if field.type is Type.BOOLEAN:
        return _booleans(text, field)
    if field.type is Type.DECIMAL:
        return _judged(text, parse_decimals(text, *field.digits))
    if field.type is Type.JSON:
        return _judged(text, parse_json(text))
    if field.format is not None:
        return _formatted(text, field)
    grammar = rf"\A[ \t]*{_GRAMMAR[field.type]}[ \t]*\z"
    fits = pc.match_substring_regex(text, grammar)
    clean = pc.ascii_trim(pc.if_else(fits, text, pa.scalar(None, text.type)).cast(pa.string()), " \t")
    bad = as_mask(pc.invert(fits))
    if field.type is Type.INTEGER:
        return _integers(clean, bad)
    if field.type is Type.FLOAT:
        values = clean.cast(pa.float64())
        return _without(values, bad | not_finite(values))
    if field.type is Type.DATE:
        values = clean.cast(pa.date32())
        return _without(values, bad | out_of_days(values))
    return _timestamps(clean, bad, field)


def as_mask(booleans: pa.Array) -> Mask:
    """-> boolean mask; null counts as false."""
    if booleans.null_count:
        booleans = pc.fill_null(booleans, False)
    mask: Mask = booleans.to_numpy(zero_copy_only=False)
    return mask


def as_booleans(mask: Mask) -> pa.Array:
    """-> the mask as an array: bits packed at once, where Arrow would take over byte by byte."""
    return pa.Array.from_buffers(pa.bool_(), len(mask), [None, pa.py_buffer(np.packbits(mask, bitorder="little"))])


def not_finite(values: pa.Array) -> Mask:
    """-> rows of a float column that are infinite or NaN: neither is a number to us, however it was written."""
    return as_mask(pc.invert(pc.is_finite(values)))


def out_of_days(values: pa.Array) -> Mask:
    """-> rows of a date column outside the years 0001-9999, which others could not read."""
    return _outside(values.view(pa.int32()), _FIRST_DAY, _LAST_DAY)


def out_of_time(values: pa.Array) -> Mask:
    """-> rows of a timestamp column (microseconds) outside the years 0001-9999."""
    first, last = _FIRST_DAY * _MICROSECONDS_A_DAY, (_LAST_DAY + 1) * _MICROSECONDS_A_DAY - 1
    return _outside(values.view(pa.int64()), first, last)


def midnight(values: pa.Array) -> Mask:
    """-> rows of a local timestamp column at midnight: the reader gives that for a mere date too."""
    micros = values.view(pa.int64())
    numbers = (pc.fill_null(micros, 1) if micros.null_count else micros).to_numpy(zero_copy_only=False)
    mask: Mask = numbers % _MICROSECONDS_A_DAY == 0
    return mask


def localised(values: pa.Array, zone: str | None) -> Converted:
    """Local timestamps -> UTC. A time that occurs twice is the earlier one; one the clocks skip is bad."""
    if zone is None or zone.upper() == "UTC":
        return Converted(values.cast(UTC_TIMESTAMP), np.zeros(len(values), np.bool_))
    zoned = pc.assume_timezone(values, zone, ambiguous="earliest", nonexistent="earliest")
    bad = as_mask(pc.not_equal(pc.local_timestamp(zoned), values))
    return _without(zoned.cast(UTC_TIMESTAMP), bad)


@lru_cache(maxsize=256)
def boolean_words(field: FieldSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """-> words of true and of false as they may stand in the file. Raises ValueError: a word means both."""
    true = field.true if field.true is not None else _any_case(TRUE_WORDS)
    false = field.false if field.false is not None else _any_case(FALSE_WORDS)
    taken = set(field.true or field.false or ())
    if field.true is None or field.false is None:
        # A word the field names loses its usual meaning.
        true = true if field.true is not None else tuple(word for word in true if word not in taken)
        false = false if field.false is not None else tuple(word for word in false if word not in taken)
    both = sorted(set(true) & set(false))
    if both:
        raise ValueError(f"boolean word {both[0]!r} means both true and false")
    return true, false


def _any_case(words: tuple[str, ...]) -> tuple[str, ...]:
    cases = (itertools.product(*({c, c.upper()} for c in word)) for word in words)
    return tuple(sorted("".join(letters) for case in cases for letters in case))


def _judged(text: pa.Array, values: pa.Array) -> Converted:
    """A text is bad where it has no value."""
    return Converted(values, as_mask(pc.and_(values.is_null(), text.is_valid())))


def _strings(text: pa.Array) -> Converted:
    try:
        return Converted(text.cast(pa.string()), np.zeros(len(text), np.bool_))
    except pa.ArrowInvalid:
        bad = np.array([value is not None and not _is_utf8(value) for value in text.to_pylist()], np.bool_)
        return Converted(pc.if_else(as_booleans(bad), pa.scalar(None, text.type), text).cast(pa.string()), bad)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _booleans(text: pa.Array, field: FieldSpec) -> Converted:
    true, false = ([word.encode() for word in words] for words in boolean_words(field))
    trimmed = pc.ascii_trim(_readable(text), " \t").cast(pa.binary())
    is_true = pc.is_in(trimmed, value_set=pa.array(true, pa.binary()))
    known = pc.or_(is_true, pc.is_in(trimmed, value_set=pa.array(false, pa.binary())))
    present = text.is_valid()
    values = pc.if_else(pc.and_(known, present), is_true, pa.scalar(None, pa.bool_()))
    return Converted(values, as_mask(pc.and_not(present, known)))


def _readable(text: pa.Array) -> pa.Array:
    """-> texts as strings; what is not UTF-8 becomes a text that no type accepts."""
    strings = _strings(text)
    if not strings.bad.any():
        return strings.values
    return pc.if_else(as_booleans(strings.bad), pa.scalar("\ufffd"), strings.values)


def _integers(clean: pa.Array, bad: Mask) -> Converted:
    clean = pc.utf8_ltrim(clean, "+")
    try:
        return Converted(clean.cast(pa.int64()), bad)
    except pa.ArrowInvalid:
        # Only digits are left, so all that can be wrong is their number.
        long = as_mask(pc.greater(pc.binary_length(clean), 18))
        for i in np.flatnonzero(long).tolist():
            bad[i] |= not -(1 << 63) <= int(clean[i].as_py()) < 1 << 63
        return _without(clean, bad, pa.int64())


def _timestamps(clean: pa.Array, bad: Mask, field: FieldSpec) -> Converted:
    zoned = pc.match_substring_regex(clean, _ZONED)
    nothing = pa.scalar(None, pa.string())
    local = localised(pc.if_else(zoned, nothing, clean).cast(LOCAL_TIMESTAMP), field.timezone)
    if not pc.any(zoned).as_py():
        values = local.values
    else:
        values = pc.coalesce(pc.if_else(zoned, clean, nothing).cast(UTC_TIMESTAMP), local.values)
    return _without(values, bad | local.bad | out_of_time(values))


def _formatted(text: pa.Array, field: FieldSpec) -> Converted:
    clean = pc.ascii_trim(_readable(text), " \t")
    assert field.format is not None
    values = parse_formatted(clean, field.format, arrow_type(field) if field.type is Type.DATE else LOCAL_TIMESTAMP)
    bad = as_mask(pc.and_(values.is_null(), clean.is_valid()))
    if field.type is Type.DATE:
        return _without(values, bad | out_of_days(values))
    local = Converted(values, bad) if values.type == UTC_TIMESTAMP else localised(values, field.timezone)
    return _without(local.values, bad | local.bad | out_of_time(local.values))


def _outside(numbers: pa.Array, first: int, last: int) -> Mask:
    extent = pc.min_max(numbers)
    if not extent["min"].is_valid or (extent["min"].as_py() >= first and extent["max"].as_py() <= last):
        return np.zeros(len(numbers), np.bool_)
    low, high = pa.scalar(first, numbers.type), pa.scalar(last, numbers.type)
    return as_mask(pc.or_(pc.less(numbers, low), pc.greater(numbers, high)))


def _without(values: pa.Array, bad: Mask, cast: pa.DataType | None = None) -> Converted:
    if bad.any():
        values = pc.if_else(as_booleans(bad), pa.scalar(None, values.type), values)
    return Converted(values if cast is None else values.cast(cast), bad)


def literal(text: str, field: FieldSpec) -> pa.Scalar:
    """-> the typed value of a text in the spec (bounds, enum). Raises ValueError: the text is no such value."""
    done = convert(pa.array([text.encode()], pa.binary()), field)
    if done.bad[0]:
        raise ValueError(f"{text!r} is not {expected(field, UTF_8)}")
    return done.values[0]


_PRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\uffff]")


def shown(value: bytes | None, limit: int = 256) -> str:
    """-> a value as a header may carry it: UTF-8, no control characters, cut."""
    if value is None:
        return ""
    return _PRINTABLE.sub("\ufffd", value[: 4 * limit].decode("utf-8", "replace"))[:limit]
