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
    """

    rows: int
    scopes: NDArray[np.uint8]
    nulls: Sequence[NDArray[np.bool_] | None]
    words: Sequence[NDArray[np.uint64]]
    texts: Sequence[pa.Array]
