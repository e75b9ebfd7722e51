"""Moments as operators write them: `2026-01-31T12:00:00Z`, `2026-01-31`, or how long ago: `90s`, `1h`, `7d`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ingestcore.cli.errors import EXIT_CONFIGURATION, OperatorError
from ingestcore.datasets.spec import parse_seconds


def moment(text: str, option: str, now: datetime | None = None) -> datetime:
    """-> a time in UTC; one written without a zone is UTC. Raises OperatorError."""
    try:
        return (now or datetime.now(UTC)) - timedelta(seconds=parse_seconds(text))
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise OperatorError(
            f"{option} {text!r} is no moment: write how long ago (90s, 1h, 7d) or a time like 2026-01-31T12:00:00Z",
            EXIT_CONFIGURATION,
        ) from None
    return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin in every partition: at an offset, at a time (milliseconds since 1970), or at one of the ends."""

    offset: int | None = None
    timestamp_ms: int | None = None
    latest: bool = False


def start_of(text: str, option: str = "--from", now: datetime | None = None) -> Start:
    """`earliest`, `latest`, an offset, or a moment. Raises OperatorError."""
    if text in ("earliest", "latest"):
        return Start(latest=text == "latest")
    if text.isascii() and text.isdigit():
        return Start(offset=int(text))
    try:
        return Start(timestamp_ms=int(moment(text, option, now).timestamp() * 1000))
    except OperatorError as error:
        raise OperatorError(f"{error}; or earliest, latest, an offset", EXIT_CONFIGURATION) from None
