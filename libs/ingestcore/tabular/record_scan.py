"""The library's `record_scan.c`, called on the bytes where they lie."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ingestcore.datasets.spec import Dialect, Type
from ingestcore.machine_code.building import BUILT
from ingestcore.machine_code.library import load

KINDS: Final = {Type.INTEGER: 1, Type.FLOAT: 2, Type.DATE: 3, Type.TIMESTAMP: 4}
"""What `odd` can look at."""
_USUAL_ROW_BYTES: Final = 32
"""Room for ends is made for rows of this size; shorter ones cost a second pass."""


class RecordScan:
    """For the dialects it `knows`. Lets other threads run meanwhile."""

    def __init__(self, library: Path) -> None:
        """Raises OSError: there is no library to be used."""
        loaded = load(library)
        number, address = ctypes.c_int64, ctypes.c_void_p
        text, dialect = (address, number), (ctypes.c_int,) * 3
        self._ends: Any = loaded.ingest_record_ends
        self._ends.argtypes = (*text, *dialect, address, number)
        self._ends.restype = number
        self._odd: Any = loaded.ingest_odd_records
        self._odd.argtypes = (*text, address, number, *dialect, address, number, address, number)
        self._odd.restype = number

    @staticmethod
    def knows(dialect: Dialect) -> bool:
        return dialect.escape is None and dialect.comment is None

    def ends(self, text: NDArray[np.uint8], dialect: Dialect) -> NDArray[np.int64]:
        """-> as `record_ends`."""
        for room in (len(text) // _USUAL_ROW_BYTES + 1, len(text)):
            ends = np.empty(room, np.int64)
            found = self._ends(text.ctypes.data, len(text), *_characters(dialect), ends.ctypes.data, room)
            if found >= 0:
                break
        return ends[:found].copy()

    def odd(
        self,
        text: NDArray[np.uint8],
        ends: NDArray[np.int64],
        dialect: Dialect,
        kinds: NDArray[np.uint8],
        most: int,
    ) -> NDArray[np.int64] | None:
        """-> numbers from 0 of records in which a field does not look like what its column holds; None: more than
        `most`. ends: of all records of the text; kinds: for each place in the file one of `KINDS`, 0: anything."""
        odd = np.empty(most + 1, np.int64)
        found = self._odd(
            *(text.ctypes.data, len(text), ends.ctypes.data, len(ends), *_characters(dialect)),
            *(kinds.ctypes.data, len(kinds), odd.ctypes.data, len(odd)),
        )
        return odd[:found] if found <= most else None


def _characters(dialect: Dialect) -> tuple[int, int, int]:
    quote = -1 if dialect.quote is None else ord(dialect.quote)
    return ord(dialect.delimiter), quote, int(dialect.double_quote)


@cache
def record_scan() -> RecordScan | None:
    """-> None where the library is not built; then NumPy does the work."""
    try:
        return RecordScan(BUILT)
    except OSError:
        return None
