"""The dialect of a CSV as pyarrow wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow.csv

from ingestcore.datasets.spec import Dialect


def parse_options(
    dialect: Dialect, on_ragged: Callable[[Any], str] | None = None, *, quoted: bool = True
) -> pyarrow.csv.ParseOptions:
    """-> the dialect as pyarrow wants it. `on_ragged` is called for a record with the wrong number of fields; `quoted`:
    false where no quote occurs, which is read faster."""
    return pyarrow.csv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char=(quoted and dialect.quote) or False,
        double_quote=dialect.double_quote,
        escape_char=dialect.escape or False,
        newlines_in_values=True,
        ignore_empty_lines=False,
        invalid_row_handler=on_ragged,
    )
