"""Runs on disk: what was written is there after any crash; what does not fit is not believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from services.normalizer.keys import Keys, SortedKeys
from services.normalizer.merging import RunMerge
from services.normalizer.run_folder import MANIFEST, RunFolder, Stamp
from services.normalizer.runs import Unfit
from services.normalizer.slices import EVER, Slice
from services.normalizer.state import FilterPlan, PartitionKeys

STAMP = Stamp("topic", 3, 8)
PLAN = FilterPlan(1000, 0.01)
WEEK = Slice.of(7 * 86_400_000, 1_700_000_000_000)


def _sorted(seed: int, count: int) -> SortedKeys:
    words = np.random.default_rng(seed).integers(0, 2**64, (count, 2), dtype=np.uint64)
    words = words[np.argsort(words[:, 0])]
    return SortedKeys(words[:, 0].copy(), words[:, 1].copy())


def _held(folder: RunFolder) -> set[tuple[int, int]]:
    return {pair for run in folder.runs for piece in run.read() for pair in _pairs(piece)}


def _pairs(keys: Keys | SortedKeys) -> list[tuple[int, int]]:
    return list(zip(keys.high.tolist(), keys.low.tolist(), strict=True))


def _filled(path: Path, runs: int = 3) -> RunFolder:
    folder = RunFolder(path, STAMP)
    for number in range(runs):
        folder.add({WEEK: _sorted(number, 100 + number)}, 50 + number, 70 + number)
    return folder


def test_what_was_added_is_loaded_again(tmp_path: Path) -> None:
    written = _filled(tmp_path)
    loaded = RunFolder.load(tmp_path, STAMP)
    assert loaded is not None
    assert (loaded.complete_to, len(loaded), _held(loaded)) == (52, 303, _held(written))
    assert (loaded.clock_ms, [run.slice for run in loaded.runs]) == (72, [WEEK] * 3)


def test_an_empty_flush_moves_the_stamp_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, STAMP)
    folder.add({}, 7, 0)
    loaded = RunFolder.load(tmp_path, STAMP)
    assert loaded is not None and (loaded.complete_to, loaded.runs) == (7, [])


def test_no_folder_is_no_state(tmp_path: Path) -> None:
    assert RunFolder.load(tmp_path / "none", STAMP) is None


def _cut_manifest(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_bytes(path.read_bytes()[:-20])


def _edit_manifest(folder: Path) -> None:
    path = folder / MANIFEST
    document = orjson.loads(path.read_bytes())
    document["body"]["complete_to"] = 40
    path.write_bytes(orjson.dumps(document))


def _newer_format(folder: Path) -> None:
    path = folder / MANIFEST
    document = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps(document | {"format": 3}))


def _cut_run(folder: Path) -> None:
    path = sorted(folder.glob("run-*"))[1]
    os.truncate(path, path.stat().st_size - 16)


def _flip_bit(folder: Path) -> None:
    path = sorted(folder.glob("run-*"))[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _remove_run(folder: Path) -> None:
    sorted(folder.glob("run-*"))[1].unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut_manifest, "damaged"),
        (_edit_manifest, "checksum"),
        (_newer_format, "format 3"),
        (_cut_run, "cut short"),
        (_flip_bit, "checksum"),
        (_remove_run, "No such file"),
    ],
)
def test_a_damaged_folder_is_not_believed(damage: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    _filled(tmp_path)
    damage(tmp_path)
    with pytest.raises(Unfit, match=says):
        PartitionKeys(RunFolder.load(tmp_path, STAMP) or RunFolder(tmp_path, STAMP), PLAN)


@pytest.mark.parametrize("other", [{"topic_id": "new"}, {"partition": 4}, {"partitions": 16}], ids=str)
def test_a_stamp_of_something_else_is_not_believed(other: dict[str, object], tmp_path: Path) -> None:
    _filled(tmp_path)
    with pytest.raises(Unfit, match="belongs to"):
        RunFolder.load(tmp_path, replace(STAMP, **other))  # type: ignore[arg-type]


def test_opening_an_empty_folder_deletes_what_was_there(tmp_path: Path) -> None:
    _filled(tmp_path)
    RunFolder(tmp_path, STAMP)
    assert list(tmp_path.iterdir()) == []


def test_stray_files_are_removed_and_never_read(tmp_path: Path) -> None:
    written = _filled(tmp_path)
    for name in ("run-00000009.keys", "run-00000010.keys.tmp", "manifest.json.tmp"):
        (tmp_path / name).write_bytes(b"x" * 32)
    loaded = RunFolder.load(tmp_path, STAMP)
    assert loaded is not None and _held(loaded) == _held(written)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("step_keys", [1, 7, 100, 10**6])
def test_a_merge_in_pieces_keeps_all_keys_sorted(step_keys: int, tmp_path: Path) -> None:
    folder = _filled(tmp_path, runs=4)
    before = _held(folder)
    merging = RunMerge(folder, folder.runs[:3])
    while not merging.advance(step_keys):
        assert _held(folder) == before
    assert _held(folder) == before and len(folder.runs) == 2
    merged = folder.runs[-1]
    assert (np.diff(merged.keys.high) >= 0).all()
    assert merged.slice == WEEK
    loaded = RunFolder.load(tmp_path, STAMP)
    assert loaded is not None and _held(loaded) == before and loaded.complete_to == folder.complete_to


def test_a_merge_survives_runs_added_meanwhile(tmp_path: Path) -> None:
    folder = _filled(tmp_path)
    merging = RunMerge(folder, list(folder.runs))
    merging.advance(50)
    folder.add({EVER: _sorted(99, 10)}, 60, 0)
    before = _held(folder)
    while not merging.advance(50):
        pass
    assert _held(folder) == before and folder.complete_to == 60


def test_an_abandoned_merge_leaves_the_sources(tmp_path: Path) -> None:
    folder = _filled(tmp_path)
    before = _held(folder)
    merging = RunMerge(folder, list(folder.runs))
    merging.advance(50)
    merging.abandon()
    loaded = RunFolder.load(tmp_path, STAMP)
    assert loaded is not None and _held(loaded) == before
    assert len(list(tmp_path.iterdir())) == 4


class _Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("action", ["add", "merge"])
def test_a_crash_between_any_two_file_operations_leaves_the_old_state_or_the_new(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    for deadly in range(40):
        path = tmp_path / str(deadly)
        folder = _filled(path)
        old = _held(folder)
        new = old | set(_pairs(_sorted(7, 50))) if action == "add" else old
        with monkeypatch.context() as patch:
            left = [deadly]
            for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "unlink")):
                patch.setattr(owner, name, _deadly(getattr(owner, name), left))
            try:
                if action == "add":
                    folder.add({EVER: _sorted(7, 50)}, 90, 0)
                else:
                    merging = RunMerge(folder, list(folder.runs))
                    while not merging.advance(60):
                        pass
                survived = True
            except _Killed:
                survived = False
        loaded = RunFolder.load(path, STAMP)
        assert loaded is not None
        state = _held(loaded)
        assert state in (old, new)
        if action == "add":
            assert (loaded.complete_to == 90) == (state == new)
            seen.add("new" if state == new else "old")
        if survived:
            assert deadly > 4 and state == new
            break
    else:
        raise AssertionError("never got through")
    assert action == "merge" or seen == {"old", "new"}


def _deadly(operation: Callable[..., object], left: list[int]) -> Callable[..., object]:
    def wrapped(*args: object, **named: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise _Killed
        return operation(*args, **named)

    return wrapped
