"""The claim log and sets of offsets."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestcore.stage import Gap, NewerFormat
from ingestcore.stores.objects import Refused, Unavailable
from ingestcore.testing.sink_world import MemoryBucket
from services.parquet_sink.claim import Claim, Layout, encode_ids
from services.parquet_sink.claims import CHECKPOINT_ENTRIES, ClaimLog, put_once
from services.parquet_sink.offsets import ManyOffsets, OffsetOwners, Offsets

LAYOUT = Layout("s3://out/lake/", 1000, "lake", "normalized")
FOLDER = "claims/id/0/"


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


def open_log(bucket: MemoryBucket) -> ClaimLog:
    log = ClaimLog(bucket, "out", "", "id/0")
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
    assert again.facts(1) == {"rows": 7}


def test_the_first_mark_is_believed(bucket: MemoryBucket) -> None:
    one, other = open_log(bucket), open_log(bucket)
    claim = one.add([1], LAYOUT)
    assert claim is not None
    other.read_on()
    one.finish(claim, {"rows": 1})
    other.finish(claim, {"rows": 2})
    assert open_log(bucket).facts(claim.sequence) == {"rows": 1}


def test_hundreds_of_entries_are_read_in_order(bucket: MemoryBucket) -> None:
    log = open_log(bucket)
    claims = [log.add([n], LAYOUT) for n in range(300)]
    assert open_log(bucket).claims == claims


# -- checkpoints

MANY = 3 * CHECKPOINT_ENTRIES + 40


def filled(bucket: MemoryBucket, count: int, unfinished: int | None = None, *, letters: bool = False) -> ClaimLog:
    """Entry n claims offsets 4n and 4n+1; as letters the second repeats the first."""
    log = open_log(bucket)
    layout = replace(LAYOUT, source="dlq") if letters else LAYOUT
    for n in range(count):
        claim = log.add([4 * n, 4 * n + 1], layout)
        assert claim is not None
        if n != unfinished:
            log.finish(claim, facts_of(n))
    return log


def facts_of(n: int) -> dict[str, Any]:
    return {"ids": encode_ids([n.to_bytes(16, "big")]), "repeats": [[4 * n + 1, 4 * n + 1]]}


def owned(log: ClaimLog, count: int) -> list[bool]:
    """-> is each offset claimed, of the entries and a little more?"""
    return [o in log.known_at(o).covered or log.covering(o) is not None for o in range(4 * count + 4)]


@pytest.mark.parametrize("unfinished", [None, 3, 150])
def test_a_log_with_checkpoints_is_the_same_log(bucket: MemoryBucket, unfinished: int | None) -> None:
    """Entries are summed up as far as all are done, by whoever reads or finishes the log."""
    log = filled(bucket, MANY, unfinished)
    done = MANY if unfinished is None else unfinished
    assert log.checkpoint.entries == done // CHECKPOINT_ENTRIES * CHECKPOINT_ENTRIES
    again = open_log(bucket)
    assert owned(again, MANY) == owned(log, MANY) == [o % 4 < 2 and o < 4 * MANY for o in range(4 * MANY + 4)]
    assert [claim.sequence for claim in again.unfinished()] == ([] if unfinished is None else [unfinished])
    for claim in again.unfinished():
        again.finish(claim, facts_of(claim.sequence))
    assert again.checkpoint.entries > MANY - CHECKPOINT_ENTRIES
    assert again.add([2], LAYOUT) == Claim(MANY, Offsets.of([2]), LAYOUT)
    assert len(bucket.keys(".done")) == MANY and len(bucket.keys(FOLDER)) == 2 * MANY + 1, "entries and marks stay"


def test_offsets_below_a_checkpoint_cant_be_claimed_again(bucket: MemoryBucket) -> None:
    log = filled(bucket, CHECKPOINT_ENTRIES)
    assert log.claims == []
    with pytest.raises(ValueError, match="offset 5 is claimed already"):
        log.add([5, 6], LAYOUT)


def test_a_writer_frozen_before_many_checkpoints_still_meets_the_entry_it_did_not_know(bucket: MemoryBucket) -> None:
    frozen = open_log(bucket)
    filled(bucket, MANY)
    assert frozen.add([5], LAYOUT) is None
    assert owned(frozen, MANY) == owned(open_log(bucket), MANY)


def test_letters_are_known_by_id_and_repeats_by_offset_below_a_checkpoint(bucket: MemoryBucket) -> None:
    filled(bucket, MANY, letters=True)
    log = open_log(bucket)
    assert log.checkpoint.entries == 3 * CHECKPOINT_ENTRIES
    assert b"".join(log.ids_since(0)) == b"".join(n.to_bytes(16, "big") for n in range(MANY))
    assert b"".join(log.ids_since(100)) == b"".join(n.to_bytes(16, "big") for n in range(100, MANY))
    repeats = [o for o in range(4 * log.checkpoint.entries) if o in log.checkpoint.repeats]
    assert repeats == [4 * n + 1 for n in range(log.checkpoint.entries)]


def test_what_has_left_the_topic_is_left_out_of_the_next_checkpoint(bucket: MemoryBucket) -> None:
    filled(bucket, CHECKPOINT_ENTRIES)
    log = ClaimLog(bucket, "out", "", "id/0", lambda: 400)
    log.load()
    for n in range(CHECKPOINT_ENTRIES, 2 * CHECKPOINT_ENTRIES):
        claim = log.add([4 * n, 4 * n + 1], LAYOUT)
        assert claim is not None
        log.finish(claim, {})
    kept = open_log(bucket).checkpoint
    assert (kept.entries, kept.floor, len(kept.covered)) == (2 * CHECKPOINT_ENTRIES, 400, 4 * CHECKPOINT_ENTRIES - 200)


def test_a_log_that_went_back_behind_its_floor_is_read_whole(bucket: MemoryBucket) -> None:
    """The broker's disk came from a backup: entries are the truth, a checkpoint only sums them up."""
    first = ClaimLog(bucket, "out", "", "id/0", lambda: 10**9)
    first.load()
    for n in range(CHECKPOINT_ENTRIES):
        claim = first.add([4 * n, 4 * n + 1], LAYOUT)
        assert claim is not None
        first.finish(claim, {})
    assert len(first.checkpoint.covered) == 0
    log = open_log(bucket)
    assert log.known_at(5).floor == 0
    assert owned(log, CHECKPOINT_ENTRIES) == [o % 4 < 2 for o in range(4 * CHECKPOINT_ENTRIES)] + [False] * 4


def test_without_its_checkpoints_a_log_is_read_from_its_entries_and_summed_up_again(bucket: MemoryBucket) -> None:
    log = filled(bucket, MANY)
    for key in bucket.keys("checkpoints/"):
        bucket.delete("out", key)
    again = open_log(bucket)
    assert owned(again, MANY) == owned(log, MANY)
    assert again.checkpoint.entries == MANY and len(bucket.keys("checkpoints/")) == 1


@pytest.mark.parametrize("letters", [False, True], ids=["rows", "letters"])
def test_a_log_of_ten_thousand_entries_is_read_with_few_requests(bucket: MemoryBucket, letters: bool) -> None:
    count = 10_000
    layout = replace(LAYOUT, source="dlq") if letters else LAYOUT
    for n in range(count):
        bucket.objects[f"{FOLDER}{n:08}.json"] = Claim(n, Offsets.of([4 * n, 4 * n + 1]), layout).encode()
        bucket.objects[f"{FOLDER}{n:08}.done"] = orjson.dumps(facts_of(n))
    requests = list[str]()
    bucket.before = lambda operation, key: requests.append(f"{operation} {key}")
    log = open_log(bucket)
    assert sum(map(len, log.ids_since(0))) == (count * 16 if letters else 0)
    assert len(requests) > count, "the first to read it reads it all"
    for n in range(count, count + CHECKPOINT_ENTRIES - 1):
        claim = log.add([4 * n], layout)
        assert claim is not None
        log.finish(claim, facts_of(n))
    requests.clear()
    again = open_log(bucket)
    tail = CHECKPOINT_ENTRIES - 1
    if letters:
        assert sum(map(len, again.ids_since(0))) == (count + tail) * 16
    assert len(requests) == 2 + 1 + tail + 1 + letters * tail, "lists; checkpoint; entries left; the next; marks left"


@given(st.lists(st.sets(st.integers(0, 60), min_size=1), max_size=8), st.integers(0, 62))
def test_many_offsets_are_the_set_that_few_are(parts: list[set[int]], floor: int) -> None:
    seen, disjoint = set[int](), list[set[int]]()
    for part in parts:
        disjoint.append(part - seen)
        seen |= part
    many = ManyOffsets.none()
    for part in disjoint:
        assert many.overlap(Offsets.of(part)) is False
        many = many.plus([Offsets.of(part)])
    together = ManyOffsets.none().plus(map(Offsets.of, disjoint))
    stored = ManyOffsets.decode(many.encode())
    for one in (many, together, stored):
        assert [n in one for n in range(-1, 63)] == [n in seen for n in range(-1, 63)]
        assert len(one) == len(seen) and all(one.overlap(Offsets.of([n])) for n in seen)
        assert (one.firsts[1:] > one.lasts[:-1] + 1).all()
        kept = one.since(floor)
        assert all((n in kept) == (n in seen) for n in range(floor, 63))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "incomplete"),
        (b"x", "incomplete"),
        (zlib.compress(b"12345678"), "not ascending"),
        (zlib.compress(b"\xff" * 16), "not ascending"),
    ],
)
def test_what_many_offsets_are_not_made_of_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ManyOffsets.decode(data)


# -- what can't be trusted


def put(name: str, data: bytes) -> Callable[[MemoryBucket], None]:
    return lambda bucket: bucket.put("out", name if "/" in name else FOLDER + name, data)


NEWER = Claim(0, Offsets.of([1]), Layout("s3://out/lake/", 1, "lake", "normalized", format=2)).encode()
CLAIM = Claim(0, Offsets.of([1]), LAYOUT).encode()


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (put("00000002.json", CLAIM), Gap, r"claims/id/0/: entry 00000000\.json is missing"),
        (put("00000000.json", b"{}"), Refused, r"00000000\.json is not a claim"),
        (put("checkpoints/id/0/99999935.json", b"{}"), Refused, r"99999935\.json is not a checkpoint .*delete it"),
        (put("checkpoints/id/0/99999935.json", b'{"format": 2}'), NewerFormat, r"99999935\.json has format 2.*upgrade"),
        (put("00000000.json", b"\xff"), Refused, r"00000000\.json is not a claim"),
        (put("00000000.json", NEWER), NewerFormat, r"00000000\.json has format 2, this service reads up to 1"),
    ],
    ids=["hole", "not a claim", "not a checkpoint", "newer checkpoint", "not JSON", "newer"],
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
    with pytest.raises(Refused, match="entry 0 and entry 1 claim the same offsets"):
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
