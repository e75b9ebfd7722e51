"""Parsers use one core: replicas are how they scale, and threads of libraries only take it from each other."""

from __future__ import annotations

import os


def keep_to_one_core() -> None:
    """Before anything of polars is imported: it reads how many threads it may have only once."""
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    import pyarrow as pa

    pa.set_cpu_count(1)
