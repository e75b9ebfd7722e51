"""Become a server that cannot outlive its keeper.

    python exec_shim.py KEEPER_PID PROGRAM [ARGUMENT ...]

Stdin is a pipe that ends with the keeper. On Linux the kernel is asked for SIGKILL at the keeper's death,
then the program takes this process over, with an empty stdin. Elsewhere a watcher process waits for the end
of the pipe and kills the program's process group. Started as a file, not as a module, so that it needs no
import path and starts in some 20 ms.
"""

import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1
WATCH_INTERVAL_SECONDS = 0.5


def main(arguments: list[str]) -> None:
    keeper = int(arguments[0])
    program = arguments[1:]
    if not _die_with_parent():
        _watch()
    # The keeper may have died before the kernel was asked: then nobody would send the signal.
    if os.getppid() != keeper:
        sys.exit("exec_shim: the keeper is gone")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.exit(f"exec_shim: cannot run {program[0]}: {error}")


def _die_with_parent() -> bool:
    """Ask the kernel for SIGKILL when the parent thread ends; False where that does not exist."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _watch() -> None:
    """Fork a watcher in a session of its own; return in the process that becomes the server."""
    server = os.getpid()
    if os.fork() != 0:
        return
    os.setsid()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # whoever reads the server's output waits until all its writers are gone
    os.dup2(nowhere, 2)
    while os.getppid() == server:
        ended, _, _ = select.select([0], [], [], WATCH_INTERVAL_SECONDS)
        if ended:
            _kill(server)
            break
    os._exit(0)


def _kill(server: int) -> None:
    try:
        if os.getpgid(server) == server:
            os.killpg(server, signal.SIGKILL)
        else:
            os.kill(server, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
