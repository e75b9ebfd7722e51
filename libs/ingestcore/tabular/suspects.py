"""Rows of a block that the typed reader must not judge, found by their bytes."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.datasets.encodings import UTF_8
from ingestcore.datasets.spec import Dialect
from ingestcore.tabular.record_scan import record_scan
from ingestcore.tabular.records import Records
from ingestcore.tabular.transcode import undefined_bytes

_LOWER_HEX: Final = int.from_bytes(b"0x", "little")
_UPPER_HEX: Final = int.from_bytes(b"0X", "little")
_MOST: Final = 64
"""Suspects looked for one by one."""
_MOST_OF: Final = 50
"""Of so many records one may have an odd number; where there are more, the file means something by them."""

Places = NDArray[np.int64]


def odd_numbers(records: Records, dialect: Dialect, kinds: NDArray[np.uint8]) -> Places | None:
    """-> records that carry data in which a number, date or time does not look like one: the reader would refuse most
    of them, and takes a hexadecimal one for an integer. None: many, or unknown. kinds: see `RecordScan.odd`."""
    scan = record_scan()
    if scan is None or not scan.knows(dialect):
        return None
    text = np.frombuffer(records.data, np.uint8)
    odd = scan.odd(text, records.ends, dialect, kinds, max(_MOST, records.count // _MOST_OF))
    return None if odd is None else _places(records, odd)


def hexadecimal(records: Records) -> Places | None:
    """-> records that carry data with `0x` or `0X` anywhere, which the reader takes for an integer; None: many.

    Two bytes are compared at a time.
    """
    data, found = records.data, []
    for first in (0, 1):
        if len(data) > first + 1:
            pairs = np.frombuffer(data, "<u2", (len(data) - first) // 2, first)
            found.append(2 * np.flatnonzero((pairs == _LOWER_HEX) | (pairs == _UPPER_HEX)) + first)
    at = np.concatenate(found) if found else np.empty(0, np.int64)
    places = _places(records, np.searchsorted(records.ends, at, "right")) if len(at) else at
    return places if len(places) <= _MOST else None


def undecodable(records: Records) -> Places:
    """-> records that carry data and are not of their encoding; where there are many not UTF-8, all from the last one
    found on."""
    if records.encoding != UTF_8:
        at = undefined_bytes(records.data, records.encoding)
        return _places(records, np.searchsorted(records.ends, at, "right")) if len(at) else at
    if is_utf8(records.data):
        return np.empty(0, np.int64)
    offsets = np.append(records.starts, records.ends[-1:])
    texts = pa.Array.from_buffers(
        pa.large_string(), records.count, [None, pa.py_buffer(offsets), pa.py_buffer(records.data)]
    )
    found, start = [], 0
    while start < records.count:
        try:
            texts.slice(start).validate(full=True)
        except pa.ArrowInvalid as error:
            start += int(str(error).rpartition(" ")[2])
            found.append(start)
            start += 1
            if len(found) == _MOST:
                found += range(start, records.count)
                break
        else:
            break
    return _places(records, np.array(found, np.int64))


def is_utf8(data: bytes) -> bool:
    """-> whether the bytes are UTF-8."""
    if data.isascii():
        return True
    text = pa.Array.from_buffers(
        pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(data)], np.int64)), pa.py_buffer(data)]
    )
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _places(records: Records, ordinals: NDArray[np.int64]) -> Places:
    """-> places of those records that carry data, ascending, each once."""
    return np.flatnonzero(np.isin(records.ordinals, ordinals))
