"""How many random schedules a test plays: a few in every run, many in the long one."""

from __future__ import annotations

from typing import Any

import pytest


def seeds(few: int, many: int) -> list[Any]:
    """-> 0 to `many`, for `parametrize`; from `few` on they are marked `long`."""
    return [pytest.param(seed, marks=pytest.mark.long if seed >= few else ()) for seed in range(many)]
