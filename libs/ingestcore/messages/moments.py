"""How a moment stands in messages: ISO 8601, UTC, ending in `Z`."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_utc(moment: datetime, timespec: str = "milliseconds") -> str:
    """-> text such as `2026-01-02T03:04:05.678Z`. `timespec` as of `datetime.isoformat`."""
    moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return moment.isoformat(timespec=timespec).removesuffix("+00:00") + "Z"
