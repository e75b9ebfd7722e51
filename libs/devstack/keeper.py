"""The process that owns a stack's servers.

    python -m devstack.keeper FOLDER --servers kafka,s3,redis [--detach]

It reports progress on stdout, one JSON object a line: {"progress": text}, then {"ready": true} or
{"error": text}. It stops the servers at SIGTERM, at SIGINT, when asked over the control connection and,
unless detached, when its parent is gone. The end of its stdin stops it too, but for a detached one that was
told to ignore it. The servers die with it whatever happens to it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from devstack.cache import cache_folder
from devstack.catalogue import pick
from devstack.channel import Answer, Channel, Request
from devstack.commands import write_commands
from devstack.control import LEAVE
from devstack.ports import PortClaims
from devstack.process import Child, spawn, stop_all, tail
from devstack.record import Record, keeper_lock, read_record, write_record
from devstack.server import Place, Server, StackError

READY_TIMEOUT_SECONDS = 120.0
READY_POLL_SECONDS = 0.1
PARENT_CHECK_SECONDS = 0.5
ANSWER_POLL_SECONDS = 0.5


class Stopped(Exception):
    """The keeper was told to stop while it was busy with something else."""


@dataclass
class _Task:
    """Something for the main thread to do, and the place where its answer goes."""

    request: Request
    answer: Future[Answer] = field(default_factory=Future)


class Keeper:
    """Starts, watches and stops the servers of one folder.

    All servers are spawned by the main thread: Linux ties a child's death signal to the thread that made it.
    """

    def __init__(self, folder: Path, servers: list[Server], report: Callable[[dict[str, object]], None]) -> None:
        self._folder = folder
        self._servers = servers
        self._report = report
        self._children: dict[str, Child] = {}
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._record = Record()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask for the end; safe in a signal handler and in any thread."""
        self._stopping.set()
        self._tasks.put(_Task({"do": "status"}))  # wakes the main thread

    def run(self, claims: PortClaims) -> None:
        """From the first start to the last stop. Raises StackError when the stack does not come up."""
        try:
            self._start(claims)
            self._report({"ready": True})
            while not self._stopping.is_set():
                self._next_task()
        except Stopped:
            self._report({"error": "it was told to stop before all servers were ready"})
        finally:
            self._update("stopping")
            stop_all(self._children.values())
            self._children.clear()
            self._update("stopped")

    def _start(self, claims: PortClaims) -> None:
        last = read_record(self._folder)
        former = last.former | last.local
        self._record = Record(keeper_pid=os.getpid(), ports=last.ports, former=former)
        local = self._split_off_external()
        for server in local:
            self._record.ports[server.name] = claims.choose(server.ports, last.ports.get(server.name, {}))
        listener = Channel(self._answer)
        self._record.control_port, self._record.control_key = listener.port, listener.key
        self._update("starting")
        self._start_servers(local)
        write_commands(self._folder, self._record.endpoints())
        self._update("running")

    def _split_off_external(self) -> list[Server]:
        """Note which servers the environment names; return those to start here."""
        local = []
        for server in self._servers:
            given = server.external(os.environ)
            # Our own address, exported by a shell that used this folder before, is no reason not to start.
            if given is None or given == self._record.former.get(server.name):
                local.append(server)
            else:
                self._record.external[server.name] = given
                self._report({"progress": f"{server.name}: using the one named in the environment"})
        return local

    def _start_servers(self, servers: list[Server]) -> None:
        """Prepare, spawn and await all of them side by side."""
        begun = time.monotonic()
        pool = ThreadPoolExecutor(max_workers=2 * len(servers) + 1)
        preparing = {pool.submit(self._prepare, server): server for server in servers}
        awaited: dict[Future[None], Server] = {}
        try:
            while preparing or awaited:
                if self._stopping.is_set():
                    raise Stopped
                done, _ = wait([*preparing, *awaited], timeout=READY_POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    if future in awaited:
                        server = awaited.pop(future)
                        self._report({"progress": f"{server.name}: ready after {time.monotonic() - begun:.1f} s"})
                    else:
                        server = preparing.pop(future)
                        awaited[pool.submit(self._await_ready, self._spawn(server))] = server
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, server: Server) -> None:
        place = self._place(server)
        place.data.mkdir(parents=True, exist_ok=True)
        server.prepare(place)

    def _spawn(self, server: Server) -> Child:
        child = spawn(server, self._place(server))
        self._children[server.name] = child
        self._record.local[server.name] = server.endpoint(child.place)
        self._update(self._record.state)
        return child

    def _await_ready(self, child: Child) -> None:
        name, log = child.server.name, child.place.log
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not (child.server.ready(child.place) and child.alive):
            if self._stopping.is_set():
                raise Stopped
            if not child.alive:
                trouble = f"ended with exit code {child.process.returncode}"
            elif time.monotonic() > deadline:
                trouble = f"was not ready after {READY_TIMEOUT_SECONDS:.0f} s"
            else:
                time.sleep(READY_POLL_SECONDS)
                continue
            raise StackError(f"{name} {trouble}. The end of {log}:\n{tail(child.place.fresh_log())}")

    def _place(self, server: Server) -> Place:
        return Place(
            folder=self._folder,
            data=self._folder / "data" / server.name,
            log=self._folder / "logs" / f"{server.name}.log",
            ports=self._record.ports[server.name],
        )

    def _update(self, state: str) -> None:
        self._record.state = state
        self._record.pids = self._living()
        write_record(self._folder, self._record)

    def _living(self) -> dict[str, int]:
        return {name: child.process.pid for name, child in self._children.items() if child.alive}

    def _answer(self, request: Request) -> Answer:
        """Runs in a control thread. Stop must work while the main thread waits for a server."""
        if request.get("do") == "stop":
            self.stop()
            return {"done": "stopping"}
        task = _Task(request)
        self._tasks.put(task)
        while not self._stopping.is_set():
            try:
                return task.answer.result(timeout=ANSWER_POLL_SECONDS)
            except TimeoutError:
                continue
            except StackError as error:
                return {"error": str(error)}
        return {"error": "the stack is stopping"}

    def _next_task(self) -> None:
        task = self._tasks.get()
        try:
            task.answer.set_result(self._do(task.request))
        except StackError as error:
            task.answer.set_exception(error)

    def _do(self, request: Request) -> Answer:
        match request:
            case {"do": "status"}:
                if self._living() != self._record.pids:
                    self._update(self._record.state)
                return {"pids": self._record.pids}
            case {"do": "signal", "server": str(name), "number": int(number)}:
                child = self._child(name)
                if not child.alive:
                    raise StackError(f"{name} is not running")
                child.signal(number)
                return {"done": "signal"}
            case {"do": "restart", "server": str(name), "hard": bool(hard)}:
                child = self._child(name)
                if hard:
                    child.signal(signal.SIGKILL)
                stop_all([child])
                self._prepare(child.server)
                self._await_ready(self._spawn(child.server))
                return {"done": "restart"}
        raise StackError(f"the keeper does not know the request {request}")

    def _child(self, name: str) -> Child:
        if name not in self._children:
            raise StackError(f"{name} is not a server of this stack (local: {', '.join(self._children) or 'none'})")
        return self._children[name]


def main(arguments: list[str] | None = None) -> NoReturn:
    parser = argparse.ArgumentParser(prog="devstack.keeper", description="Own the servers of one stack.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--servers", required=True, help="comma-separated names")
    parser.add_argument("--detach", action="store_true", help="outlive the starter")
    options = parser.parse_args(arguments)
    parent = os.getppid()
    if options.detach and os.fork() != 0:
        _leave(0)  # so that the keeper is nobody's child and leaves no zombie to its starter
    try:
        servers = pick([name for name in options.servers.split(",") if name])
        with keeper_lock(options.folder), PortClaims(cache_folder()) as claims:
            keeper = Keeper(options.folder, servers, _report)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: keeper.stop())
            watched = None if options.detach else parent
            threading.Thread(target=_stop_with_starter, args=(keeper, watched), daemon=True).start()
            keeper.run(claims)
    except StackError as error:
        _report({"error": str(error)})
        _leave(1)
    except Exception:
        traceback.print_exc()  # into the keeper's log, whose end the starter shows
        _leave(2)
    _leave(0)


def _report(message: dict[str, object]) -> None:
    """Tell the starter; once it has gone or stopped listening that is nobody's loss."""
    with contextlib.suppress(OSError):
        print(json.dumps(message), flush=True)


def _stop_with_starter(keeper: Keeper, parent: int | None) -> None:
    """Stop at the end of stdin, or when the parent is gone: a child that it forked may hold the pipe open."""
    while parent is None or os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], PARENT_CHECK_SECONDS)
        if readable:
            words = os.read(0, 4096)
            if words.strip() == LEAVE.encode():
                return
            if not words:
                break
    keeper.stop()


def _leave(code: int) -> NoReturn:
    """End at once: a thread may still wait for a download or a slow client."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
