"""Roles: what is asked of STS, how long the credentials serve, and what is said when they are refused.

The server here is a stand-in for STS and S3: it shows what was asked, and refuses on demand. The same on a real STS is
in the integration tests.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

import pytest

from ingestcore.stores import s3
from ingestcore.stores.objects import Refused, Unavailable
from ingestcore.stores.s3 import S3Store, open_store
from ingestcore.stores.s3_role import Role

ARN = "arn:aws:iam::123456789012:role/reader"


@dataclass
class Servers:
    """asked: forms sent to STS; signed: per S3 request the access key id and the session token."""

    url: str = ""
    lifetime_seconds: float = 3600.0
    refusals: deque[tuple[int, str]] = field(default_factory=deque)
    asked: list[dict[str, str]] = field(default_factory=list)
    signed: list[tuple[str, str]] = field(default_factory=list)


def _handler(servers: Servers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            servers.asked.append(form | {"signed_by": self._signer()})
            if servers.refusals:
                status, code = servers.refusals.popleft()
                return self._answer(
                    code
                    and f"<ErrorResponse><Error><Code>{code}</Code><Message>not you</Message></Error></ErrorResponse>",
                    status,
                )
            number = len(servers.asked)
            until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=servers.lifetime_seconds)
            return self._answer(
                '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
                f"<AccessKeyId>TEMPORARY{number}</AccessKeyId><SecretAccessKey>S</SecretAccessKey>"
                f"<SessionToken>token{number}</SessionToken><Expiration>{until:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
                "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
            )

        def do_GET(self) -> None:
            servers.signed.append((self._signer(), self.headers.get("X-Amz-Security-Token", "")))
            self._answer("<ListBucketResult></ListBucketResult>")

        def _signer(self) -> str:
            return self.headers["Authorization"].partition("Credential=")[2].partition("/")[0]

        def _answer(self, text: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    made = Servers()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    made.url = f"http://127.0.0.1:{http.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", made.url)
    for name in ("WAIT_INITIAL_SECONDS", "WAIT_MAX_SECONDS", "WAIT_JITTER_SECONDS"):
        monkeypatch.setattr(s3, name, 0.01)
    yield made
    http.shutdown()
    http.server_close()


def store(servers: Servers, role: Role) -> S3Store:
    return open_store(servers.url, access_key_id="OWN", secret_access_key="B", role=role)


def test_a_role_is_assumed_with_our_credentials_and_read_with_its_own(servers: Servers) -> None:
    reader = store(servers, Role(ARN, external_id="ours/1", session_name="ingest-chunk-downloader"))
    assert servers.asked == []
    reader.check("lake")
    reader.check("lake")
    (asked,) = servers.asked
    assert asked == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": ARN,
        "RoleSessionName": "ingest-chunk-downloader",
        "ExternalId": "ours/1",
        "signed_by": "OWN",
    }
    assert servers.signed == [("TEMPORARY1", "token1")] * 2


def test_without_an_external_id_none_is_sent(servers: Servers) -> None:
    store(servers, Role(ARN)).check("lake")
    assert "ExternalId" not in servers.asked[0]


def test_credentials_are_renewed_before_they_expire(servers: Servers) -> None:
    servers.lifetime_seconds = 30
    reader = store(servers, Role(ARN))
    reader.check("lake")
    servers.lifetime_seconds = 3600
    reader.check("lake")
    reader.check("lake")
    assert [key for key, _ in servers.signed][-2:] == ["TEMPORARY2", "TEMPORARY2"]
    assert len(servers.asked) == 2


def test_threads_that_read_at_once_ask_once(servers: Servers) -> None:
    reader = store(servers, Role(ARN))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reader.check("lake"), range(16)))
    assert len(servers.asked) == 1


@pytest.mark.parametrize(
    ("role", "status", "code", "words"),
    [
        (Role(ARN), 403, "AccessDenied", "must name these credentials; set `external_id` if it asks for one"),
        (Role(ARN, "wrong"), 403, "AccessDenied", "must name these credentials and this `external_id`"),
        (Role(ARN), 403, "InvalidClientTokenId", "check the credentials the role is assumed with"),
        (Role(ARN), 400, "ValidationError", "refuses it (ValidationError: not you)"),
    ],
)
def test_a_refusal_is_told_once_with_advice(servers: Servers, role: Role, status: int, code: str, words: str) -> None:
    servers.refusals.append((status, code))
    with pytest.raises(Refused) as caught:
        store(servers, role).check("lake")
    assert str(caught.value).startswith(f"assuming role {ARN}: {servers.url} refuses it ({code}: not you)")
    assert words in str(caught.value)
    assert len(servers.asked) == 1


def test_a_short_trouble_of_sts_is_waited_out_and_a_long_one_is_told(servers: Servers) -> None:
    servers.refusals += [(503, "ServiceUnavailable"), (429, "Throttling")]
    store(servers, Role(ARN)).check("lake")
    assert len(servers.asked) == 3
    servers.refusals += [(500, "InternalFailure")] * s3.ATTEMPTS
    with pytest.raises(Unavailable, match="answers 500 InternalFailure: waiting for it"):
        store(servers, Role(ARN)).check("lake")


def test_a_proxy_that_answers_instead_is_told(servers: Servers) -> None:
    servers.refusals += [(404, "")] * s3.ATTEMPTS
    with pytest.raises(Unavailable, match="is no answer of such a server: is a proxy in between"):
        store(servers, Role(ARN)).check("lake")


def test_sts_that_is_away_is_waited_for(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"assuming role .*: nothing listens at http://127.0.0.1:1"):
        store(servers, Role(ARN)).check("lake")


def test_a_role_needs_credentials_to_be_assumed_with(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(Refused, match="no S3 credentials"):
        open_store(servers.url, role=Role(ARN)).check("lake")
