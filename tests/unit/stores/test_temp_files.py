"""Temporary files of killed processes: removed by name and age, everything else left alone."""

from __future__ import annotations

import os
from pathlib import Path

from ingestcore.stores.temp import sweep


def test_only_temporary_files_older_than_the_limit_are_removed(tmp_path: Path) -> None:
    now = 1_000_000.0
    ages = {"a/old.tmp": 101, "a/b/older.parquet.tmp": 5_000, "a/young.tmp": 99, "a/old.run": 5_000, ".lock": 5_000}
    for name, age in ages.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (now - age, now - age))
    outside = tmp_path / "a/link.tmp"
    outside.symlink_to("/nonexistent")
    os.utime(outside, (now - 500, now - 500), follow_symlinks=False)
    assert sweep(tmp_path, 100, now) == 3
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"a/young.tmp", "a/old.run", ".lock"}
    assert not outside.is_symlink()


def test_a_folder_that_is_not_there_has_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", 0) == 0
