"""JSON columns: which texts are JSON, and how one counts in keys.

A text is JSON where orjson reads it (RFC 8259, strictly): one value of any kind, white space around it allowed, UTF-8,
nested at most 1,024 levels, no number beyond a 64-bit float's range. `null` is a value, not a null.
The column keeps the text as it is in the file.

Canonical form, in keys: no white space, names of an object sorted, one way to escape; of a name that stands twice in
an object the last value. Numbers as a 64-bit integer or float is printed, so `1.50` is `1.5` (and `1` is not `1.0`);
a number that does not fit one exactly counts as it is written, so that no two numbers become one. A text nested deeper
than 254 levels counts as it is written.
"""

from __future__ import annotations

import json
from collections import deque
from decimal import Decimal
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

PERHAPS_INEXACT: Final = r"[0-9](?:\.?[0-9]){15}|[0-9][eE]-[0-9]{3}"
"""Texts in which this is not found hold no number that 64 bits would change into another one's."""


def parse_json(text: pa.Array) -> pa.Array:
    """-> strings; null where not JSON. `text`: binary."""
    try:
        # One call a value and nothing else: the cost is orjson's.
        deque(map(orjson.loads, text.drop_null().to_pylist()), maxlen=0)
    except orjson.JSONDecodeError:
        good = [value is not None and _is_json(value) for value in text.to_pylist()]
        text = pc.if_else(pa.array(good), text, pa.scalar(None, text.type))
    return text.cast(pa.string())


def _is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def canonical_json(column: pa.Array) -> pa.Array:
    """-> JSON texts in canonical form, each distinct text once. `column`: strings that are JSON."""
    coded = column.dictionary_encode()
    values = coded.dictionary.cast(pa.binary()).to_pylist()
    inexact = pc.match_substring_regex(coded.dictionary, PERHAPS_INEXACT).to_pylist()
    forms = pa.array(list(map(_form, values, inexact)), pa.binary()).cast(pa.string())
    return pa.DictionaryArray.from_arrays(coded.indices, forms).dictionary_decode()


def _form(value: bytes, inexact: bool) -> bytes:
    try:
        read = json.loads(value, parse_int=_number, parse_float=_number) if inexact else orjson.loads(value)
        return orjson.dumps(read, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, RecursionError):
        return value


def _number(text: str) -> Any:
    """-> the number, or, where 64 bits do not hold it exactly, its text."""
    number = orjson.loads(text)
    return number if Decimal(text) == Decimal(repr(number)) else orjson.Fragment(text)
