"""Structured logs on standard error: one JSON object a line (or, for people, plain lines). Never row values."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any, TextIO, cast

import structlog


def configure(level: str, form: str, **always: Any) -> None:
    """Set up logging once per process.

    level   of LOG_LEVEL; form: `json` or `console`
    always  fields of every line (service, replica)
    Raises ValueError: no such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"LOG_LEVEL={level}: write DEBUG, INFO, WARNING or ERROR")
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _error_type,
            *([structlog.processors.format_exc_info] if form == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _Unfailing())),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    # It warns of credentials that can't be renewed with a traceback; the store says it in a sentence.
    logging.getLogger("botocore.credentials").setLevel(logging.ERROR)
    structlog.contextvars.bind_contextvars(**always)


class _Unfailing:
    """Standard error. A line that can't be written (a full disk) is lost; what it told of must go on."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def _error_type(_: Any, __: str, event: Any) -> Any:
    """`exc_info=error` or `error=<exception>` also says its type in a field of its own."""
    error = event.get("error")
    if isinstance(error, BaseException):
        event["error_type"], event["error"] = type(error).__name__, str(error)
    return event
