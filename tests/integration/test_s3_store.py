"""The S3 store on a real server: what it says when it is refused, and many ranges at once."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.config import Config

from ingestcore.stores.objects import Refused
from ingestcore.stores.s3 import S3Store, open_store
from ingestcore.testing.object_store_contract import ObjectStoreContract

pytestmark = pytest.mark.integration
BUCKET = f"contract-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def store(endpoints: dict[str, str]) -> Iterator[S3Store]:
    client = boto3.client(
        "s3",
        endpoint_url=endpoints["S3_ENDPOINT_URL"],
        region_name=endpoints.get("AWS_REGION", "us-east-1"),
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=BUCKET)
    made = open_store(endpoints["S3_ENDPOINT_URL"])
    yield made
    for entry in list(made.list(BUCKET, "")):
        made.delete(BUCKET, entry.key)
    client.delete_bucket(Bucket=BUCKET)


class TestS3Store(ObjectStoreContract):
    bucket = BUCKET


@pytest.mark.parametrize(
    ("key_id", "secret", "says"),
    [("AKIANOSUCHKEY", "secret", "access key id is unknown"), (None, "wrong", "secret access key is wrong")],
)
def test_wrong_credentials_are_named(
    endpoints: dict[str, str], store: S3Store, key_id: str | None, secret: str, says: str
) -> None:
    known = endpoints["AWS_ACCESS_KEY_ID"]
    other = open_store(endpoints["S3_ENDPOINT_URL"], access_key_id=key_id or known, secret_access_key=secret)
    with pytest.raises(Refused, match=says):
        other.check(BUCKET)


def test_ranges_fetched_side_by_side_make_the_object(store: S3Store) -> None:
    data, size = random.Random(3).randbytes(20 << 20), 1 << 20
    store.put(BUCKET, "large", data)
    (entry,) = store.list(BUCKET, "large")
    with ThreadPoolExecutor(16) as pool:
        parts = pool.map(
            lambda first: store.get_range(BUCKET, "large", entry.etag, first, size), range(0, len(data), size)
        )
        assert b"".join(parts) == data
