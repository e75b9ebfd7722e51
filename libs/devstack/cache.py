"""The folder for things that are installed once per user and shared by all stacks."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "INGEST_CACHE"


def cache_folder() -> Path:
    """`$INGEST_CACHE`, else `~/.cache/ingest-devstack`."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "ingest-devstack"
