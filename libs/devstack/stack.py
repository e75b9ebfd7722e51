"""Start, reach and stop a stack: the way in for tests, benchmarks and the command line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGKILL
from types import TracebackType

from devstack import seaweedfs
from devstack.commands import bin_folder, import_path
from devstack.control import LEAVE, ask
from devstack.endpoints import Endpoints
from devstack.process import tail
from devstack.record import STOP_SECONDS, Record, has_keeper, read_record
from devstack.server import StackError

DEFAULT_SERVERS = ("kafka", "s3", "redis")
STOP_POLL_SECONDS = 0.05
WAIT_POLL_SECONDS = 0.5
KEEPER_LOG = "keeper.log"

Progress = Callable[[str], None]


class Stack:
    """A running set of servers. Leaving the `with` block stops it."""

    def __init__(self, folder: Path, keeper: subprocess.Popen[str] | None = None) -> None:
        """For `start` and `connect`; `keeper` is our own child process, if we started it."""
        self._folder = folder
        self._keeper = keeper
        self._record = read_record(folder)

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def bin(self) -> Path:
        """Folder with kafka-topics.sh and the like; put it on PATH."""
        return bin_folder(self._folder)

    @property
    def logs(self) -> Path:
        return self._folder / "logs"

    @property
    def endpoints(self) -> Endpoints:
        return self._record.endpoints()

    @property
    def keeper_pid(self) -> int:
        return self._record.keeper_pid

    def pids(self) -> dict[str, int]:
        """Process ids of the local servers that are alive, by server name. Empty when the stack is down."""
        try:
            pids: dict[str, int] = ask(self._record, {"do": "status"})["pids"]
        except StackError:
            return {}
        return pids

    def running(self) -> bool:
        """Whether the keeper and all local servers are alive."""
        return has_keeper(self._folder) and self.pids().keys() == self._record.local.keys()

    def kill(self, name: str, signal: int = SIGKILL) -> None:
        """Send a signal to a server and its children, SIGSTOP and SIGCONT included; does not wait.

        Raises StackError when it is not a local server or not running.
        """
        ask(self._record, {"do": "signal", "server": name, "number": int(signal)})

    def restart(self, name: str, *, hard: bool = False) -> None:
        """Stop a server (`hard`: with SIGKILL), start it on the same ports and data, wait until it is ready.

        Also starts one that was killed. Raises StackError when it does not come up.
        """
        ask(self._record, {"do": "restart", "server": name, "hard": hard})

    def create_bucket(self, name: str) -> None:
        """Create an S3 bucket unless it exists; names have at least 3 characters. Raises StackError."""
        if not self.endpoints.s3:
            raise StackError(f"the stack in {self._folder} has no S3 server")
        seaweedfs.create_bucket(self.endpoints.as_dict(), name)

    def remove_bucket(self, name: str) -> None:
        """Remove an S3 bucket and what is in it. Raises StackError."""
        seaweedfs.remove_bucket(self.endpoints.as_dict(), name)

    def stop(self) -> None:
        """Stop all servers and wait until they are gone; nothing happens when the stack is down."""
        if self._keeper is not None:
            _end(self._keeper)
        elif self._still_ours():
            with contextlib.suppress(StackError):  # it is going down already, or dead
                ask(self._record, {"do": "stop"})
            self._await_end()

    def wait(self, on_progress: Progress | None = None) -> None:
        """Block until the stack ends, whoever stops it; servers that end before it are reported once.

        Raises StackError when the keeper was killed instead of stopped.
        """
        reported: set[str] = set()
        while self._still_ours():
            with contextlib.suppress(StackError):
                dead = self._record.local.keys() - ask(self._record, {"do": "status"})["pids"].keys()
                for name in sorted(dead - reported):
                    if on_progress is not None:
                        on_progress(f"{name}: has ended, see {self.logs / name}.log")
                reported = dead
            time.sleep(WAIT_POLL_SECONDS)
        last = read_record(self._folder)
        if last.keeper_pid == self.keeper_pid and last.state != "stopped":
            raise StackError(f"the stack's keeper (process {self.keeper_pid}) was killed, its servers with it")

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _still_ours(self) -> bool:
        """Whether the folder's keeper is the one we know; another one may have followed it."""
        return has_keeper(self._folder) and read_record(self._folder).keeper_pid == self._record.keeper_pid

    def _await_end(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while self._still_ours():
            if time.monotonic() > deadline:
                raise StackError(
                    f"the stack in {self._folder} has not stopped after {STOP_SECONDS:.0f} s "
                    f"(keeper process {self.keeper_pid})"
                )
            time.sleep(STOP_POLL_SECONDS)


def start(
    folder: Path,
    *,
    servers: Sequence[str] = DEFAULT_SERVERS,
    detach: bool = False,
    on_progress: Progress | None = None,
) -> Stack:
    """Start a stack in a folder (made if missing) and return when every server is ready.

    Data and ports of an earlier stack in the folder are used again. Servers that the environment names
    (KAFKA_BOOTSTRAP_SERVERS or KAFKA_BROKERS, S3_ENDPOINT_URL, REDIS_URL, POSTGRES_URL) are not started but used.
    Unless `detach`, keep the Stack: the servers stop when it is dropped or this process ends, in whatever
    way. The first start of all downloads Kafka, which takes from seconds to minutes.

    Raises StackError, with the end of the log of the server that failed; nothing is left running then.
    """
    folder = folder.absolute()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with (folder / "logs" / KEEPER_LOG).open("a") as log:
        keeper = subprocess.Popen(
            [
                *(sys.executable, "-m", "devstack.keeper", str(folder), "--servers", ",".join(servers)),
                *(("--detach",) if detach else ()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # a Ctrl-C in the terminal is ours to handle
        )
    try:
        _await_ready(keeper, folder, on_progress)
        if detach:
            _let_go(keeper)
            return Stack(folder)
    except BaseException:
        _end(keeper)
        raise
    return Stack(folder, keeper)


def connect(folder: Path) -> Stack | None:
    """The stack that runs in a folder, started by whatever process; None when none is ready there."""
    folder = folder.absolute()
    if has_keeper(folder) and read_record(folder).state == "running":
        return Stack(folder)
    return None


def stop_folder(folder: Path) -> bool:
    """Stop whatever stack a folder has, also one that is still starting; False when there is none.

    Raises StackError when it does not stop.
    """
    folder = folder.absolute()
    if not has_keeper(folder):
        return False
    Stack(folder).stop()
    return True


def last_record(folder: Path) -> Record:
    """What the folder says about its stack, running or not."""
    folder = folder.absolute()
    record = read_record(folder)
    if not has_keeper(folder):
        record.state, record.pids = "stopped", {}
    return record


def _environment() -> dict[str, str]:
    paths = [str(import_path()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _await_ready(keeper: subprocess.Popen[str], folder: Path, on_progress: Progress | None) -> None:
    assert keeper.stdout is not None
    for line in keeper.stdout:
        message = json.loads(line)
        if "error" in message:
            raise StackError(message["error"])
        if "ready" in message:
            return
        if on_progress is not None:
            on_progress(message["progress"])
    log = folder / "logs" / KEEPER_LOG
    raise StackError(f"the stack's keeper ended unexpectedly. The end of {log}:\n{tail(log.read_text())}")


def _let_go(keeper: subprocess.Popen[str]) -> None:
    """Tell a detached keeper that the end of its stdin means nothing any more."""
    assert keeper.stdin is not None and keeper.stdout is not None
    keeper.stdin.write(LEAVE + "\n")
    keeper.stdin.close()
    keeper.stdout.close()
    keeper.wait()  # the keeper itself is a child of this one, which ended long ago


def _end(keeper: subprocess.Popen[str]) -> None:
    """Close the keeper's stdin, which makes it stop its servers; the end of its stdout says it is done."""
    if keeper.stdout is None or keeper.stdout.closed:
        return
    try:
        keeper.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()  # its servers die with it
        keeper.communicate()
