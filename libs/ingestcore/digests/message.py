"""The parts of each row's message; what it means is said in `ingestcore.tabular.keys`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DIGEST_BYTES: Final = 16
SCOPE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Message:
    """One message a row: its scope, a bitmap of nulls, integers of 8 bytes, lengths of texts, texts.

    rows    how many
    scopes  16 bytes for each row, or for all
    nulls   a mask for each column; None: it has no nulls
    words   integers of each column of numbers, 0 where null
    texts   string or binary columns without nulls
    Raises ValueError: a part is of another length or type, which machine code would not notice.
    """

    rows: int
    scopes: NDArray[np.uint8]
    nulls: Sequence[NDArray[np.bool_] | None]
    words: Sequence[NDArray[np.uint64]]
    texts: Sequence[pa.Array]

    def __post_init__(self) -> None:
        parts = [*(mask for mask in self.nulls if mask is not None), *self.words, *self.texts]
        if any(len(part) != self.rows for part in parts) or self.scopes.shape not in (
            (1, SCOPE_BYTES),
            (self.rows, SCOPE_BYTES),
        ):
            raise ValueError(f"a part of the message has another length than {self.rows}")
        if any(word.dtype.itemsize != 8 for word in self.words):
            raise ValueError("numbers of a message have 8 bytes")
        if any(text.type not in _TEXTS or text.null_count for text in self.texts):
            raise ValueError("texts of a message are strings or binary, without nulls")


_TEXTS: Final = (pa.string(), pa.binary())
