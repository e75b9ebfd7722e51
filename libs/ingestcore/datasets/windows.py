"""How long keys are remembered, and the dedupe changelog must be kept for the datasets in force. Pure."""

from __future__ import annotations

import math
from typing import Final

from ingestcore.datasets.registry import Registry

EVENT_WINDOW_SECONDS: Final = 7 * 86_400.0
"""How long the key of an event's row is remembered, where its dataset does not say: no producer retries for longer."""

SLACK: Final = 1.25
"""A key lives an eighth longer than its window, and a broker deletes whole segments by clocks of its own."""


def changelog_retention_ms(specs: Registry, unread_ms: int) -> int:
    """-> what to keep of `dedupe-changelog`: -1 (for ever), unless every dataset in force names a window.

    unread_ms  retention of `typed`; -1: for ever. A row may wait so long to be read, and a key whose window it came
               within must still be there then.
    """
    windows = [specs.dataset(f"{name}@{version}").dedupe.window for name, version in specs.pointers().items()]
    if not windows or None in windows or unread_ms < 0:
        return -1
    return math.ceil(max(window for window in windows if window) * 1000 * SLACK) + unread_ms
