"""Object store over S3 and what speaks like it (AWS, SeaweedFS, MinIO, Ceph). The only user of boto3."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeVar

import boto3
import stamina
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from ingestcore.messages.moments import iso_utc
from ingestcore.stores.objects import Changed, Listed, Refused, Unavailable
from ingestcore.stores.s3_errors import TROUBLE, translate
from ingestcore.stores.s3_role import Role, session_as

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

DEFAULT_REGION: Final = "us-east-1"
CONNECT_TIMEOUT_SECONDS: Final = 5.0
READ_TIMEOUT_SECONDS: Final = 20.0
"""Without a single byte. A 64 MiB range may take as long as it likes."""

ATTEMPTS: Final = 5
RETRY_SECONDS: Final = 30.0
WAIT_INITIAL_SECONDS: Final = 0.1
WAIT_MAX_SECONDS: Final = 3.0
WAIT_JITTER_SECONDS: Final = 0.5
"""Short troubles (503 SlowDown, a reset, a short body) are waited out here; longer ones are the runtime's, which pauses
and says so. The SDK's own retries are off: two policies multiply."""


class S3Store:
    """`ObjectStore` over one S3 client. Thread-safe; holds at most `max_connections` connections.

    on_retry  told of every failure that is tried again (for a metric)
    """

    def __init__(self, client: S3Client, where: str, on_retry: Callable[[Unavailable], None] | None = None) -> None:
        self._client = client
        self._where = where
        self._on_retry = on_retry

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[Listed]:
        """Entries in the store's own order, read page by page (1,000 keys each)."""
        query: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
        if start_after:
            query["StartAfter"] = start_after
        while True:
            page = self._try(lambda: self._client.list_objects_v2(**query), f"listing s3://{bucket}/{prefix}")
            for entry in page.get("Contents", ()):
                modified = iso_utc(entry["LastModified"], "auto")
                yield Listed(entry["Key"], entry["ETag"].strip('"'), entry["Size"], modified)
            if not page.get("IsTruncated"):
                return
            query["ContinuationToken"] = page["NextContinuationToken"]

    def get(self, bucket: str, key: str) -> bytes:
        """A whole small object. Raises Missing."""
        return self._try(
            lambda: self._client.get_object(Bucket=bucket, Key=key)["Body"].read(), f"reading s3://{bucket}/{key}"
        )

    def get_range(self, bucket: str, key: str, etag: str, first: int, size: int) -> bytes:
        """Exactly `size` bytes from `first` of that version. Raises Missing, Changed (also when it is shorter)."""
        if size == 0:
            return b""
        doing = f"reading bytes {first}-{first + size - 1} of s3://{bucket}/{key}"
        return self._try(lambda: self._range(bucket, key, etag, first, size, doing), doing)

    def _range(self, bucket: str, key: str, etag: str, first: int, size: int, doing: str) -> bytes:
        answer = self._client.get_object(
            Bucket=bucket, Key=key, IfMatch=f'"{etag}"', Range=f"bytes={first}-{first + size - 1}"
        )
        with answer["Body"]:
            got = answer.get("ContentRange", "")
            if not got and (first, answer["ContentLength"]) != (0, size):
                raise Refused(f"{doing}: {self._where} answers without the range: a proxy in between drops `Range`")
            if answer["ContentLength"] != size:
                raise Changed(f"{doing}: the object has only {got.rpartition('/')[2]} bytes, more were listed")
            # One read of the whole body is the cheapest way (2,400 MB per CPU-second); it checks the length too.
            return answer["Body"].read()

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write or replace."""
        digest = _content_md5(BytesIO(data))
        self._try(
            lambda: self._client.put_object(Bucket=bucket, Key=key, Body=data, ContentMD5=digest),
            f"writing s3://{bucket}/{key}",
        )

    def put_new(self, bucket: str, key: str, data: bytes | Path) -> bool:
        """Write only if the key does not exist. -> written?

        False may also mean that an attempt of this very call was written though its answer was lost.
        """

        with ExitStack() as stack:
            body = BytesIO(data) if isinstance(data, bytes) else stack.enter_context(data.open("rb"))
            digest = _content_md5(body)

            def write() -> None:
                body.seek(0)
                self._client.put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*", ContentMD5=digest)

            try:
                self._try(write, f"writing s3://{bucket}/{key}")
            except Changed:
                return False
        return True

    def delete(self, bucket: str, key: str) -> None:
        """Missing is fine."""
        self._try(lambda: self._client.delete_object(Bucket=bucket, Key=key), f"deleting s3://{bucket}/{key}")

    def check(self, bucket: str) -> None:
        """Raises Refused when the bucket is missing or may not be listed, Unavailable when nothing answers."""
        # Not HeadBucket: its answer has no body, so it cannot say which of the reasons it is.
        self._try(lambda: self._client.list_objects_v2(Bucket=bucket, MaxKeys=1), f"opening bucket {bucket}")

    def warm(self, bucket: str) -> None:
        """One cheap request. Calls side by side open one connection each; used or not, it stays in the pool."""
        with suppress(*TROUBLE, Unavailable, Refused):
            self._client.head_bucket(Bucket=bucket)

    def _try(self, call: Callable[[], T], doing: str) -> T:
        for attempt in stamina.retry_context(
            on=self._passes,
            attempts=ATTEMPTS,
            timeout=RETRY_SECONDS,
            wait_initial=WAIT_INITIAL_SECONDS,
            wait_max=WAIT_MAX_SECONDS,
            wait_jitter=WAIT_JITTER_SECONDS,
        ):
            with attempt:
                try:
                    return call()
                except TROUBLE as error:
                    raise translate(error, doing, self._where) from error
        raise AssertionError("the last attempt returns or raises")

    def _passes(self, error: Exception) -> bool:
        if not isinstance(error, Unavailable):
            return False
        if self._on_retry:
            self._on_retry(error)
        return True


def _content_md5(body: BinaryIO) -> str:
    """-> for the header Content-MD5. A writer that is killed between headers and body leaves an empty object behind on
    a server that takes what has come for the whole (SeaweedFS does); with the digest it is refused."""
    digest = hashlib.md5(usedforsecurity=False)
    while piece := body.read(1 << 20):
        digest.update(piece)
    body.seek(0)
    return base64.b64encode(digest.digest()).decode()


def open_store(
    endpoint_url: str | None = None,
    region: str | None = None,
    path_style: bool | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    role: Role | None = None,
    max_connections: int = 64,
    on_retry: Callable[[Unavailable], None] | None = None,
) -> S3Store:
    """-> a store. Nothing is sent yet: call `check`.

    region      absent: the SDK's (AWS_REGION, profile), else us-east-1
    path_style  absent: yes with an endpoint_url
    credentials absent: the SDK's chain (environment, profile, role)
    role        assumed with those credentials

    Raises Refused: the settings cannot be right.
    """
    if (access_key_id is None) != (secret_access_key is None):
        raise Refused("S3: access_key_id and secret_access_key belong together: give both or neither")
    try:
        session = boto3.Session(
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            region_name=region,
        )
        region = session.region_name or DEFAULT_REGION
        if role is not None:
            session = session_as(role, session, region, _manners())
        client = session.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            config=_manners().merge(
                Config(
                    max_pool_connections=max_connections,
                    # Lengths and ETags are checked here; many S3 servers do not know the newer checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={"addressing_style": _addressing(endpoint_url, path_style)},
                )
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise Refused(f"S3 at {endpoint_url or 'AWS'}: {error}") from error
    return S3Store(client, client.meta.endpoint_url, on_retry)


def _manners() -> Config:
    """How any server of AWS's kind is spoken to."""
    return Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 1},
        # Something on the way may forget a connection that was idle.
        tcp_keepalive=True,
    )


def _addressing(endpoint_url: str | None, path_style: bool | None) -> Literal["path", "virtual", "auto"]:
    if path_style is None:
        return "path" if endpoint_url else "auto"
    return "path" if path_style else "virtual"
