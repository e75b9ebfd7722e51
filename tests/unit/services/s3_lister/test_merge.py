"""The merge of a listing with the snapshot before it, against a dictionary that knows the answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestcore.datasets.spec import SinkSpec, SourceSpec
from ingestcore.stores.objects import Listed
from ingestcore.stores.sorted_files import SortedFiles
from services.s3_lister.snapshot import Chunk, Part, Rewrite, write_out
from services.s3_lister.stage import (
    Change,
    OrderBroken,
    Seen,
    Verdict,
    is_folder_marker,
    merge,
    own_output,
    router,
)

KEYS = st.text(st.sampled_from("ab/-é\U0001f600 +%\t\n"), min_size=1, max_size=4)
ETAGS = st.sampled_from(["e1", "e2", "e3"])
DATASETS = st.sampled_from(["birds", "zips"])


def listed(key: str, etag: str = "e1", size: int = 1) -> Listed:
    return Listed(key, etag, size, "2025-01-01T00:00:00Z")


Told = dict[str, tuple[Verdict, Seen | None]]


def key_of(change: Change) -> str:
    known = change.listed or change.before
    assert known is not None
    return known.key


def expected(listing: dict[str, str], seen: dict[str, Seen], routes: dict[str, str], start_after: str) -> Told:
    """key -> (verdict, next entry of the snapshot), from the definition of each verdict."""
    told: Told = {}
    for key in listing.keys() | seen.keys():
        before, etag, dataset = seen.get(key), listing.get(key), routes.get(key)
        if key <= start_after:
            if before:
                told[key] = (Verdict.NOT_LISTED, before)
        elif etag is None:
            assert before is not None
            told[key] = (
                (Verdict.GONE, None) if before.missing else (Verdict.MISSING, Seen(key, before.etag, before.dataset, 1))
            )
        elif dataset is None:
            told[key] = (Verdict.UNMATCHED, before and Seen(key, before.etag, before.dataset))
        elif before is None:
            told[key] = (Verdict.NEW, Seen(key, etag, dataset))
        elif (before.etag, before.dataset) == (etag, dataset):
            told[key] = (Verdict.SAME, Seen(key, etag, dataset))
        else:
            told[key] = (Verdict.CHANGED, Seen(key, etag, dataset))
    return told


worlds = st.fixed_dictionaries(
    {
        "listing": st.dictionaries(KEYS, ETAGS, max_size=12),
        "seen": st.dictionaries(KEYS, st.tuples(ETAGS, DATASETS, st.sampled_from([0, 1])), max_size=12),
        "routes": st.dictionaries(KEYS, DATASETS, max_size=12),
        "start_after": st.one_of(st.just(""), KEYS),
    }
)


@given(world=worlds)
def test_every_key_of_either_side_gets_the_verdict_its_definition_says(world: dict[str, Any]) -> None:
    seen = {key: Seen(key, *rest) for key, rest in world["seen"].items()}
    start = world["start_after"]
    listing = [listed(key, etag) for key, etag in sorted(world["listing"].items()) if key > start]
    changes = list(merge(listing, [seen[key] for key in sorted(seen)], world["routes"].get, start))
    keys = [key_of(change) for change in changes]
    assert keys == sorted(set(keys))
    told = {key: (change.verdict, change.after) for key, change in zip(keys, changes, strict=True)}
    assert told == expected(world["listing"], seen, world["routes"], start)


@given(world=worlds, cuts=st.sets(st.integers(0, 12)), part_entries=st.integers(1, 4), data=st.data())
def test_the_next_snapshot_holds_exactly_what_the_merge_said_at_every_point(
    world: dict[str, Any], cuts: set[int], part_entries: int, data: st.DataObject
) -> None:
    files: dict[str, list[Seen]] = {}

    def write(entries: Sequence[Seen]) -> Part:
        files[f"part-{len(files)}"] = list(entries)
        return Part(f"part-{len(files) - 1}", entries[-1].key, len(entries))

    def contents(parts: tuple[Part, ...]) -> list[Seen]:
        return [entry for part in parts for entry in files[part.uri] if entry.key > part.after]

    seen = [Seen(key, *rest) for key, rest in sorted(world["seen"].items())]
    edges = sorted({0, len(seen)} | {cut for cut in cuts if cut < len(seen)})
    old = tuple(write(seen[a:b]) for a, b in pairwise(edges) if a < b)
    start = world["start_after"]
    listing = [listed(key, etag) for key, etag in sorted(world["listing"].items()) if key > start]
    rewrite = Rewrite(old, start, part_entries)
    skipped = [entry for entry in contents(old) if entry not in contents(rewrite.to_read)]
    assert all(entry.key <= start for entry in skipped)
    after: list[Seen] = list(skipped)
    for change in merge(listing, contents(rewrite.to_read), world["routes"].get, start):
        key = key_of(change)
        rewrite.take(key, change)
        if change.after:
            after.append(change.after)
        if data.draw(st.booleans()):
            rewrite.spill(write)
        if data.draw(st.booleans()):
            half_way = write_out(rewrite.draft(key), write)
            assert contents(half_way) == after + [entry for entry in seen if entry.key > key]
    parts = write_out(rewrite.finished(), write)
    assert contents(parts) == after
    if after == seen:
        assert parts == old
    assert all(len(files[p.uri]) > 0 for p in parts)
    assert [p.last for p in parts] == [files[p.uri][-1].key for p in parts]


def test_one_key_more_in_a_full_bucket_rewrites_one_part_only() -> None:
    old = tuple(Part(f"part-{n}", f"{n}9", 10) for n in range(8))
    files = {part.uri: [Seen(f"{n}{i}", "e", "d") for i in range(10)] for n, part in enumerate(old)}
    snapshot = [entry for part in old for entry in files[part.uri]]
    rewrite = Rewrite(old, "", 10)
    for change in merge(
        [listed(k, "e") for k in sorted({*(s.key for s in snapshot), "35x"})], snapshot, lambda key: "d"
    ):
        rewrite.take(key_of(change), change)
    parts = rewrite.finished()
    assert [part for part in parts if isinstance(part, Part)] == [p for p in old if p.uri != "part-3"]
    assert sum(isinstance(part, Chunk) for part in parts) == 1


def test_keys_that_come_at_the_end_fill_the_last_part_before_a_new_one_is_begun() -> None:
    snapshot: list[Seen] = []
    parts: tuple[Part, ...] = ()
    files: dict[str, list[Seen]] = {}

    def write(entries: Sequence[Seen]) -> Part:
        files[f"part-{len(files)}"] = list(entries)
        return Part(f"part-{len(files) - 1}", entries[-1].key, len(entries))

    for number in range(100):
        rewrite = Rewrite(parts, "", 10)
        listing = [*(listed(entry.key, entry.etag) for entry in snapshot), listed(f"{number:03}")]
        for change in merge(listing, snapshot, lambda key: "d"):
            rewrite.take(key_of(change), change)
        parts = write_out(rewrite.finished(), write)
        snapshot = [entry for part in parts for entry in files[part.uri]]
    assert [entry.key for entry in snapshot] == [f"{number:03}" for number in range(100)]
    assert all(10 <= part.entries <= 20 for part in parts)


@pytest.mark.parametrize("keys", [["a/x", "a-b"], ["b", "a"], ["a", "b", "a"], ["\U0001f600", "é"]])
def test_a_listing_out_of_byte_order_is_noticed_at_the_key_that_breaks_it(keys: list[str]) -> None:
    changes = merge(map(listed, keys), [], lambda key: "d")
    for _ in keys[:-1]:
        next(changes)
    with pytest.raises(OrderBroken) as broken:
        next(changes)
    assert repr(keys[-1]) in str(broken.value)


def test_code_point_order_is_the_order_of_utf8_bytes() -> None:
    keys = ["\uffff", "\U00010000", "z", "é", "a/x", "a-b", "a"]
    assert sorted(keys) == sorted(keys, key=str.encode)


def test_a_key_listed_twice_in_a_row_counts_once() -> None:
    assert [c.verdict for c in merge(map(listed, "aab"), [], lambda key: "d")] == [Verdict.NEW, Verdict.NEW]


@pytest.mark.parametrize(
    ("key", "dataset"),
    [
        ("raw/zip-1.csv", "zips"),
        ("raw/deep/er/zip-1.csv", "zips"),
        ("raw/birds/2024/x.csv", "birds"),
        ("raw/birds/x.CSV", None),
        ("raw/other.csv", "rest"),
        ("raw/other.json", None),
        ("raw/we ird+%2F/../ü.csv", "rest"),
    ],
)
def test_the_first_pattern_that_matches_routes_a_key(key: str, dataset: str | None) -> None:
    route = {"zip*.csv": "zips", "birds/*.csv": "birds", "*.csv": "rest"}
    spec = SourceSpec.model_validate({"s3": {"bucket": "lake", "prefix": "raw/"}, "route": route})
    assert router(spec, "s3-main")(key) == dataset == spec.dataset_of(key, "s3-main")


@given(
    key=st.text(st.sampled_from("ab/.*[]"), max_size=6),
    patterns=st.lists(st.text(st.sampled_from("ab/.*?[]!"), max_size=4), max_size=3),
)
def test_the_compiled_router_agrees_with_the_spec(key: str, patterns: list[str]) -> None:
    route = {pattern: f"d{n}" for n, pattern in enumerate(patterns)}
    spec = SourceSpec.model_validate({"s3": {"bucket": "lake", "prefix": "p/"}, "route": route})
    assert router(spec, "s")("p/" + key) == spec.dataset_of("p/" + key, "s")


def test_without_a_route_everything_goes_to_the_sources_dataset() -> None:
    spec = {"s3": {"bucket": "lake"}}
    assert router(SourceSpec.model_validate(spec), "s3-main")("any") == "s3-main"
    assert router(SourceSpec.model_validate(spec | {"dataset": "d"}), "s3-main")("any") == "d"


@pytest.mark.parametrize(("key", "size", "marker"), [("a/", 0, True), ("a/", 1, False), ("a", 0, False)])
def test_folder_markers_are_empty_objects_that_end_in_a_slash(key: str, size: int, marker: bool) -> None:
    assert is_folder_marker(listed(key, size=size)) is marker


@pytest.mark.parametrize(
    ("prefix", "sink", "skipped", "kept"),
    [
        ("", "s3://lake/out/", ["out/d/tenant=a/x.parquet", "out/_ingest/x"], ["outer/x", "raw/x", "out"]),
        ("", "s3://lake/out", ["out/anything"], ["outer/x"]),
        ("", "s3://lake/", ["d/tenant=a/ingest_date=1/x", "_ingest/claims/x"], ["d/x.csv", "a/b/tenant=a/x"]),
        ("raw/", "s3://lake/raw/", ["raw/d/tenant=a/x", "raw/_ingest/x"], ["raw/d/x.csv"]),
        ("raw/", "s3://lake/raw/out/", ["raw/out/x"], ["raw/x"]),
        ("raw/", "s3://other/raw/out/", [], ["raw/out/x"]),
        ("raw/", "s3://lake/out/", [], ["raw/out/x"]),
    ],
)
def test_the_platforms_own_output_is_not_listed(prefix: str, sink: str, skipped: list[str], kept: list[str]) -> None:
    source = SourceSpec.model_validate({"s3": {"bucket": "lake", "prefix": prefix}})
    sinks = {"lake": SinkSpec.model_validate({"parquet": {"uri": sink}})}
    own = own_output(source, sinks, "s3://work/snapshots/", None)
    assert all(own.pattern.match(key) for key in skipped)
    assert not any(own.pattern.match(key) for key in kept)
    assert bool(own.warnings) == bool(skipped)


def test_a_sink_on_another_endpoint_is_another_bucket_and_snapshots_are_never_listed() -> None:
    source = SourceSpec.model_validate({"s3": {"bucket": "lake"}})
    elsewhere = {"lake": SinkSpec.model_validate({"parquet": {"uri": "s3://lake/out/", "endpoint_url": "http://b"}})}
    own = own_output(source, elsewhere, "s3://lake/work/snapshots/", "http://a")
    assert not own.pattern.match("out/x")
    assert own.pattern.match("work/snapshots/t/s/1/000000.json")
    assert not own.pattern.match("work/other")


@given(
    rows=st.lists(st.tuples(KEYS, ETAGS, st.integers(0, 9))),
    held=st.integers(1, 7),
    merged=st.integers(2, 4),
)
def test_the_external_sort_gives_back_what_it_got_in_order_and_leaves_no_file(
    rows: list[tuple[str, str, int]], held: int, merged: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("sort")
    with SortedFiles(folder, rows_in_memory=held, files_merged=merged) as files:
        for row in rows:
            files.add(row)
        assert len(list(folder.iterdir())) <= merged
        assert list(files.rows()) == sorted(rows)
    assert list(folder.iterdir()) == []


def test_a_change_tells_the_key_as_listed_as_known_and_as_kept() -> None:
    before = Seen("a", "e1", "d")
    change = next(merge([listed("a", "e2")], [before], lambda key: "d"))
    assert change == Change(Verdict.CHANGED, listed("a", "e2"), before, Seen("a", "e2", "d"))
