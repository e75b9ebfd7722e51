"""Redis and S3 with TLS, passwords and permissions. The servers are real; their TLS is a tunnel's, since the Redis of
the wheels is built without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

import devstack
from devstack import seaweedfs
from ingestcore.stores.leases import RedisLeases
from ingestcore.stores.objects import Refused
from ingestcore.stores.s3 import open_store
from ingestcore.testing.tls import HOST, Authority, Tunnel

pytestmark = pytest.mark.integration

USER, PASSWORD = "lister", "p@ss/word"
QUOTED = "p%40ss%2Fword"
RIGHTS = ("~checkpoint:*", "~lease:*", "~fence:*", "+get", "+set", "+del", "+incr", "+pexpire", "+type", "+eval")
"""What docs/security.md grants, beside a connection's own `+@connection`."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """-> the operator's client of a Valkey of its own."""
    environ = {name: os.environ.pop(name) for name in ("REDIS_URL",) if name in os.environ}
    try:
        with devstack.start(tmp_path_factory.mktemp("redis"), servers=("redis",)) as stack:
            client = redis.Redis.from_url(stack.endpoints.redis)
            client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "+@connection", *RIGHTS)
            yield client
    finally:
        os.environ.update(environ)


@pytest.fixture
def port(server: redis.Redis) -> int:
    return int(server.connection_pool.connection_kwargs["port"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def works(leases: RedisLeases) -> None:
    grant = leases.acquire("t:s", "me", 10, 0)
    assert leases.renew(grant, 10)
    assert leases.replace(grant, leases.read("t:s"), '{"version": 1}', 10) == "done"
    leases.release(grant)


def test_user_and_password_with_the_documented_rights(port: int) -> None:
    works(RedisLeases(f"redis://{USER}:{QUOTED}@{HOST}:{port}/0"))


def test_tls_with_a_private_authority_and_a_client_certificate(port: int, authority: Authority) -> None:
    client = authority.issue("client")
    with Tunnel(port, authority.issue("redis"), clients=authority.file) as tunnel:
        options = f"ssl_ca_certs={authority.file}&ssl_certfile={client}&ssl_keyfile={client}"
        works(RedisLeases(f"rediss://{USER}:{QUOTED}@{HOST}:{tunnel.port}/0?{options}"))


def refusal(url: str) -> str:
    with pytest.raises(Refused) as caught:
        RedisLeases(url).check()
    assert PASSWORD not in str(caught.value) and QUOTED not in str(caught.value)
    return str(caught.value)


def test_a_wrong_password_is_refused_in_words(port: int) -> None:
    assert "mend the user or password in REDIS_URL" in refusal(f"redis://{USER}:wrong@{HOST}:{port}/0")


def test_a_missing_right_is_refused_in_words(server: redis.Redis, port: int) -> None:
    server.execute_command("ACL", "SETUSER", "idle", "on", ">idle", "+@connection")
    assert "docs/security.md" in refusal(f"redis://idle:idle@{HOST}:{port}/0")


def test_an_unknown_authority_and_an_expired_certificate_are_refused_in_words(port: int, authority: Authority) -> None:
    with Tunnel(port, authority.issue("redis")) as tunnel:
        said = refusal(f"rediss://{USER}:{QUOTED}@{HOST}:{tunnel.port}/0")
        assert "certificate verify failed" in said and "ssl_ca_certs" in said
    with Tunnel(port, authority.issue("old", expired=True)) as tunnel:
        said = refusal(f"rediss://{USER}:{QUOTED}@{HOST}:{tunnel.port}/0?ssl_ca_certs={authority.file}")
        assert "certificate has expired" in said


@pytest.mark.parametrize(
    "url",
    [f"redis://{USER}:{PASSWORD}@{HOST}:1/0", f"kafka://{USER}:{PASSWORD}@{HOST}", f"rediss://{HOST}:1/0?ssl_ca=x"],
    ids=["password not quoted", "other scheme", "unknown option"],
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Refused, match="REDIS_URL is no address of Redis") as caught:
        RedisLeases(url).check()
    assert "p@ss" not in str(caught.value) and "s/word" not in str(caught.value)


def test_a_password_changed_meanwhile_is_waited_for(server: redis.Redis, port: int) -> None:
    """The client goes on by itself once the old password is good again."""
    leases = RedisLeases(f"redis://{USER}:{QUOTED}@{HOST}:{port}/0")
    works(leases)
    server.execute_command("ACL", "SETUSER", USER, "resetpass", ">another")
    server.execute_command("CLIENT", "KILL", "USER", USER)
    refusals = []
    for _ in range(3):
        try:
            leases.check()
        except Exception as error:
            refusals.append(error)
    assert any(isinstance(error, Refused) for error in refusals), refusals
    server.execute_command("ACL", "SETUSER", USER, "resetpass", f">{PASSWORD}")
    works(leases)


# -- S3
@pytest.fixture
def https(endpoints: dict[str, str], authority: Authority) -> Iterator[str]:
    """-> an https address of the session's S3."""
    plain = urlsplit(endpoints["S3_ENDPOINT_URL"]).port
    assert plain is not None
    with Tunnel(plain, authority.issue("s3")) as tunnel:
        yield f"https://{HOST}:{tunnel.port}"


@pytest.fixture
def bucket(endpoints: dict[str, str]) -> str:
    reached = {"s3": endpoints["S3_ENDPOINT_URL"], "s3_region": endpoints["AWS_REGION"]}
    keys = {"s3_access_key": endpoints["AWS_ACCESS_KEY_ID"], "s3_secret_key": endpoints["AWS_SECRET_ACCESS_KEY"]}
    seaweedfs.create_bucket({**reached, **keys}, "secured")
    return "secured"


def test_s3_over_tls_with_a_private_authority(
    https: str, bucket: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match="check its certificate and AWS_CA_BUNDLE"):
        open_store(https).check(bucket)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
    store = open_store(https)
    store.check(bucket)
    store.put(bucket, "a/b", b"x" * 100_000)
    assert store.get(bucket, "a/b") == b"x" * 100_000


@pytest.mark.parametrize(
    ("keys", "words"),
    [(("nobody", "x" * 40), "unknown"), ((None, "wrong-secret-value"), "secret access key is wrong")],
    ids=["unknown key", "wrong secret"],
)
def test_wrong_s3_credentials_are_refused_in_words(
    endpoints: dict[str, str], bucket: str, keys: tuple[str | None, str], words: str
) -> None:
    key, secret = keys
    store = open_store(
        endpoints["S3_ENDPOINT_URL"],
        access_key_id=key or endpoints["AWS_ACCESS_KEY_ID"],
        secret_access_key=secret,
    )
    with pytest.raises(Refused, match=words) as caught:
        store.check(bucket)
    assert secret not in str(caught.value)
