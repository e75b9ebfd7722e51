"""A stage of ten lines as a process of its own, to show what the runtime gives any stage.

    python -m ingestcore.testing.ten_line_stage REPLICA [freeze FILE | service [reads FORMAT]]

Reads `objects`, emits the value to `blocks`. A value of `poison` raises, one of `deadly` kills the process, one of
`long N` takes N steps of 50 ms. With `freeze` the process stops itself once (SIGSTOP) with records in hand and touches
FILE. With `service` it runs as a service does: settings, admin port, exit codes; `reads` lets it pass for a version
that knows messages up to that format.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic_settings import BaseSettings

from ingestcore.runtime.service import Service
from ingestcore.stage import Emit, Fate, Input, Line, Origin, Stateless, Step

ORIGIN = Origin("o", "default", "test", "test@1", "s3://test/o")


class Copy(Stateless):
    """The ten lines."""

    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        if input.value == b"poison":
            raise ValueError("poison")
        if input.value == b"deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if input.value.startswith(b"long "):
            for number in range(int(resume or 0), int(input.value[5:])):
                time.sleep(0.05)
                yield Step((input.at,), (), resume=str(number + 1))
        emit = Emit("blocks", input.value, rows=1, partition=0)
        yield Step((input.at,), (Line(input.at, ORIGIN, Fate.EMITTED, 1),), (emit,))


class Freezing(Copy):
    """Stops itself once, from the tenth record on, with records in hand."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        if input.at.offset >= 10 and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        yield from super().process(input, resume)


class NoSettings(BaseSettings):
    """A copy has none."""


SERVICE = Service("copy", "copies", NoSettings, lambda context: Copy(), "objects", ("blocks",))


def main() -> None:
    replica, *how = sys.argv[1:]
    if how[:1] == ["service"]:
        from ingestcore.kafka import reading
        from ingestcore.runtime.process import serve

        if how[1:2] == ["reads"]:
            vars(reading)["FORMAT"] = int(how[2])
        sys.exit(serve(SERVICE, replica=replica))
    _run_bare(replica, how)


def _run_bare(replica: str, how: list[str]) -> None:
    from ingestcore.kafka.transactions import Transactions
    from ingestcore.observe import logs
    from ingestcore.observe.health import Health
    from ingestcore.observe.metrics import Metrics
    from ingestcore.runtime.access import Topics
    from ingestcore.runtime.gauges import StageGauges
    from ingestcore.runtime.loop import StageRunner
    from ingestcore.settings import Platform

    platform = Platform(replica=replica)
    logs.configure("INFO", "console", replica=replica)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    transactions = Transactions(platform, f"{platform.group('copy')}-{replica}")
    StageRunner(
        Freezing(Path(how[1])) if how[:1] == ["freeze"] else Copy(),
        service="copy",
        instance="copy",
        consumes="objects",
        platform=platform,
        topics=Topics(platform, transactions),
        transactions=transactions,
        gauges=StageGauges(Metrics(), "copy"),
        health=Health(),
        stop=stop,
    ).run()


if __name__ == "__main__":
    main()
