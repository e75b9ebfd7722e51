"""The command line: python -m devstack up | down | status | env | install."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from pathlib import Path

from devstack.kafka_jars import install
from devstack.server import StackError
from devstack.stack import DEFAULT_SERVERS, Stack, connect, last_record, start, stop_folder

DEFAULT_FOLDER = Path(".devstack")


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 failed, 3 (status, env) no stack is running."""
    options = _parse(arguments)
    try:
        match options.command:
            case "up":
                return _up(options.dir, options.servers.split(","), options.detach, options.json)
            case "down":
                return _down(options.dir)
            case "status":
                return _status(options.dir, options.json)
            case "env":
                return _env(options.dir, options.json)
            case _:
                print(install())
                return 0
    except StackError as error:
        print(f"devstack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in {
        "up": "start the servers; in the foreground until Ctrl-C unless --detach",
        "down": "stop the servers of a folder",
        "status": "show which servers run, and where",
        "env": 'print export lines; use as: eval "$(python -m devstack env)"',
    }.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.add_argument("--dir", type=Path, default=DEFAULT_FOLDER, help="the stack's folder (%(default)s)")
        if name != "down":
            command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        if name == "up":
            command.add_argument("--detach", action="store_true", help="return when ready, leave the servers running")
            command.add_argument("--servers", default=",".join(DEFAULT_SERVERS), help="comma-separated (%(default)s)")
    commands.add_parser("install", help="download Kafka now and print its folder; up does it when needed")
    return parser.parse_args(arguments)


def _up(folder: Path, servers: list[str], detach: bool, as_json: bool) -> int:
    # A script that starts us in the background has SIGINT ignored, and Python would leave it so.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    tell = None if as_json else lambda text: print(text, file=sys.stderr, flush=True)
    stack = start(folder, servers=servers, detach=detach, on_progress=tell)
    try:
        _show(stack, as_json)
        if not detach:
            if not as_json:
                print("Ctrl-C stops it.", flush=True)
            stack.wait(tell)
    finally:
        if not detach:
            stack.stop()
    return 0


def _down(folder: Path) -> int:
    print("stopped" if stop_folder(folder) else f"no stack is running in {folder}")
    return 0


def _status(folder: Path, as_json: bool) -> int:
    stack = connect(folder)
    if stack is not None:
        _show(stack, as_json)
        return 0
    state = last_record(folder).state
    print(json.dumps({"state": state}) if as_json else f"{state}: {folder}")
    return 3


def _env(folder: Path, as_json: bool) -> int:
    stack = connect(folder)
    if stack is None:
        print(f"devstack: no stack is running in {folder}", file=sys.stderr)
        return 3
    variables = stack.endpoints.environ()
    if as_json:
        print(json.dumps(variables))
        return 0
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    print(f'export PATH={shlex.quote(str(stack.bin))}:"$PATH"')
    return 0


def _show(stack: Stack, as_json: bool) -> None:
    endpoints, pids = stack.endpoints, stack.pids()
    if as_json:
        facts = {"state": "running", "folder": str(stack.folder), "bin": str(stack.bin)}
        print(json.dumps({**facts, "pids": pids, "endpoints": endpoints.as_dict()}), flush=True)
        return
    record = last_record(stack.folder)
    fields = endpoints.as_dict()
    for name in (*record.local, *record.external):
        where = (
            "from the environment" if name in record.external else f"process {pids[name]}" if name in pids else "DEAD"
        )
        print(f"{name:<6} {fields[name]:<32} {where}")
    print(f"tools  {stack.bin}\nlogs   {stack.logs}", flush=True)


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
