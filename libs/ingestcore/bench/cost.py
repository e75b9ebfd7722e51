"""What a process has cost so far, as Linux counts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds (user and system, of all its threads) and the highest resident set so far, in bytes."""

    cpu_seconds: float
    peak_rss_bytes: int

    @classmethod
    def of(cls, pid: int) -> Cost:
        """Raises psutil.NoSuchProcess: it has ended."""
        spent = psutil.Process(pid).cpu_times()
        return cls(spent.user + spent.system, peak_rss_bytes(pid))


def peak_rss_bytes(pid: int) -> int:
    """-> the highest resident set of a process. Raises OSError: it has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
