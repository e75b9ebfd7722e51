"""The type of a column from the texts of its sample: the tightest one that takes them all and loses nothing.

Where text says more than a number would (leading zeros, a sign that is part of a phone number, more digits than fit),
where a date can be read in two ways, and where only few values back a type, a column stays a string: nothing is ever
refused or changed there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestcore.datasets.spec import FieldSpec, Type
from ingestcore.inference import dates
from ingestcore.inference.words import is_code, is_of_time
from ingestcore.tabular.texts import convert, shown

NULL_WORDS: Final = ("\\N", "NULL", "null", "NaN", "nan", "#N/A")
"""Texts that mean nothing, and nothing else."""

DOUBTFUL_NULL_WORDS: Final = ("NA", "N/A", "n/a", "None", "none", "-", "--", ".", "?", "unknown")
"""Texts that may mean nothing: Namibia is NA, and `None` may be an answer."""

_LEADING_ZERO: Final = r"\A[+-]?0\d"
_DIGITS: Final = r"\A[ \t]*[+-]?\d+[ \t]*\z"
_BOOLEANS: Final = (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"))
_SAFE_INTEGER: Final = 1 << 53
_NEARLY: Final = 0.95
_LOOK: Final = 1000
_EXAMPLE_CHARACTERS: Final = 40


@dataclass(frozen=True, slots=True)
class Verdict:
    """field: type and format; remark: why, where that is no matter of course.

    values  that back it (rows with a value); nulls: texts that must be `null_values` for the type to hold
    """

    field: FieldSpec
    values: int
    remark: str = ""
    nulls: frozenset[str] = frozenset()


def needed_values(rows: int) -> int:
    """-> values that must back a type other than string: one in a hundred rows, at least 5, at most 20."""
    return min(20, max(5, rows // 100))


def infer(name: str, column: pa.Array, rows: int) -> Verdict:
    """-> the type of a column. `column`: strings, null where the file has none; `rows`: sampled, with or without it."""
    values = _present(column)
    if not len(values):
        return Verdict(FieldSpec(), 0, "no value in the sample: nothing is known about it")
    found = _typed(name, values)
    if found.field.type is Type.STRING:
        found = _without_null_words(name, values, rows) or found
    return _backed(found, rows)


def as_string(verdict: Verdict, why: str) -> Verdict:
    """-> the same column as a string."""
    return Verdict(FieldSpec(), verdict.values, why)


def _present(column: pa.Array) -> pa.Array:
    present = column.drop_null()
    return present.filter(pc.greater(pc.binary_length(pc.ascii_trim(present, " \t")), 0))


def _backed(found: Verdict, rows: int) -> Verdict:
    if found.field.type is Type.STRING or found.values >= needed_values(rows):
        return found
    count = f"{found.values} value{'s' if found.values > 1 else ''}"
    return as_string(found, f"{_named(found.field)} by the sample, but only {count} of {rows:,} rows back it")


def _typed(name: str, values: pa.Array) -> Verdict:
    found = _boolean(values) or _integer(name, values) or _float(name, values) or _time(values)
    return found or Verdict(FieldSpec(), len(values), _nearly(values))


def _boolean(values: pa.Array) -> Verdict | None:
    if not _fits(values, Type.BOOLEAN):
        return None
    words = {text.lower() for text in pc.unique(pc.ascii_trim(values, " \t")).to_pylist()}
    for pair in _BOOLEANS:
        # One letter, or one word of an answer, may be anything: both must be there.
        if words == set(pair) or (pair[0] == "true" and words <= set(pair)):
            return Verdict(FieldSpec(type=Type.BOOLEAN), len(values))
    return None


def _integer(name: str, values: pa.Array) -> Verdict | None:
    if not _fits(values, Type.INTEGER):
        if pc.all(pc.match_substring_regex(values, _DIGITS)).as_py():
            return _text(values, f"whole numbers that exceed 64 bits ({_longest(values)})")
        return None
    if (zero := _first(values, _LEADING_ZERO)) is not None:
        return _text(values, f"leading zeros ({zero}): a code, no number")
    if (plus := _first(values, r"\A[ \t]*\+")) is not None:
        return _text(values, f"a plus sign in front ({plus}): a number would lose it")
    compact = _compact(name, values)
    if compact is not None:
        return compact
    if is_code(name):
        return _text(values, "digits, but named like a code")
    return Verdict(FieldSpec(type=Type.INTEGER), len(values))


def _compact(name: str, values: pa.Array) -> Verdict | None:
    length = len(values[0].as_py())
    if length not in dates.COMPACT or not is_of_time(name):
        return None
    kind, format = dates.COMPACT[length]
    field = FieldSpec(type=kind, format=format)
    whole = pc.all(pc.equal(pc.utf8_length(values), length)).as_py()
    return Verdict(field, len(values)) if whole and dates.fits(values, field) else None


def _float(name: str, values: pa.Array) -> Verdict | None:
    if not _fits(values, Type.FLOAT):
        return None
    if (zero := _first(values, _LEADING_ZERO)) is not None:
        return _text(values, f"leading zeros ({zero}): a code, no number")
    exponents = _first(values, "[eE]")
    if exponents is not None and _first(values, r"\.") is None:
        return _text(values, f"digits around an e ({exponents}): rather a code than a number")
    whole = pc.match_substring_regex(values, _DIGITS)
    numbers = pc.utf8_ltrim(pc.ascii_trim(values.filter(whole), " \t"), "+")
    if len(numbers) and float(pc.max(pc.abs(numbers.cast(pa.float64()))).as_py()) > _SAFE_INTEGER:
        return _text(values, f"whole numbers among decimals with more digits than a float keeps ({_longest(numbers)})")
    if is_code(name):
        return _text(values, "decimals, but named like a code: 1.10 is not 1.1")
    return Verdict(FieldSpec(type=Type.FLOAT), len(values))


def _time(values: pa.Array) -> Verdict | None:
    if _fits(values, Type.DATE):
        return Verdict(FieldSpec(type=Type.DATE), len(values))
    if _fits(values, Type.TIMESTAMP):
        return Verdict(FieldSpec(type=Type.TIMESTAMP), len(values), "" if _zoned(values) else _NO_ZONE)
    found = dates.written(values)
    if found is None:
        return None
    if found.format is None:
        orders = " or ".join(found.orders)
        return _text(values, f"a {found.type} like {_shown(values[0].as_py())}, {orders}? Set type and `format`")
    remark = "" if found.zoned or found.type is Type.DATE else _NO_ZONE
    return Verdict(FieldSpec(type=found.type, format=found.format), len(values), remark)


_NO_ZONE: Final = "times without a zone are taken as UTC, else set `timezone`"


def _zoned(values: pa.Array) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, r"(?:Z|[+-]\d\d(?::?\d\d)?)[ \t]*\z")).as_py())


def _without_null_words(name: str, values: pa.Array, rows: int) -> Verdict | None:
    """What the column would be without words that mean nothing; None: still text."""
    for words in (NULL_WORDS, NULL_WORDS + DOUBTFUL_NULL_WORDS):
        present = pc.is_in(values, value_set=pa.array(words))
        rest = values.filter(pc.invert(present))
        if len(rest) == len(values) or not len(rest):
            continue
        found = _typed(name, rest)
        if found.field.type is Type.STRING:
            continue
        used = frozenset(pc.unique(values.filter(present)).to_pylist())
        if used <= set(NULL_WORDS):
            return replace(found, nulls=used)
        listed = ", ".join(repr(word) for word in sorted(used))
        return _text(values, f"{_named(found.field)} but for {listed}: if that means no value, add it to `null_values`")
    return None


def _nearly(values: pa.Array) -> str:
    """-> a remark where nearly all values are of one type."""
    some, raw = values.slice(0, _LOOK), values.cast(pa.binary())
    for kind in (Type.INTEGER, Type.FLOAT, Type.DATE, Type.TIMESTAMP):
        if convert(some.cast(pa.binary()), FieldSpec(type=kind)).bad.mean() > 1 - _NEARLY:
            continue
        bad = convert(raw, FieldSpec(type=kind)).bad
        if bad.mean() <= 1 - _NEARLY:
            example = _shown(values[int(np.argmax(bad))].as_py())
            return (
                f"{kind} but for {int(bad.sum()):,} of {len(values):,} values such as {example}: "
                "as such those rows would become dead letters"
            )
    if pc.all(pc.match_substring_regex(some, r"\A\d{4}-\d\d-\d\d[T ][\d:]{8}\.\d{7,}")).as_py():
        return "times with more than 6 decimals of a second: not read as timestamps"
    if pc.all(pc.match_substring_regex(some, r"\A[ \t]*[+-]?\d{1,3}(?:\.?\d{3})*,\d+[ \t]*\z")).as_py():
        return "decimal commas: not read as numbers"
    if pc.all(pc.match_substring_regex(some, r"\A[ \t]*[+-]?\d{1,3}(?:,\d{3})*(?:\.\d+)?[ \t]*\z")).as_py():
        return "thousands separators: not read as numbers"
    return ""


def _fits(values: pa.Array, kind: Type) -> bool:
    field = FieldSpec(type=kind)
    return dates.fits(values.slice(0, _LOOK), field) and (len(values) <= _LOOK or dates.fits(values, field))


def _first(values: pa.Array, pattern: str) -> str | None:
    """-> the first value a pattern is found in."""
    at = pc.index(pc.match_substring_regex(values, pattern), True).as_py()
    return None if at < 0 else _shown(values[at].as_py())


def _longest(values: pa.Array) -> str:
    lengths = pc.utf8_length(values)
    return _shown(values[pc.index(lengths, pc.max(lengths)).as_py()].as_py())


def _text(values: pa.Array, remark: str) -> Verdict:
    return Verdict(FieldSpec(), len(values), remark)


def _named(field: FieldSpec) -> str:
    return f"{field.type}" + (f" ({field.format})" if field.format else "")


def _shown(text: str) -> str:
    """-> a value in quotes, on one line, cut."""
    safe = shown(text.encode())
    return repr(safe if len(safe) <= _EXAMPLE_CHARACTERS else safe[:_EXAMPLE_CHARACTERS] + "…")
