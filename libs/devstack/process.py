"""Child processes that die with their parent and are stopped as whole process groups."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from devstack.server import Place, Server, StackError

POLL_SECONDS = 0.05
KILL_WAIT_SECONDS = 10.0  # after SIGKILL only the kernel can be slow
TAIL_LINES = 25
_SHIM = str(Path(__file__).with_name("exec_shim.py"))


def tied(command: Sequence[str]) -> list[str]:
    """The command, wrapped so that it dies with this process (on Linux: with the calling thread).

    To be run with `lifeline()` as its stdin.
    """
    return [sys.executable, "-I", "-S", _SHIM, str(os.getpid()), *command]


@cache
def lifeline() -> int:
    """The read end of a pipe whose write end only this process has: it ends when this process does."""
    read, _write = os.pipe()  # neither is inherited unless passed on
    return read


def run_tied(command: Sequence[str], *, what: str, timeout_seconds: float, tail_lines: int = TAIL_LINES) -> str:
    """Run a preparing step to its end and give its output (stdout, then stderr).

    Raises StackError with the end of its output when it fails or takes too long.
    """
    try:
        done = subprocess.run(
            tied(command),
            stdin=lifeline(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"{what}: not done after {timeout_seconds:.0f} s") from None
    output = done.stdout + done.stderr
    if done.returncode != 0:
        raise StackError(f"{what} failed (exit code {done.returncode}):\n{tail(output, tail_lines)}")
    return output


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented for an error message."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])


@dataclass(frozen=True)
class Child:
    """One running server process: the leader of its own session and process group."""

    server: Server
    place: Place
    process: subprocess.Popen[bytes]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the whole group; nothing happens when it is gone."""
        # PermissionError: macOS answers so for a group that holds only a zombie.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def spawn(server: Server, place: Place) -> Child:
    """Start a server. To be called by a thread that lives as long as the keeper: a child is tied to it."""
    place.log.parent.mkdir(parents=True, exist_ok=True)
    with place.log.open("ab") as log:
        place = Place(place.folder, place.data, place.log, place.ports, log_start_bytes=log.tell())
        process = subprocess.Popen(
            tied(server.command(place)),
            stdin=lifeline(),
            stdout=log,
            stderr=log,
            cwd=place.data,
            env=_without_python(server.environment(os.environ)),
            start_new_session=True,
        )
    return Child(server, place, process)


def stop_all(children: Iterable[Child]) -> None:
    """Stop servers side by side: the signal each wants, its own grace, then SIGKILL for the group.

    Raises StackError, after all others were stopped, when a process survives SIGKILL.
    """
    waiting = list(children)
    survivors: list[str] = []
    begun = time.monotonic()
    for child in waiting:
        child.signal(child.server.stop_signal)
        child.signal(signal.SIGCONT)  # a frozen process takes a signal only once it runs again
    while waiting:
        time.sleep(POLL_SECONDS)
        elapsed = time.monotonic() - begun
        for child in list(waiting):
            if child.alive and elapsed < child.server.grace_seconds:
                continue
            waiting.remove(child)
            child.signal(signal.SIGKILL)  # also for what a dead leader left in its group
            try:
                child.process.wait(KILL_WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                survivors.append(f"{child.server.name} (process {child.process.pid})")
            else:
                child.server.cleanup(child.place)
    if survivors:
        raise StackError(f"survives SIGKILL: {', '.join(survivors)}")


def _without_python(environ: Mapping[str, str]) -> dict[str, str]:
    """Python's own settings mean nothing to a server."""
    return {name: value for name, value in environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
