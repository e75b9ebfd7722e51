"""Makes a killed broker's return safe: it is declared dead before it comes back.

A broker that was killed still counts as the leader of everything when its process starts again. It then takes up the
transactions it finds, is declared dead meanwhile because its old session runs out, and closes them without writing a
marker into any partition that has no leader at that moment: Kafka takes such partitions for deleted (KAFKA-20734,
4.3.1 has it). What was committed is then never seen, or a reader of committed records waits for ever. Where replicas
are left another broker leads, and none of this happens; one broker alone needs this help.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from devstack.process import KILL_WAIT_SECONDS, lifeline, tail, tied
from devstack.server import StackError

SESSION_MS: Final = 500
"""Of the dead broker, as the controller sees it here."""
_ACTIVE: Final = "Performing controller activation"
_FENCED: Final = "handleBrokerFenced"
_NOTHING_TO_FENCE_SECONDS: Final = 3.0
"""After a controller became active: the broker was declared dead before, and nothing will be said."""
_TIMEOUT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05


def was_killed(log_folder: Path) -> bool:
    """Whether a broker has used this folder and did not close it."""
    used, closed = log_folder / "meta.properties", log_folder / ".kafka_cleanshutdown"
    return used.exists() and not closed.exists() and any(log_folder.glob("__cluster_metadata-0/*.log"))


def fence(command: Sequence[str], log: Path) -> None:
    """Run a controller without a broker until it has declared the broker dead.

    command  starts it; its configuration holds `broker.session.timeout.ms` = SESSION_MS

    Raises StackError.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(tied(command), stdin=lifeline(), stdout=output, stderr=output)
    try:
        _await_fenced(process, log)
    finally:
        process.terminate()
        try:
            process.wait(KILL_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_fenced(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    active_since: float | None = None
    while True:
        said = log.read_text("utf-8", "replace")
        if _FENCED in said:
            return
        now = time.monotonic()
        if active_since is None and _ACTIVE in said:
            active_since = now
        if active_since is not None and now - active_since > _NOTHING_TO_FENCE_SECONDS:
            return
        if process.poll() is not None or now > deadline:
            raise StackError(f"the killed broker could not be declared dead. The end of {log}:\n{tail(said)}")
        time.sleep(_POLL_SECONDS)
