"""Roles on a real STS: SeaweedFS with roles, which hands out temporary credentials and holds them to the role's policy.

Its version 4.48 reads the form before it hashes the body, so that it refuses every request to STS that does not also
carry the hash as a header, as the SDK's do not. A relay in front of STS adds that header and changes nothing else.
External ids it does not know: what is sent is checked in the unit tests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from devstack.cache import cache_folder
from devstack.ports import PortClaims
from devstack.seaweedfs import SeaweedFS, create_bucket
from devstack.server import Place
from ingestcore.kafka import admin
from ingestcore.kafka.config_topic import publish
from ingestcore.settings import Platform
from ingestcore.stores.objects import Refused
from ingestcore.stores.s3 import S3Store, open_store
from ingestcore.stores.s3_role import Role

pytestmark = pytest.mark.integration

READER = "arn:aws:iam::000000000000:role/reader"
OF_OTHERS = "arn:aws:iam::000000000000:role/of-others"
OURS = "arn:aws:iam::000000000000:user/devstack"
"""What SeaweedFS calls the one user of the dev stack."""


def roles() -> dict[str, object]:
    """-> SeaweedFS's file of roles. Credentials live for 5 minutes, so that the SDK renews them at every request."""

    def trusting(arn: str, who: str) -> dict[str, object]:
        trusts = {"Effect": "Allow", "Principal": {"AWS": who}, "Action": ["sts:AssumeRole"]}
        name = arn.rpartition("/")[2]
        policy = {"Version": "2012-10-17", "Statement": [trusts]}
        return {"roleName": name, "roleArn": arn, "trustPolicy": policy, "attachedPolicies": ["read"]}

    reads = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": ["arn:aws:s3:::lake", "arn:aws:s3:::lake/*"],
    }
    return {
        "sts": {
            "tokenDuration": "5m",
            "maxSessionLength": "1h",
            "issuer": "test",
            "signingKey": base64.b64encode(b"k" * 32).decode(),
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "policies": [{"name": "read", "document": {"Version": "2012-10-17", "Statement": [reads]}}],
        "roles": [trusting(READER, OURS), trusting(OF_OTHERS, OURS.replace("devstack", "somebody"))],
    }


@dataclass
class Servers:
    """s3, key, secret: of the S3 server; sts: where it is reached; asked: forms sent to STS."""

    s3: str
    key: str
    secret: str
    sts: str = ""
    asked: list[dict[str, list[str]]] = field(default_factory=list)

    def store(self, role: Role | None = None) -> S3Store:
        return open_store(self.s3, access_key_id=self.key, secret_access_key=self.secret, role=role)


def _relay(servers: Servers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            servers.asked.append(parse_qs(body.decode()))
            passed = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            passed["X-Amz-Content-Sha256"] = hashlib.sha256(body).hexdigest()
            behind = HTTPConnection(urlsplit(servers.s3).netloc, timeout=10)
            behind.request("POST", self.path, body, passed)
            answer = behind.getresponse()
            text = answer.read()
            behind.close()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """SeaweedFS with roles, a bucket `lake` with one object, and the relay in front of STS."""
    weed, folder = SeaweedFS(), tmp_path_factory.mktemp("weed")
    (folder / "data").mkdir()
    (folder / "roles.json").write_text(json.dumps(roles()))
    with PortClaims(cache_folder()) as claims:
        place = Place(folder, folder / "data", folder / "log", claims.choose(weed.ports, {}))
        weed.prepare(place)
        command = [*weed.command(place), f"-s3.iam.config={folder / 'roles.json'}"]
        with place.log.open("wb") as log:
            process = subprocess.Popen(command, env=weed.environment(os.environ), stdout=log, stderr=log)
        http: ThreadingHTTPServer | None = None
        try:
            deadline = time.monotonic() + 60
            while not weed.ready(place):
                assert process.poll() is None and time.monotonic() < deadline, place.fresh_log()[-2000:]
                time.sleep(0.2)
            endpoint = weed.endpoint(place)
            made = Servers(endpoint["s3"], endpoint["s3_access_key"], endpoint["s3_secret_key"])
            create_bucket(endpoint, "lake")
            made.store().put("lake", "a.csv", b"id\n1\n")
            http = ThreadingHTTPServer(("127.0.0.1", 0), _relay(made))
            threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            made.sts = f"http://127.0.0.1:{http.server_port}"
            yield made
        finally:
            if http is not None:
                http.shutdown()
                http.server_close()
            process.kill()
            process.wait()
            weed.cleanup(place)


@pytest.fixture(autouse=True)
def sts(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", servers.sts)
    servers.asked.clear()


def test_a_role_reads_what_its_policy_allows_and_no_more(servers: Servers) -> None:
    reader = servers.store(Role(READER, session_name="ingest-test"))
    listed = list(reader.list("lake", ""))
    assert [entry.key for entry in listed] == ["a.csv"]
    assert reader.get_range("lake", "a.csv", listed[0].etag, 0, 5) == b"id\n1\n"
    with pytest.raises(Refused, match="may not do this"):
        reader.put("lake", "b.csv", b"x")
    servers.store().put("lake", "b.csv", b"x")
    servers.store().delete("lake", "b.csv")
    assert servers.asked[0]["RoleArn"] == [READER] and servers.asked[0]["RoleSessionName"] == ["ingest-test"]


def test_credentials_about_to_expire_are_renewed_while_the_store_is_used(servers: Servers) -> None:
    reader = servers.store(Role(READER))
    for _ in range(3):
        reader.check("lake")
    assert len(servers.asked) >= 3


def test_a_role_that_does_not_trust_us_is_told(servers: Servers) -> None:
    with pytest.raises(Refused) as caught:
        servers.store(Role(OF_OTHERS)).check("lake")
    assert f"assuming role {OF_OTHERS}: {servers.sts} refuses it (AccessDenied" in str(caught.value)
    assert "trust policy must name these credentials" in str(caught.value)


def test_a_service_whose_role_is_refused_ends_with_that_message(
    servers: Servers, platform: Callable[..., Platform]
) -> None:
    settings = platform(partitions=2)
    admin.create_topics(settings)
    sink = {"uri": "s3://lake/out/", "endpoint_url": servers.s3, "role_arn": OF_OTHERS, "external_id": "ours"}
    keys = {"access_key_id": servers.key, "secret_access_key": "${OTHER_SECRET}"}
    value = json.dumps({"parquet": sink | keys}).encode()
    publish(settings, [SimpleNamespace(key="sink/lake", value=value)])
    environ = {
        **os.environ,
        "INGEST_TOPIC_PREFIX": settings.topic_prefix,
        "INGEST_PARTITIONS": "2",
        "INGEST_STATE_DIR": str(settings.state_dir),
        "OTHER_SECRET": servers.secret,
    }
    command = [sys.executable, "-m", "ingestcore.cli.main", "run", "parquet-sink", "--sink", "lake"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 2 and "Traceback" not in told, told
    assert f"assuming role {OF_OTHERS}" in told and "and this `external_id`" in told
    assert servers.asked[0]["ExternalId"] == ["ours"]
    assert servers.asked[0]["RoleSessionName"] == ["ingest-lake"]
