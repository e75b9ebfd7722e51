"""A folder that one process at a time keeps: the lock that says so, and a record there for others to read."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.1


@contextmanager
def sole_owner(lock: Path, refuse: Callable[[float], None]) -> Iterator[None]:
    """Hold a lock file; the system frees it at our death. Raises OSError.

    refuse: called with the seconds waited so far while another process holds it; raises once that is too long
    """
    with lock.open("a") as file:
        begun = time.monotonic()
        while not _locked(file, fcntl.LOCK_EX):
            refuse(time.monotonic() - begun)
            time.sleep(POLL_SECONDS)
        yield


def is_owned(lock: Path) -> bool:
    """Whether a process holds the lock file. One that can't be opened is held by nobody."""
    try:
        with lock.open("r") as file:
            # Shared, so that two who look at the same time do not take each other for the owner.
            return not _locked(file, fcntl.LOCK_SH)
    except OSError:
        return False


def replace(path: Path, text: str) -> None:
    """Write a file in one step, readable by its owner only. Raises OSError, and then it is as it was."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
