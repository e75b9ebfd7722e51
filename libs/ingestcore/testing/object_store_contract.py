"""What every object store does: written once, run against each implementation."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingestcore.stores.objects import Changed, Missing, ObjectStore, Refused

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


class ObjectStoreContract:
    """Subclass it as `Test...`, with a fixture `store` whose bucket is there and empty."""

    bucket = "contract"

    @pytest.mark.parametrize("key", KEYS)
    def test_keys_come_back_as_they_are(self, store: ObjectStore, key: str) -> None:
        store.put(self.bucket, f"keys/{key}", key.encode())
        (entry,) = [entry for entry in store.list(self.bucket, "keys/") if entry.key == f"keys/{key}"]
        assert entry.size == len(key.encode()) and '"' not in entry.etag and entry.last_modified.endswith("Z")
        assert store.get(self.bucket, entry.key) == key.encode()
        assert store.get_range(self.bucket, entry.key, entry.etag, 1, entry.size - 1) == key.encode()[1:]

    def test_ranges_give_exactly_what_was_asked_for(self, store: ObjectStore) -> None:
        data = random.Random(1).randbytes(3 << 20)
        store.put(self.bucket, "ranges", data)
        (entry,) = store.list(self.bucket, "ranges")
        for first, size in ((0, 1), (0, len(data)), (1 << 20, 1 << 20), (len(data) - 1, 1), (5, 0)):
            assert store.get_range(self.bucket, "ranges", entry.etag, first, size) == data[first : first + size]

    def test_another_version_or_a_shorter_one_is_changed_none_is_missing(self, store: ObjectStore) -> None:
        store.put(self.bucket, "versions", b"old")
        (old,) = store.list(self.bucket, "versions")
        with pytest.raises(Changed):
            store.get_range(self.bucket, "versions", old.etag, 0, 4)
        with pytest.raises(Changed):
            store.get_range(self.bucket, "versions", old.etag, 10, 4)
        store.put(self.bucket, "versions", b"new")
        with pytest.raises(Changed):
            store.get_range(self.bucket, "versions", old.etag, 0, 3)
        store.delete(self.bucket, "versions")
        store.delete(self.bucket, "versions")
        with pytest.raises(Missing):
            store.get(self.bucket, "versions")
        with pytest.raises((Missing, Changed)):
            store.get_range(self.bucket, "versions", old.etag, 0, 3)

    def test_only_one_of_many_creates_a_key(self, store: ObjectStore, tmp_path: Path) -> None:
        file = tmp_path / "data"
        file.write_bytes(b"from a file")
        assert store.put_new(self.bucket, "new/file", file)
        assert not store.put_new(self.bucket, "new/file", b"again")
        assert store.get(self.bucket, "new/file") == b"from a file"
        with ThreadPoolExecutor(8) as pool:
            for turn in range(5):
                written = list(
                    pool.map(lambda n, key=f"new/{turn}": store.put_new(self.bucket, key, b"%d" % n), range(8))
                )
                assert written.count(True) == 1
                assert store.get(self.bucket, f"new/{turn}") == b"%d" % written.index(True)

    def test_listing_goes_over_pages_and_starts_after_a_key(self, store: ObjectStore) -> None:
        keys = [f"pages/{n:05d} +%.csv" for n in range(1_050)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(self.bucket, key, b"x"), keys))
        assert [entry.key for entry in store.list(self.bucket, "pages/")] == keys
        assert [entry.key for entry in store.list(self.bucket, "pages/", start_after=keys[1_000])] == keys[1_001:]
        assert not list(store.list(self.bucket, "no such prefix/"))

    def test_a_missing_bucket_is_refused_in_one_clear_message(self, store: ObjectStore) -> None:
        store.check(self.bucket)
        with pytest.raises(Refused, match="no such bucket"):
            store.check("no-such-bucket-here")
        with pytest.raises(Refused, match="no such bucket"):
            list(store.list("no-such-bucket-here", ""))
