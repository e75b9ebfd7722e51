"""The built library, as far as it is one of these sources."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from ingestcore.machine_code.building import source_digest


def load(library: Path) -> Any:
    """Raises OSError: none is there, or this processor can't run it, or it was built from another source."""
    loaded = ctypes.CDLL(str(library))
    told: Any = getattr(loaded, "ingest_source", None)
    if told is not None:
        told.restype = ctypes.c_char_p
    if told is None or told() != source_digest().encode():
        raise OSError(f"{library} was built from another source: install the project again")
    return loaded
