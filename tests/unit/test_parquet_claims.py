"""The claim log and sets of offsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestcore.stage import Gap, NewerFormat
from ingestcore.stores.objects import Refused, Unavailable
from ingestcore.testing.sink_world import MemoryBucket
from services.parquet_sink.claim import Claim, Layout, encode_ids
from services.parquet_sink.claims import ClaimLog, put_once
from services.parquet_sink.offsets import OffsetOwners, Offsets

LAYOUT = Layout("s3://out/lake/", 1000, "lake", "normalized")
FOLDER = "claims/id/0/"


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


def open_log(bucket: MemoryBucket) -> ClaimLog:
    log = ClaimLog(bucket, "out", FOLDER)
    log.load()
    return log


# -- offsets


@given(st.sets(st.integers(0, 60)))
def test_offsets_are_a_set(wanted: set[int]) -> None:
    offsets = Offsets.of(wanted)
    assert set(offsets) == wanted
    assert len(offsets) == len(wanted)
    assert all((n in offsets) == (n in wanted) for n in range(-1, 62))
    assert Offsets.stored([list(run) for run in offsets.runs]) == offsets


@pytest.mark.parametrize("runs", [[[3, 1]], [[0, 4], [4, 5]], [[5, 6], [0, 1]]])
def test_runs_that_are_not_ascending_are_refused(runs: Any) -> None:
    with pytest.raises(ValueError, match="not ascending runs"):
        Offsets.stored(runs)


@given(st.lists(st.sets(st.integers(0, 30), min_size=1), max_size=8))
def test_every_offset_has_one_owner(claims: list[set[int]]) -> None:
    owners, expected = OffsetOwners(), dict[int, int]()
    for number, wanted in enumerate(claims):
        clash = owners.add(number, Offsets.of(wanted))
        assert (clash is None) == expected.keys().isdisjoint(wanted)
        if clash is None:
            expected |= dict.fromkeys(wanted, number)
        else:
            assert clash in {expected.get(n) for n in wanted}
    assert {n: owners.of(n) for n in range(31)} == {n: expected.get(n) for n in range(31)}


# -- the log


def test_a_claim_is_read_back_as_it_was_put(bucket: MemoryBucket) -> None:
    claim = open_log(bucket).add([4, 5, 9], LAYOUT)
    assert claim == Claim(0, Offsets(((4, 5), (9, 9))), LAYOUT)
    log = open_log(bucket)
    assert log.claims == [claim]
    assert [log.covering(n) for n in (3, 4, 5, 6, 9)] == [None, claim, claim, None, claim]


def test_the_second_of_two_writers_reads_on_and_looks_again(bucket: MemoryBucket) -> None:
    first, second = open_log(bucket), open_log(bucket)
    claim = first.add([1, 2], LAYOUT)
    assert second.add([2, 3], LAYOUT) is None
    assert second.covering(2) == claim
    with pytest.raises(ValueError, match="offset 2 is claimed already"):
        second.add([2, 3], LAYOUT)
    assert second.add([3], LAYOUT) == Claim(1, Offsets(((3, 3),)), LAYOUT)


def test_a_claim_whose_answer_was_lost_is_recognised_as_ones_own(bucket: MemoryBucket) -> None:
    log = open_log(bucket)
    bucket.objects[f"{FOLDER}00000000.json"] = Claim(0, Offsets.of([1, 2]), LAYOUT).encode()
    assert log.add([1, 2], LAYOUT) == log.claims[0]


def test_unfinished_claims_are_those_without_a_mark(bucket: MemoryBucket) -> None:
    log = open_log(bucket)
    claims = [log.add([n], LAYOUT) for n in range(3)]
    assert claims[1] is not None
    log.finish(claims[1], {"rows": 7})
    again = open_log(bucket)
    assert again.unfinished() == [claims[0], claims[2]]
    assert again.facts(claims[1]) == {"rows": 7}


def test_the_first_mark_is_believed(bucket: MemoryBucket) -> None:
    one, other = open_log(bucket), open_log(bucket)
    claim = one.add([1], LAYOUT)
    assert claim is not None
    other.read_on()
    one.finish(claim, {"rows": 1})
    other.finish(claim, {"rows": 2})
    assert open_log(bucket).facts(claim) == {"rows": 1}


def test_hundreds_of_entries_are_read_in_order(bucket: MemoryBucket) -> None:
    log = open_log(bucket)
    claims = [log.add([n], LAYOUT) for n in range(300)]
    assert open_log(bucket).claims == claims


@pytest.mark.parametrize("unfinished", [None, 3, 300])
def test_done_entries_are_packed_and_a_packed_log_is_the_same_log(bucket: MemoryBucket, unfinished: int | None) -> None:
    """A block that is not done altogether is packed by whoever reads the log after it is."""
    log = open_log(bucket)
    for n in range(600):
        claim = log.add([2 * n], LAYOUT)
        assert claim is not None
        if n != unfinished:
            log.finish(claim, {"ids": encode_ids([n.to_bytes(16, "big")])})
    assert len(bucket.keys("packs/")) == (2 if unfinished is None else 1)
    again = open_log(bucket)
    assert (again.claims, again.unfinished()) == (log.claims, [] if unfinished is None else [log.claims[unfinished]])
    for claim in again.unfinished():
        again.finish(claim, {"ids": encode_ids([claim.sequence.to_bytes(16, "big")])})
    packed = open_log(bucket)
    assert packed.claims == log.claims
    assert packed.unfinished() == []
    assert sorted(bucket.keys("packs/")) == [f"{FOLDER}packs/{n:08}.json" for n in range(2)]
    assert packed.add([1], LAYOUT) == Claim(600, Offsets.of([1]), LAYOUT)


def test_a_packed_log_is_read_with_few_requests(bucket: MemoryBucket) -> None:
    log = open_log(bucket)
    for n in range(520):
        claim = log.add([n], LAYOUT)
        assert claim is not None
        log.finish(claim, {"ids": encode_ids([n.to_bytes(16, "big")])})
    assert b"".join(open_log(bucket).ids_of(log.claims)) == b"".join(n.to_bytes(16, "big") for n in range(520))
    requests = list[str]()
    bucket.before = lambda operation, key: requests.append(key)
    again = open_log(bucket)
    assert sorted(b"".join(again.ids_of(again.claims))) == sorted(b"".join(n.to_bytes(16, "big") for n in range(520)))
    assert len(requests) == 2 + 2 + 8 + 1 + 2 + 8, "lists; packs; entries left; the next; ids of packs; marks left"


def put(name: str, data: bytes) -> Callable[[MemoryBucket], None]:
    return lambda bucket: bucket.put("out", FOLDER + name, data)


NEWER = Claim(0, Offsets.of([1]), Layout("s3://out/lake/", 1, "lake", "normalized", format=2)).encode()
CLAIM = Claim(0, Offsets.of([1]), LAYOUT).encode()


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (put("00000002.json", CLAIM), Gap, r"claims/id/0/: entry 00000000\.json is missing"),
        (put("00000000.json", b"{}"), Refused, r"00000000\.json is not a claim"),
        (put("packs/00000000.json", b"[]"), Refused, r"packs/00000000\.json is not a claim .*0 entries"),
        (put("00000000.json", b"\xff"), Refused, r"00000000\.json is not a claim"),
        (put("00000000.json", NEWER), NewerFormat, r"00000000\.json has format 2, this service reads up to 1"),
    ],
    ids=["hole", "not a claim", "short pack", "not JSON", "newer"],
)
def test_a_log_that_cant_be_trusted_stops_the_sink(
    bucket: MemoryBucket, spoil: Callable[[MemoryBucket], None], error: type[Exception], message: str
) -> None:
    spoil(bucket)
    with pytest.raises(error, match=message):
        open_log(bucket)


def test_overlapping_entries_are_a_store_that_cant_put_conditionally(bucket: MemoryBucket) -> None:
    put("00000000.json", CLAIM)(bucket)
    put("00000001.json", CLAIM)(bucket)
    with pytest.raises(Refused, match="entries 0 and 1 claim the same offsets"):
        open_log(bucket)


class Conflicting(MemoryBucket):
    """Answers the first conditional puts with a conflict though nothing is written: the other writer failed too."""

    conflicts = 0

    def put_new(self, bucket: str, key: str, data: Any) -> bool:
        self.conflicts -= 1
        return self.conflicts < 0 and super().put_new(bucket, key, data)


@pytest.mark.parametrize("conflicts", [0, 1, 3])
def test_a_conflict_is_not_taken_for_an_object_that_exists(conflicts: int) -> None:
    store = Conflicting()
    store.conflicts = conflicts
    assert put_once(store, "out", "key", b"data")
    assert not put_once(store, "out", "key", b"other")
    assert store.objects == {"key": b"data"}


def test_endless_conflicts_are_tried_again_later() -> None:
    store = Conflicting()
    store.conflicts = 1000
    with pytest.raises(Unavailable, match="refused as existing and does not exist"):
        put_once(store, "out", "key", b"data")
