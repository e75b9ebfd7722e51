"""Dates and timestamps written in a format: strptime's directives, read exactly and vectorised.

A format becomes two things: a regular expression that says how many digits stand where, and a chrono format for the
parse. chrono alone would take `90` for the year 90 and a fraction for nanoseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

_DIRECTIVES: Final = {
    "Y": r"\d{4}",
    "y": r"\d\d",
    "m": r"\d{1,2}",
    "d": r"\d{1,2}",
    "H": r"\d{1,2}",
    "I": r"\d{1,2}",
    "M": r"\d{1,2}",
    "S": r"[0-5]?\d",
    "j": r"\d{1,3}",
    "b": r"[A-Za-z]{3}",
    "B": r"[A-Za-z]{3,9}",
    "p": r"[AaPp][Mm]",
    "z": r"(?:Z|[+-]\d\d:?\d\d)",
    "f": r"\d{1,6}",
    "%": "%",
}
_TIME_OF_DAY: Final = frozenset("HI")


@dataclass(frozen=True, slots=True)
class _Compiled:
    grammar: str
    chrono: str
    zoned: bool
    timed: bool


@lru_cache(maxsize=256)
def compile_format(text: str) -> _Compiled:
    """Raises ValueError: a directive is unknown, or the format names no whole day."""
    grammar, chrono, seen = "", text.replace(".%f", "%.f"), set()
    for literal, directive in re.findall(r"([^%]+)|%(.?)", text):
        if literal:
            grammar += re.escape(literal)
        elif directive in _DIRECTIVES:
            grammar += _DIRECTIVES[directive]
            seen.add(directive)
        else:
            known = " ".join(f"%{name}" for name in _DIRECTIVES)
            raise ValueError(f"format {text!r}: %{directive} is not known; known: {known}")
    if "f" in seen and ".%f" not in text:
        raise ValueError(f"format {text!r}: write a fraction of seconds as .%f")
    day = {"j"} <= seen or ({"d"} <= seen and bool(seen & set("mbB")))
    if not (day and seen & set("Yy")):
        raise ValueError(f"format {text!r} names no whole day: year, month and day are needed")
    return _Compiled(rf"\A{grammar}\z", chrono, "z" in seen, bool(seen & _TIME_OF_DAY))


def parse_formatted(text: pa.Array, format: str, type: pa.DataType) -> pa.Array:
    """-> dates, or timestamps in microseconds: UTC where the format has %z, else local; null where not in the format.

    `text`: strings without spaces around them. `type`: date32 or a timestamp. Raises ValueError: a bad format.
    """
    import polars as pl  # 40 MiB, which only those pay whose fields have a format

    how = compile_format(format)
    fits = pc.match_substring_regex(text, how.grammar)
    text = pc.if_else(fits, text, pa.scalar(None, text.type))
    if how.zoned:
        text = pc.replace_substring_regex(text, r"Z\z", "+0000")
    series = pl.Series("text", pl.from_arrow(text), dtype=pl.String)
    if pa.types.is_date(type):
        return series.str.to_date(how.chrono, strict=False).to_arrow()
    if not how.timed:
        return series.str.to_date(how.chrono, strict=False).to_arrow().cast(pa.timestamp("us"))
    parsed = series.str.to_datetime(how.chrono, strict=False, time_unit="us").to_arrow()
    return parsed.cast(pa.timestamp("us", "UTC") if how.zoned else pa.timestamp("us"))
