"""Temporary files left behind by a process that was killed: found by name and age, removed at start."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import structlog

SUFFIX: Final = ".tmp"
"""Every temporary and spool file of any service ends so."""

log = structlog.get_logger(__name__)


def sweep(folder: Path, max_age_seconds: float, now: float | None = None) -> int:
    """Remove `*.tmp` files below `folder` that nobody has written to for `max_age_seconds`. -> how many.

    Younger ones may belong to a process that still runs. Symbolic links are not followed; a file that vanishes
    meanwhile or may not be removed is passed over with a warning for the latter.
    """
    oldest = (time.time() if now is None else now) - max_age_seconds
    removed = 0
    for path, _, names in os.walk(folder):
        for name in names:
            if name.endswith(SUFFIX):
                removed += _remove(Path(path, name), oldest)
    if removed:
        log.info("stale temporary files removed", folder=str(folder), files=removed)
    return removed


def _remove(file: Path, oldest: float) -> bool:
    try:
        if file.lstat().st_mtime >= oldest:
            return False
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("a stale temporary file cannot be removed", file=str(file), error=error.strerror)
        return False
    return True
