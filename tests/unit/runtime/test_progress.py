"""What is committed as offset and metadata, and what is read back from it."""

import random

import pytest

from ingestcore.runtime.progress import METADATA_LIMIT_BYTES, Progress
from ingestcore.stage import At

PLACE = ("t", 0)


def at(offset: int) -> At:
    return At("t", 0, offset)


def fresh(offset: int = 0, metadata: str = "") -> Progress:
    progress = Progress()
    progress.assign(PLACE, offset, metadata)
    return progress


def restarted(progress: Progress, store: tuple[int, str]) -> tuple[Progress, tuple[int, str]]:
    store = progress.commit().get(PLACE, store)
    return fresh(*store), store


def test_the_committed_offset_is_the_first_input_not_done() -> None:
    progress = fresh()
    for offset in (0, 1, 2):
        assert progress.admit(at(offset), b"k")
    progress.note(at(0), 5, None)
    assert progress.commit() == {PLACE: (1, "")}


def test_inputs_done_above_an_open_one_are_skipped_after_a_restart() -> None:
    progress = fresh()
    for offset in range(5):
        progress.admit(at(offset), b"k")
    for offset in (1, 2, 4):
        progress.note(at(offset), 1, None)
    progress, _ = restarted(progress, (0, ""))
    assert [progress.admit(at(o), b"k") is None for o in range(5)] == [False, True, True, False, True]


@pytest.mark.parametrize(
    ("offset", "key", "token"),
    [(3, b"a", "tok"), (3, b"another object", None), (2, b"a", None)],
    ids=["its own record", "another key at the same offset", "the same key at another offset"],
)
def test_a_token_is_used_for_its_own_offset_and_key_only(offset: int, key: bytes, token: str | None) -> None:
    progress = fresh(3)
    progress.admit(at(3), b"a")
    progress.note(at(3), 10, "tok")
    ((low, metadata),) = progress.commit().values()
    again = fresh(min(low, offset), metadata)
    mark = again.admit(at(offset), key)
    assert mark and mark.token == token
    assert again.note(at(offset), 5, None) == (15 if token else 5)


def test_a_pass_keeps_its_id_while_it_is_resumed_and_gets_a_new_one_when_started_anew() -> None:
    progress = fresh()
    first = progress.admit(at(0), b"a")
    assert first
    progress.note(at(0), 1, "tok")
    resumed, store = restarted(progress, (0, ""))
    assert (mark := resumed.admit(at(0), b"a")) and mark.pass_id == first.pass_id
    anew = fresh(store[0], "")
    assert (mark := anew.admit(at(0), b"a")) and mark.pass_id != first.pass_id


def test_tokens_of_inputs_not_yet_read_again_survive_the_next_commit() -> None:
    progress = fresh()
    for offset, key in ((0, b"a"), (1, b"b")):
        progress.admit(at(offset), key)
        progress.note(at(offset), 1, f"tok{offset}")
    progress, store = restarted(progress, (0, ""))
    progress.admit(at(0), b"a")
    progress.note(at(0), 1, None)
    progress, store = restarted(progress, store)
    assert (mark := progress.admit(at(1), b"b")) and mark.token == "tok1"


def test_metadata_of_an_operator_is_ignored() -> None:
    assert fresh(7, "moved by hand").commit() in ({}, {PLACE: (7, "")})


def test_ranges_are_not_broken_by_offsets_that_hold_no_record() -> None:
    progress = fresh()
    progress.admit(at(0), b"open")
    for offset in range(1, 4000, 2):
        progress.admit(at(offset), b"k")
        progress.note(at(offset), 1, None)
    ((_, metadata),) = progress.commit().values()
    assert len(metadata) < 60


def test_admission_stops_before_the_metadata_outgrows_its_limit() -> None:
    progress = fresh()
    offset = running = 0
    while progress.has_room(PLACE, running):
        progress.admit(at(offset), b"k")
        progress.note(at(offset), 1, "t" * 400)
        offset, running = offset + 1, running + 1
    assert running >= 5
    ((_, metadata),) = progress.commit().values()
    assert len(metadata) <= METADATA_LIMIT_BYTES


def test_scattered_inputs_stop_admission_and_a_dense_run_does_not() -> None:
    scattered = fresh()
    admitted = 0
    while scattered.has_room(PLACE, 0) and admitted < 5000:
        scattered.admit(at(admitted), b"k")
        if admitted % 2:
            scattered.note(at(admitted), 1, None)
        admitted += 1
    assert admitted < 1000
    scattered.commit()
    dense = fresh()
    dense.admit(at(0), b"k")
    for offset in range(1, 5000):
        assert dense.has_room(PLACE, 0)
        dense.admit(at(offset), b"k")
        dense.note(at(offset), 1, None)


@pytest.mark.parametrize("seed", range(200))
def test_every_input_is_settled_exactly_once_whatever_the_order_of_finishes_and_restarts(seed: int) -> None:
    rng = random.Random(seed)
    offsets = sorted(rng.sample(range(120), 60))
    store: tuple[int, str] = (0, "")
    settled: list[int] = []
    while True:
        progress, pending, finished = fresh(*store), [], []
        todo = [o for o in offsets if o >= store[0]]
        open_: list[int] = []
        crashed = False
        while todo or open_:
            if todo and (len(open_) < 6 or not open_):
                offset = todo.pop(0)
                if progress.admit(at(offset), b"%d" % offset) is not None:
                    open_.append(offset)
            if open_ and rng.random() < 0.7:
                offset = open_.pop(rng.randrange(len(open_)))
                progress.note(at(offset), 1, None)
                pending.append(offset)
            if rng.random() < 0.15:
                store = progress.commit().get(PLACE, store)
                finished += pending
                pending = []
            if rng.random() < 0.02:
                crashed = True
                break
        if not crashed:
            store = progress.commit().get(PLACE, store)
            finished += pending
        settled += finished
        if not crashed:
            break
    assert sorted(settled) == offsets


def test_markers_behind_the_last_record_are_passed_only_when_nothing_is_open() -> None:
    progress = fresh()
    progress.admit(at(0), b"k")
    assert not progress.pass_markers(PLACE, 2)
    progress.note(at(0), 1, None)
    assert progress.pass_markers(PLACE, 2)
    assert progress.commit() == {PLACE: (2, "")}
