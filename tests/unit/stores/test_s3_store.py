"""The S3 store against a server that misbehaves on purpose. How it behaves on a good one is in the contract tests."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from ingestcore.stores import s3
from ingestcore.stores.objects import Changed, Missing, ObjectStore, Refused, Unavailable
from ingestcore.stores.s3 import S3Store, open_store

DATA = bytes(range(256)) * 64


@dataclass
class Answer:
    """What the server does with one request instead of answering well."""

    status: int = 200
    code: str = ""
    cut_at: int | None = None
    reset: bool = False
    stall_seconds: float = 0.0
    ignore_range: bool = False
    lose_answer: bool = False


@dataclass
class Server:
    """connections: opened so far; pace_seconds: time every request takes."""

    url: str
    connections: int = 0
    pace_seconds: float = 0.0
    planned: deque[Answer] = field(default_factory=deque)
    seen: list[tuple[str, str]] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def setup(self) -> None:
            server.connections += 1
            super().setup()

        def do_HEAD(self) -> None:
            threading.Event().wait(server.pace_seconds)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self._serve(b"")

        def do_PUT(self) -> None:
            self._serve(self.rfile.read(int(self.headers["Content-Length"])))

        def _serve(self, body: bytes) -> None:
            server.seen.append((self.command, self.path))
            plan = server.planned.popleft() if server.planned else Answer()
            if plan.stall_seconds or server.pace_seconds:
                threading.Event().wait(plan.stall_seconds or server.pace_seconds)
            if plan.reset:
                self._reset()
            elif plan.status >= 400:
                self._refuse(plan.status, plan.code)
            elif self.command == "PUT":
                self._put(body, plan)
            else:
                self._get(plan)

        def _get(self, plan: Answer) -> None:
            first, last = 0, len(DATA) - 1
            ranged = "Range" in self.headers and not plan.ignore_range
            if ranged:
                first, last = (int(text) for text in self.headers["Range"].removeprefix("bytes=").split("-"))
            part = DATA[first : last + 1]
            self.send_response(206 if ranged else 200)
            if ranged:
                self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(DATA)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: plan.cut_at])
            if plan.cut_at is not None:
                self.close_connection = True

        def _put(self, body: bytes, plan: Answer) -> None:
            key = unquote(urlsplit(self.path).path)
            if self.headers.get("If-None-Match") == "*" and key in server.stored:
                return self._refuse(412, "PreconditionFailed")
            server.stored[key] = body
            if plan.lose_answer:
                return self._reset()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def _refuse(self, status: int, code: str) -> None:
            body = f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

    return Handler


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    made = Server("")
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{http.server_port}"
    yield made
    http.shutdown()
    http.server_close()


@pytest.fixture(scope="module")
def opened(served: Server) -> S3Store:
    """-> one client for most tests: to make one costs more than what it is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        _quicken(patch)
        return _open(served.url)


@pytest.fixture
def server(served: Server) -> Server:
    """-> the server as if nothing had been asked of it yet."""
    served.connections, served.pace_seconds = 0, 0.0
    for remembered in (served.planned, served.seen, served.stored):
        remembered.clear()
    return served


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    _quicken(monkeypatch)


def _quicken(patch: pytest.MonkeyPatch) -> None:
    for name in ("WAIT_INITIAL_SECONDS", "WAIT_MAX_SECONDS", "WAIT_JITTER_SECONDS"):
        patch.setattr(s3, name, 0.01)
    patch.setattr(s3, "READ_TIMEOUT_SECONDS", 0.3)


@pytest.fixture
def store(server: Server, quick: None, opened: S3Store) -> S3Store:
    return opened


def _open(url: str) -> S3Store:
    return open_store(url, access_key_id="A", secret_access_key="B")


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(503, "SlowDown"),
        Answer(503),
        Answer(500, "InternalError"),
        Answer(429, "TooManyRequests"),
        Answer(400, "RequestTimeout"),
        Answer(cut_at=0),
        Answer(cut_at=1000),
        Answer(reset=True),
        Answer(stall_seconds=0.6),
    ],
    ids=lambda answer: f"{answer.status} {answer.code} {answer.cut_at} {answer.reset}",
)
def test_a_short_trouble_is_waited_out(server: Server, store: ObjectStore, trouble: Answer) -> None:
    server.planned.extend([trouble, trouble])
    assert store.get_range("lake", "a", "e", 100, 5000) == DATA[100:5100]
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("trouble", "says", "throttled"),
    [
        (Answer(503, "SlowDown"), "asks for a lower rate", True),
        (Answer(500, "InternalError"), "500 InternalError: said so", False),
        (Answer(cut_at=1000), "broke", False),
        (Answer(reset=True), "broke", False),
    ],
)
def test_a_longer_one_is_unavailable_and_each_failure_was_told(
    server: Server, quick: None, trouble: Answer, says: str, throttled: bool
) -> None:
    told: list[Unavailable] = []
    store = open_store(server.url, access_key_id="A", secret_access_key="B", on_retry=told.append)
    server.planned.extend([trouble] * 10)
    with pytest.raises(Unavailable, match=says) as error:
        store.get_range("lake", "a", "e", 100, 5000)
    assert error.value.throttled is throttled and "bytes 100-5099 of s3://lake/a" in str(error.value)
    assert len(server.seen) == s3.ATTEMPTS and len(told) >= s3.ATTEMPTS - 1


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (Answer(404, "NoSuchKey"), Missing, "no such object"),
        (Answer(404), Missing, "no such object"),
        (Answer(412, "PreconditionFailed"), Changed, "not the version"),
        (Answer(416, "InvalidRange"), Changed, "not the version"),
        (Answer(404, "NoSuchBucket"), Refused, "create it or mend"),
        (Answer(403, "AccessDenied"), Refused, "grant s3:ListBucket"),
        (Answer(403), Refused, "grant s3:ListBucket"),
        (Answer(403, "InvalidAccessKeyId"), Refused, "access key id is unknown"),
        (Answer(403, "SignatureDoesNotMatch"), Refused, "secret access key is wrong"),
        (Answer(400, "ExpiredToken"), Refused, "renew the credentials"),
        (Answer(403, "RequestTimeTooSkewed"), Refused, "set the clock"),
        (Answer(403, "InvalidObjectState"), Refused, "archived"),
        (Answer(400, "AuthorizationHeaderMalformed"), Refused, "set `region`"),
        (Answer(400, "Whatever"), Refused, "400 Whatever: said so"),
        (Answer(ignore_range=True), Refused, "drops `Range`"),
    ],
    ids=lambda value: f"{value.status} {value.code}" if isinstance(value, Answer) else None,
)
def test_what_only_an_operator_or_nobody_can_mend_is_told_at_once(
    server: Server, store: ObjectStore, answer: Answer, kind: type[Exception], says: str
) -> None:
    server.planned.append(answer)
    with pytest.raises(kind, match=says) as error:
        store.get_range("lake", "a", "e", 100, 5000)
    assert len(server.seen) == 1 and "s3://lake/a" in str(error.value) and "\n" not in str(error.value)


def test_an_object_shorter_than_listed_is_changed(store: ObjectStore) -> None:
    with pytest.raises(Changed, match=f"has only {len(DATA)} bytes"):
        store.get_range("lake", "a", "e", len(DATA) - 10, 11)


@pytest.mark.parametrize("key", ["../up.csv", "p/../q.csv", "./dot", "a//b", "/lead", "a b+c%20.csv"])
def test_keys_travel_as_they_are_also_where_they_look_like_paths(server: Server, store: ObjectStore, key: str) -> None:
    store.get("lake", key)
    assert unquote(server.seen[0][1]) == f"/lake/{key}"


@pytest.mark.parametrize("status", [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")])
def test_a_conflict_when_creating_is_not_written(server: Server, store: ObjectStore, status: tuple[int, str]) -> None:
    server.planned.append(Answer(*status))
    assert store.put_new("lake", "k", b"x") is False


def test_a_create_whose_answer_was_lost_is_not_written_twice(server: Server, store: ObjectStore) -> None:
    server.planned.append(Answer(lose_answer=True))
    assert store.put_new("lake", "k", b"first") is False
    assert server.stored == {"/lake/k": b"first"} and len(server.seen) == 2


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:1", "nothing listens at http://127.0.0.1:1"),
        ("http://no-such-name.invalid", "the name cannot be resolved of http://no-such-name.invalid"),
    ],
)
def test_a_server_that_is_not_there_is_waited_for_by_name(quick: None, url: str, says: str) -> None:
    with pytest.raises(Unavailable, match=says):
        _open(url).check("lake")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"access_key_id": "A"}, "belong together"),
        ({"endpoint_url": "localhost:9000", "access_key_id": "A", "secret_access_key": "B"}, "localhost:9000"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings: dict[str, str], says: str) -> None:
    with pytest.raises(Refused, match=says):
        open_store(**settings)


def test_no_credentials_anywhere_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(Refused, match="no S3 credentials: set AWS_ACCESS_KEY_ID"):
        open_store("http://127.0.0.1:1").check("lake")


@pytest.mark.parametrize(
    ("endpoint", "path_style", "expected"),
    [
        (None, None, "https://lake.s3.amazonaws.com/k"),
        (None, True, "https://s3.amazonaws.com/lake/k"),
        ("http://s3.lan:9000", None, "http://s3.lan:9000/lake/k"),
        ("http://s3.lan:9000", False, "http://lake.s3.lan:9000/k"),
    ],
)
def test_path_style_is_the_default_with_an_endpoint(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, path_style: bool | None, expected: str
) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    store = open_store(endpoint, path_style=path_style, access_key_id="A", secret_access_key="B")
    url = store._client.generate_presigned_url("get_object", Params={"Bucket": "lake", "Key": "k"})
    assert url.split("?")[0] == expected


def test_ranges_read_side_by_side_find_connections_open_and_leave_them_open(server: Server) -> None:
    server.pace_seconds = 0.1
    store = _open(server.url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.warm("lake"), range(8)))
        assert server.connections == 8
        for _ in range(3):
            list(pool.map(lambda n: store.get_range("lake", "a", "e", 64 * n, 64), range(8)))
    assert server.connections == 8


def test_warming_tells_nothing_of_what_is_wrong(server: Server) -> None:
    open_store("http://127.0.0.1:1", access_key_id="A", secret_access_key="B").warm("lake")
    _open(server.url).warm("no bucket name at all?")
