"""Values out of JSON -> a typed column, by the same language of types as texts in files (`texts`).

Where all values are of the JSON type that fits, the column is made of them as they are. Else each becomes the text it
would be in a file (a number as the producer wrote it, an object or array as compact JSON), and `texts.convert` judges:
so JSON `1` and `"1"` and CSV `1` are one value, and what is refused in a file is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingestcore.datasets.spec import FieldSpec, Type
from ingestcore.tabular import json_texts, texts
from ingestcore.tabular.event_body import as_json
from ingestcore.tabular.texts import Converted

_AS_THEY_ARE: Final[dict[Type, tuple[set[type], pa.DataType]]] = {
    Type.STRING: ({str}, pa.string()),
    Type.INTEGER: ({int}, pa.int64()),
    Type.FLOAT: ({int, float}, pa.float64()),
    Type.BOOLEAN: ({bool}, pa.bool_()),
}
_WRITTEN_MATTERS: Final = (Type.STRING, Type.DECIMAL)
"""Types in which `1.50` and `1.5` are two texts, or a float would lose digits."""
PERHAPS_INEXACT: Final = re.compile(json_texts.PERHAPS_INEXACT.encode())

Exact = Callable[[int], Any]
"""Place of a value in its column -> the same value with numbers as they are written."""


def column_of(values: Sequence[Any], field: FieldSpec, exact: Exact, inexact: Callable[[int], bool]) -> Converted:
    """-> the column. values: as orjson reads them, None for null.

    exact    asked only for values that matter
    inexact  place -> may the value's body hold a number that orjson changes?
    """
    kinds: set[type] = set(map(type, values))
    kinds.discard(NoneType)
    fitting = _AS_THEY_ARE.get(field.type)
    if fitting is not None and kinds <= fitting[0]:
        try:
            return Converted(pa.array(values, fitting[1]), np.zeros(len(values), np.bool_))
        except (OverflowError, pa.ArrowInvalid):
            pass  # an integer of more than 64 bits: which?
    if field.type is Type.BOOLEAN and bool in kinds:
        return _with_booleans(values, field, exact, inexact)
    return texts.convert(pa.array(_texts(values, field, exact, inexact), pa.binary()), field)


def text_of(value: Any) -> bytes | None:
    """-> a value as it would stand in a file; None: null."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    return as_json(value)


def _texts(values: Sequence[Any], field: FieldSpec, exact: Exact, inexact: Callable[[int], bool]) -> list[bytes | None]:
    made = []
    for place, value in enumerate(values):
        kind = type(value)
        written = kind is float and field.type in _WRITTEN_MATTERS
        if written or (kind in (dict, list, float) and inexact(place)):
            value = exact(place)
        made.append(as_json(value) if field.type is Type.JSON and value is not None else text_of(value))
    return made


def _with_booleans(values: Sequence[Any], field: FieldSpec, exact: Exact, inexact: Callable[[int], bool]) -> Converted:
    """JSON's own true and false are these whatever words the field has."""
    others = [None if type(value) is bool else value for value in values]
    read = column_of(others, field, exact, inexact)
    own = pa.array([value if type(value) is bool else None for value in values], pa.bool_())
    return Converted(pc.coalesce(own, read.values), read.bad)


def shown(value: Any) -> str:
    """-> a value as a header may carry it."""
    return texts.shown(text_of(value))
