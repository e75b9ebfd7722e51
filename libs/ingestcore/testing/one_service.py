"""One service process for tests: started as `ingest run` does, asked over its admin port, read by its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.1
_END_SECONDS = 60.0


class OneService:
    """module and arguments: what to run. environ is added to this process's own; folder: for its log and run file."""

    def __init__(self, folder: Path, environ: Mapping[str, str], module: str, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._run_file, self.log = folder / "run.json", folder / "log"
        self.environ = {**os.environ, **environ, "INGEST_RUN_FILE": str(self._run_file)}
        self._command = [sys.executable, "-m", module, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def named(cls, folder: Path, environ: Mapping[str, str], *arguments: str) -> OneService:
        """-> `ingest run ARGUMENTS`."""
        return cls(folder, environ, "ingestcore.cli.main", "run", *arguments)

    def start(self, *more: str) -> None:
        self._run_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*self._command, *more], env=self.environ, stdout=log, stderr=log)

    def stop(self) -> None:
        """Drain it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_END_SECONDS)

    def kill(self) -> None:
        """As the kernel does it: nothing is finished."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_END_SECONDS)

    def ends(self) -> int:
        """Wait until it ends by itself. -> exit code. Raises AssertionError: it does not."""
        assert self._process is not None
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running: {self.health()}\n{self.told()}") from None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def health(self) -> dict[str, Any]:
        """-> /health/detailed; empty while the process has no port."""
        try:
            port = json.loads(self._run_file.read_text())["port"]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/detailed", timeout=5) as answer:
                told: dict[str, Any] = json.load(answer)
                return told
        except (OSError, ValueError):
            return {}

    def wait_until(self, state: str, *words: str, seconds: float = 60) -> str:
        """Wait until it is in this state and its reason holds these words. -> the reason."""
        deadline = time.monotonic() + seconds
        while True:
            health = self.health()
            reason = str(health.get("reason"))
            if health.get("state") == state and all(word in reason for word in words):
                return reason
            assert self.running() and time.monotonic() < deadline, f"{health}\n{self.told()}"
            time.sleep(_POLL_SECONDS)

    def told(self) -> str:
        """-> its log."""
        return self.log.read_text()

    def lines(self, event: str) -> Sequence[dict[str, Any]]:
        """-> log lines of one event."""
        told = [json.loads(line) for line in self.told().splitlines() if line.startswith("{")]
        return [line for line in told if line["event"] == event]

    def stopped_for_an_operator(self, *words: str) -> str:
        """It ends with exit code 2 and one message that holds these words, without a traceback. -> the message."""
        assert self.ends() == 2, self.told()
        stopped = self.lines("stopped")
        assert len(stopped) == 1 and "Traceback" not in self.told(), self.told()
        reason = str(stopped[0]["reason"])
        for word in words:
            assert word in reason, reason
        return reason
