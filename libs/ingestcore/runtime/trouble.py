"""Failures that are waited out, in an operator's words. Pure."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from ingestcore.kafka.errors import error_of
from ingestcore.stage import Retriable

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether a disk or a quota has no room left."""
    return error.errno in _FULL


def in_words(error: Exception, folder: Path) -> str:
    """folder: where this process keeps its local files, for errors that name none."""
    if isinstance(error, KafkaException):
        return error_of(error).str()
    if isinstance(error, OSError):
        if is_full(error):
            return f"no space left on the disk of {_place(error, folder)}: free some; going on when there is room"
        if error.filename is not None:
            return f"{_place(error, folder)}: {error.strerror}"
    return str(error) or type(error).__name__


def no_room(error: OSError, folder: Path) -> Retriable:
    """-> what a full disk is raised as by those who know the folder."""
    return Retriable(in_words(error, folder))


def _place(error: OSError, folder: Path) -> str:
    return str(error.filename or folder)
