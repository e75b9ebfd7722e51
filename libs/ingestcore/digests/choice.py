"""Which way this installation goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ingestcore.digests.machine_code import MachineCode
from ingestcore.digests.message import Message
from ingestcore.machine_code.building import BUILT

RowDigests = Callable[[Message], NDArray[np.uint8]]
"""-> SHA-256 of each row's message, cut to 16 bytes: rows × 16"""


@cache
def row_digests() -> RowDigests:
    """-> machine code where it is built and runs."""
    try:
        return MachineCode(BUILT)
    except OSError:
        # polars takes 40 MiB, which a process with machine code has no use for.
        from ingestcore.digests.portable import portable

        return portable
