"""A real OpenTelemetry collector between the services and `span_receiver`, where there is one on this machine.

No package registry has it, so the tests do without by default; docs/looking.md says how to build it and how to run them
with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from devstack.ports import PortClaims, listening

VARIABLE: Final = "OTELCOL"
"""Path of the collector's binary."""
_START_SECONDS: Final = 60.0


@contextmanager
def collecting(folder: Path, onwards: str) -> Iterator[str]:
    """-> where to send spans over OTLP (http/protobuf), until the end of the block: to the collector that `OTELCOL`
    names, which sends them on; where it names none, straight to `onwards`.

    Raises AssertionError: the collector does not start.
    """
    binary = os.environ.get(VARIABLE)
    if not binary:
        yield onwards
        return
    config, log = folder / "collector.yaml", folder / "collector.log"
    with PortClaims(folder) as claims, log.open("wb") as file:
        port = claims.choose(("otlp",), {})["otlp"]
        address = f"127.0.0.1:{port}"
        config.write_text(json.dumps(_config(address, onwards)))
        process = subprocess.Popen([binary, "--config", str(config)], stdout=file, stderr=file)
        try:
            _await(process, port, log)
            yield f"http://{address}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_START_SECONDS)


def _config(address: str, onwards: str) -> dict[str, object]:
    return {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": address}}}},
        "exporters": {"otlp_http": {"endpoint": onwards}},
        "service": {
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not listening(port):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
