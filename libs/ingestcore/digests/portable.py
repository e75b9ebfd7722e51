"""The digests by polars-hash, which writes them as hexadecimal digits: four times the cost of machine code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
import polars_hash as plh
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingestcore.digests.message import DIGEST_BYTES, SCOPE_BYTES, Message

_NIBBLES: Final = np.zeros(1 << 16, np.uint8)
"""By two hexadecimal digits, read as one number: the byte they stand for."""
for _byte in range(256):
    _NIBBLES[int.from_bytes(f"{_byte:02x}".encode(), "little")] = _byte


def portable(message: Message) -> NDArray[np.uint8]:
    """-> rows × 16 bytes."""
    digests = _in_one_column(message).select(plh.col("message").chash.sha2_256()).to_series()
    text = digests.to_arrow().cast(pa.large_string())
    pairs = np.frombuffer(text.buffers()[2] or b"", np.dtype("<u2")).reshape(len(text), 32)[:, :DIGEST_BYTES]
    return np.take(_NIBBLES, pairs)


def _in_one_column(message: Message) -> pl.DataFrame:
    """-> each row's message, in the one column `message`."""
    count = message.rows
    texts = [text.cast(pa.binary()) for text in message.texts]
    parts = [
        message.scopes if len(message.scopes) == count else np.broadcast_to(message.scopes[:1], (count, SCOPE_BYTES)),
        _bitmap(message.nulls, count),
        _by_row(message.words, ">u8", count),
        _by_row([pc.binary_length(text).to_numpy() for text in texts], ">u4", count),
    ]
    fixed = np.concatenate(parts, axis=1)
    width = fixed.shape[1]
    head = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, pa.py_buffer(fixed)]).cast(pa.binary())
    if texts:
        head = pc.binary_join_element_wise(head, *texts, b"")
    return pl.Series("message", pl.from_arrow(head)).to_frame()


def _by_row(columns: Sequence[NDArray[Any]], kind: str, count: int) -> NDArray[np.uint8]:
    """-> the columns' numbers side by side as bytes, one row each."""
    if not columns:
        return np.empty((count, 0), np.uint8)
    side_by_side = np.empty((count, len(columns)), kind)
    for place, column in enumerate(columns):
        side_by_side[:, place] = column
    return side_by_side.view(np.uint8)


def _bitmap(nulls: Sequence[NDArray[np.bool_] | None], count: int) -> NDArray[np.uint8]:
    """-> one bit for each column, the first in the highest."""
    bits = np.zeros((count, (len(nulls) + 7) // 8), np.uint8)
    for place, mask in enumerate(nulls):
        if mask is not None:
            bits[:, place // 8] |= mask.astype(np.uint8) << (7 - place % 8)
    return bits
