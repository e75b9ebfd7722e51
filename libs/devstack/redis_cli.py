"""A small redis-cli: the options, the output formats and the exit codes that runbooks rely on.

    redis-cli [-h HOST] [-p PORT] [-u URL] [-n DB] [-a PASSWORD] [--user NAME] [--raw|--no-raw] [-e] [-x]
              [--scan [--pattern P]] [COMMAND [ARGUMENT ...]]

Without a command it reads commands from stdin, one a line. Output is raw unless stdout is a terminal.
It speaks the protocol itself: a client library would no longer tell a status (OK) from a string ("OK").
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

DEFAULT_URL_VARIABLE = "DEVSTACK_REDIS_URL"
PASSWORD_VARIABLE = "REDISCLI_AUTH"
CONNECT_TIMEOUT_SECONDS = 10.0
# Replies meant to be read as text: never quoted, not even on a terminal.
TEXT_COMMANDS = {
    ("INFO",),
    ("CLIENT", "LIST"),
    ("CLIENT", "INFO"),
    ("MEMORY", "DOCTOR"),
    ("LATENCY", "DOCTOR"),
}
_ESCAPES = {0x5C: "\\\\", 0x22: '\\"', 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x07: "\\a", 0x08: "\\b"}


@dataclass(frozen=True)
class Status:
    text: bytes


@dataclass(frozen=True)
class Failure:
    text: bytes


Reply = Status | Failure | int | bytes | None | list["Reply"]


@dataclass(frozen=True)
class Target:
    host: str = "127.0.0.1"
    port: int = 6379
    database: int = 0
    user: str = ""
    password: str = ""
    tls: bool = False


class Connection:
    """One RESP2 connection. Raises OSError when the server is not there, EOFError when it hangs up."""

    def __init__(self, target: Target) -> None:
        self._socket: socket.socket = socket.create_connection(
            (target.host, target.port), timeout=CONNECT_TIMEOUT_SECONDS
        )
        self._socket.settimeout(None)  # BLPOP may block for good
        if target.tls:
            self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=target.host)
        self._stream = self._socket.makefile("rb")

    def call(self, *arguments: bytes) -> Reply:
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(argument), argument) for argument in arguments)
        self._socket.sendall(b"*%d\r\n%s" % (len(arguments), parts))
        return self.read()

    def read(self) -> Reply:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("Server closed the connection")
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return Status(rest)
            case b"-":
                return Failure(rest)
            case b":":
                return int(rest)
            case b"$":
                size = int(rest)
                return None if size < 0 else self._stream.read(size + 2)[:-2]
            case b"*":
                count = int(rest)
                return None if count < 0 else [self.read() for _ in range(count)]
        raise EOFError(f"unexpected reply {line!r}")


def target_of(url: str, start: Target) -> Target:
    """Read redis://[[user]:password@]host[:port][/database] (rediss: with TLS)."""
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"}:
        raise ValueError(f"not a redis:// address: {url}")
    database = parts.path.strip("/")
    return Target(
        host=parts.hostname or start.host,
        port=parts.port or start.port,
        database=int(database) if database else start.database,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or "") or start.password,
        tls=parts.scheme == "rediss",
    )


def format_raw(reply: Reply) -> bytes:
    """As written to a pipe or file."""
    match reply:
        case None:
            return b""
        case Status(text):
            return text
        case Failure(text):
            return text + b"\n"
        case bytes():
            return reply
        case list():
            return b"\n".join(map(format_raw, reply))
    return str(reply).encode()


def format_terminal(reply: Reply, indent: str = "") -> str:
    """As written to a terminal: types shown, strings quoted, arrays numbered."""
    match reply:
        case None:
            return "(nil)\n"
        case Status(text):
            return text.decode("utf-8", "replace") + "\n"
        case Failure(text):
            return f"(error) {text.decode('utf-8', 'replace')}\n"
        case bytes():
            return quoted(reply) + "\n"
        case []:
            return "(empty array)\n"
        case list():
            width = len(str(len(reply)))
            inner = indent + " " * (width + 2)
            numbered = (f"{number:>{width}}) {format_terminal(item, inner)}" for number, item in enumerate(reply, 1))
            return indent.join(numbered)
    return f"(integer) {reply}\n"


def quoted(text: bytes) -> str:
    shown = (_ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in text)
    return '"' + "".join(shown) + '"'


def main(arguments: list[str] | None = None) -> int:
    """Run one command, a scan, or the commands on stdin. Returns the exit code."""
    options = _parse(arguments)
    raw = options.raw if options.raw is not None else not sys.stdout.isatty()
    try:
        target = _target(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        connection = Connection(target)
        for refused in _greet(connection, target):
            print(f"(error) {refused.text.decode()}", file=sys.stderr)
        if options.scan:
            return _scan(connection, options.pattern, raw)
        if options.command:
            command = [os.fsencode(part) for part in options.command]
            return _run(connection, command + ([sys.stdin.buffer.read()] if options.x else []), raw, options.e)
        return _run_lines(connection, target, raw, options.e)
    except OSError as error:
        reason = error.strerror or str(error)
        print(f"Could not connect to Redis at {target.host}:{target.port}: {reason}", file=sys.stderr)
    except EOFError as error:
        print(f"Error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        pass
    return 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="redis-cli", add_help=False, allow_abbrev=False)
    parser.add_argument("--help", action="help")
    parser.add_argument("-h", dest="host")
    parser.add_argument("-p", dest="port", type=int)
    parser.add_argument("-u", dest="url")
    parser.add_argument("-n", dest="database", type=int)
    parser.add_argument("-a", "--pass", dest="password")
    parser.add_argument("--user", default="")
    parser.add_argument("--raw", dest="raw", action="store_true", default=None)
    parser.add_argument("--no-raw", dest="raw", action="store_false")
    parser.add_argument("-e", action="store_true", help="exit code 1 after an error reply")
    parser.add_argument("-x", action="store_true", help="the last argument comes from stdin")
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--pattern", default="*")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args(arguments)


def _target(options: argparse.Namespace) -> Target:
    target = Target(password=os.environ.get(PASSWORD_VARIABLE, ""))
    default_url = os.environ.get(DEFAULT_URL_VARIABLE)
    if options.url:
        target = target_of(options.url, target)
    elif default_url and options.host is None and options.port is None:
        target = target_of(default_url, target)
    return replace(
        target,
        host=options.host or target.host,
        port=options.port or target.port,
        database=target.database if options.database is None else options.database,
        user=options.user or target.user,
        password=options.password or target.password,
    )


def _greet(connection: Connection, target: Target) -> Iterator[Failure]:
    if target.password:
        names = (target.user, target.password) if target.user else (target.password,)
        answer = connection.call(b"AUTH", *(name.encode() for name in names))
        if isinstance(answer, Failure):
            yield answer
    if target.database:
        answer = connection.call(b"SELECT", str(target.database).encode())
        if isinstance(answer, Failure):
            yield answer


def _run(connection: Connection, command: list[bytes], raw: bool, error_code: bool) -> int:
    words = tuple(word.decode("utf-8", "replace").upper() for word in command[:2])
    reply = connection.call(*command)
    if raw or words[:1] in TEXT_COMMANDS or words in TEXT_COMMANDS:
        sys.stdout.buffer.write(format_raw(reply) + b"\n")
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(format_terminal(reply))
        sys.stdout.flush()
    return 1 if error_code and isinstance(reply, Failure) else 0


def _run_lines(connection: Connection, target: Target, raw: bool, error_code: bool) -> int:
    prompt = f"{target.host}:{target.port}> " if sys.stdin.isatty() else ""
    code = 0
    while True:
        print(prompt, end="", flush=True)
        line = sys.stdin.readline()
        try:
            words = shlex.split(line)
        except ValueError:
            print("Invalid argument(s)")
            continue
        if not line or words[:1] in (["quit"], ["exit"]):
            return code
        if words:
            code = _run(connection, [os.fsencode(word) for word in words], raw, error_code) or code


def _scan(connection: Connection, pattern: str, raw: bool) -> int:
    cursor = b"0"
    while True:
        match connection.call(b"SCAN", cursor, b"MATCH", os.fsencode(pattern)):
            case [bytes() as cursor, [*keys]]:
                for key in keys:
                    if isinstance(key, bytes):
                        sys.stdout.buffer.write((key if raw else quoted(key).encode()) + b"\n")
            case reply:
                print(format_terminal(reply), end="", file=sys.stderr)
                return 1
        if cursor == b"0":
            sys.stdout.buffer.flush()
            return 0


if __name__ == "__main__":
    sys.exit(main())
