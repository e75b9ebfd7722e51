"""The library `row_digests.c`, called on NumPy's and Arrow's own memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestcore.digests.message import DIGEST_BYTES, Message
from ingestcore.machine_code.library import load


class MachineCode:
    """SHA-256, cut to 16 bytes, of one message a row. Lets other threads run meanwhile."""

    def __init__(self, library: Path) -> None:
        """Raises OSError: no library is there, or this processor can't run it, or it was built from another source."""
        loaded = load(library)
        if not loaded.ingest_row_digests_usable():
            raise OSError("this processor has no SHA instructions")
        self._call: Any = loaded.ingest_row_digests
        self._call.argtypes = (
            *(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64),
            *(ctypes.c_int64, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
        )

    def __call__(self, message: Message) -> NDArray[np.uint8]:
        """-> rows × 16 bytes. Raises MemoryError."""
        rows = message.rows
        out = np.empty((rows, DIGEST_BYTES), np.uint8)
        if not rows:
            return out
        scopes, words = np.ascontiguousarray(message.scopes), message.words
        masks = [None if mask is None else np.ascontiguousarray(mask) for mask in message.nulls]
        starts, data = [], []
        for text in message.texts:
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
            *(len(starts), _addresses(starts), _addresses(data)),
            out.ctypes.data,
        )
        if failed:
            raise MemoryError("no memory for the message of one row")
        return out


def _addresses(of: Sequence[int]) -> Any:
    return (ctypes.c_void_p * len(of))(*of)
