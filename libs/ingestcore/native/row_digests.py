"""The library `row_digests.c`, called on NumPy's and Arrow's own memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.native.building import BUILT

DIGEST_BYTES: Final = 16


class RowDigests:
    """SHA-256, cut to 16 bytes, of one message a row. Lets other threads run meanwhile."""

    def __init__(self, library: Path) -> None:
        """Raises OSError: no library is there, or this processor can't run it."""
        loaded = ctypes.CDLL(str(library))
        if not loaded.ingest_row_digests_usable():
            raise OSError("this processor has no SHA instructions")
        self._call: Any = loaded.ingest_row_digests
        self._call.argtypes = (
            *(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64),
            *(ctypes.c_int64, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
        )

    def __call__(
        self,
        rows: int,
        scopes: NDArray[np.uint8],
        nulls: Sequence[NDArray[np.bool_] | None],
        words: Sequence[NDArray[np.uint64]],
        texts: Sequence[pa.Array],
    ) -> NDArray[np.uint8]:
        """-> rows × 16 bytes.

        scopes  16 bytes for each row, or for all
        nulls   a mask for each column; None: it has no nulls
        words   integers of each column of numbers, 0 where null
        texts   string or binary columns without nulls
        Raises MemoryError.
        """
        out = np.empty((rows, DIGEST_BYTES), np.uint8)
        if not rows:
            return out
        scopes = np.ascontiguousarray(scopes)
        masks = [None if mask is None else np.ascontiguousarray(mask) for mask in nulls]
        starts, data = [], []
        for text in texts:
            _, offsets, bytes_ = text.buffers()
            starts.append(offsets.address + 4 * text.offset)
            data.append(bytes_.address if bytes_ is not None else 0)
        failed = self._call(
            rows,
            scopes.ctypes.data,
            DIGEST_BYTES if len(scopes) == rows else 0,
            *(len(masks), _addresses([0 if mask is None else mask.ctypes.data for mask in masks])),
            *(len(words), _addresses([word.ctypes.data for word in words])),
            (ctypes.c_int64 * len(words))(*(word.strides[0] for word in words)),
            *(len(texts), _addresses(starts), _addresses(data)),
            out.ctypes.data,
        )
        if failed:
            raise MemoryError("no memory for the message of one row")
        return out


@cache
def row_digests() -> RowDigests | None:
    """-> the library of this installation; None: there is none that runs here."""
    try:
        return RowDigests(BUILT)
    except OSError:
        return None


def _addresses(of: Sequence[int]) -> Any:
    return (ctypes.c_void_p * len(of))(*of)
