"""What every object store does. The stand-in in memory is held to it always, real S3 with the integration tests."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingestcore.stores.objects import Changed, Missing, ObjectStore, Refused
from ingestcore.testing.memory_store import MemoryStore

BUCKET = f"contract-{uuid.uuid4().hex[:12]}"


def _s3(endpoints: dict[str, str]) -> ObjectStore:
    import boto3
    from botocore.config import Config

    from ingestcore.stores.s3 import open_store

    client = boto3.client(
        "s3",
        endpoint_url=endpoints["S3_ENDPOINT_URL"],
        region_name=endpoints.get("AWS_REGION", "us-east-1"),
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=BUCKET)
    return open_store(endpoints["S3_ENDPOINT_URL"])


@pytest.fixture(scope="module", params=["memory", pytest.param("s3", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    made = MemoryStore(BUCKET) if request.param == "memory" else _s3(request.getfixturevalue("endpoints"))
    yield made
    for entry in list(made.list(BUCKET, "")):
        made.delete(BUCKET, entry.key)


KEYS = [
    "plain.csv",
    "a b.csv",
    "a+b.csv",
    "100%25.csv",
    "x%y.csv",
    "ü/é 日本.csv",
    "tab\there",
    "q?x=1&y.csv",
    "#h",
    "a;b,c'\"<>.csv",
    "..hidden/x..csv",
    "~tilde",
    "date=2026-01-01/part=1/f.csv",
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_come_back_as_they_are(store: ObjectStore, key: str) -> None:
    store.put(BUCKET, f"keys/{key}", key.encode())
    (entry,) = [entry for entry in store.list(BUCKET, "keys/") if entry.key == f"keys/{key}"]
    assert entry.size == len(key.encode()) and '"' not in entry.etag and entry.last_modified.endswith("Z")
    assert store.get(BUCKET, entry.key) == key.encode()
    assert store.get_range(BUCKET, entry.key, entry.etag, 1, entry.size - 1) == key.encode()[1:]


def test_ranges_give_exactly_what_was_asked_for(store: ObjectStore) -> None:
    data = random.Random(1).randbytes(3 << 20)
    store.put(BUCKET, "ranges", data)
    (entry,) = store.list(BUCKET, "ranges")
    for first, size in ((0, 1), (0, len(data)), (1 << 20, 1 << 20), (len(data) - 1, 1), (5, 0)):
        assert store.get_range(BUCKET, "ranges", entry.etag, first, size) == data[first : first + size]


def test_another_version_or_a_shorter_one_is_changed_none_is_missing(store: ObjectStore) -> None:
    store.put(BUCKET, "versions", b"old")
    (old,) = store.list(BUCKET, "versions")
    with pytest.raises(Changed):
        store.get_range(BUCKET, "versions", old.etag, 0, 4)
    with pytest.raises(Changed):
        store.get_range(BUCKET, "versions", old.etag, 10, 4)
    store.put(BUCKET, "versions", b"new")
    with pytest.raises(Changed):
        store.get_range(BUCKET, "versions", old.etag, 0, 3)
    store.delete(BUCKET, "versions")
    store.delete(BUCKET, "versions")
    with pytest.raises(Missing):
        store.get(BUCKET, "versions")
    with pytest.raises((Missing, Changed)):
        store.get_range(BUCKET, "versions", old.etag, 0, 3)


def test_only_one_of_many_creates_a_key(store: ObjectStore, tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"from a file")
    assert store.put_new(BUCKET, "new/file", file)
    assert not store.put_new(BUCKET, "new/file", b"again")
    assert store.get(BUCKET, "new/file") == b"from a file"
    with ThreadPoolExecutor(8) as pool:
        for turn in range(5):
            written = list(pool.map(lambda n, key=f"new/{turn}": store.put_new(BUCKET, key, b"%d" % n), range(8)))
            assert written.count(True) == 1
            assert store.get(BUCKET, f"new/{turn}") == b"%d" % written.index(True)


def test_listing_goes_over_pages_and_starts_after_a_key(store: ObjectStore) -> None:
    keys = [f"pages/{n:05d} +%.csv" for n in range(1_050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(BUCKET, key, b"x"), keys))
    assert [entry.key for entry in store.list(BUCKET, "pages/")] == keys
    assert [entry.key for entry in store.list(BUCKET, "pages/", start_after=keys[1_000])] == keys[1_001:]
    assert not list(store.list(BUCKET, "no such prefix/"))


def test_a_missing_bucket_is_refused_in_one_clear_message(store: ObjectStore) -> None:
    store.check(BUCKET)
    with pytest.raises(Refused, match="no such bucket"):
        store.check("no-such-bucket-here")
    with pytest.raises(Refused, match="no such bucket"):
        list(store.list("no-such-bucket-here", ""))
