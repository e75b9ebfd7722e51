"""What a lister does, scan by scan, over a store and a Redis in memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from ingestcore.datasets.registry import Registry
from ingestcore.observe.metrics import Metrics
from ingestcore.runtime.service import Context
from ingestcore.settings import Platform
from ingestcore.stage import Fenced, Retriable
from ingestcore.stores.objects import Refused
from ingestcore.testing.lister_world import Clock, MemoryLeases, MemoryStore, Replica, Topic, folder_order
from services.s3_lister.settings import ListerSettings
from services.s3_lister.snapshot import Snapshot
from services.s3_lister.snapshot_store import SnapshotStore
from services.s3_lister.source import Lister
from services.s3_lister.stage import Seen

POINTER = "default:s3-main"


class World:
    """One bucket `lake`, a sink `s3://out/`, the source `s3-main`, and replicas by name."""

    def __init__(self, folder: Path, store: MemoryStore | None = None, **settings: Any) -> None:
        self.clock, self.store, self.specs = Clock(), store or MemoryStore(), Registry()
        self.leases, self.topic, self.metrics = MemoryLeases(self.clock), Topic(), Metrics()
        self.store.buckets |= {"lake": {}, "out": {}}
        self._folder, self._replicas = folder, itertools.count()
        self._settings = ListerSettings(**{"step_objects": 2, "part_entries": 2, "sort_entries": 3} | settings)
        self.spec(route={"*.csv": "rows"})
        self.specs.feed("sink/lake", orjson.dumps({"parquet": {"uri": "s3://out/"}}))

    def spec(self, **source: Any) -> None:
        s3 = {"bucket": "lake", "prefix": "raw/"} | source.pop("s3", {})
        self.specs.feed("source/s3-main", orjson.dumps({"s3": s3} | source))

    def replica(self) -> Replica:
        state = self._folder / f"state-{next(self._replicas)}"
        state.mkdir()
        platform = Platform(replica=state.name)
        nothing: Any = SimpleNamespace()
        context = Context(
            platform,
            self._settings,
            "s3-lister",
            self.specs,
            nothing,
            self.metrics,
            state,
            lambda spec: self.store,
        )
        now, monotonic = self.clock.now, self.clock.monotonic
        return Replica(
            Lister("s3-main", context, self.leases, now=now, monotonic=monotonic, renew_beside=False), self.topic
        )

    def add(self, *keys: str, data: bytes = b"x") -> None:
        for key in keys:
            self.store.add("lake", key, data)

    @property
    def checkpoint(self) -> dict[str, Any]:
        stored = self.leases.checkpoints[POINTER]
        assert isinstance(stored, str)
        fields: dict[str, Any] = orjson.loads(stored)
        return fields


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_object_is_found_once_with_the_facts_of_the_listing(world: World) -> None:
    world.add("raw/a.csv", "raw/b.csv", data=b"12345")
    lister = world.replica()
    lister.finish_pass()
    lister.finish_pass()
    assert world.topic.found() == ["raw/a.csv", "raw/b.csv"]
    ref = world.topic.objects[0]
    etag = world.store.buckets["lake"]["raw/a.csv"][1]
    assert (ref.tenant, ref.source, ref.dataset, ref.bucket) == ("default", "s3-main", "rows", "lake")
    assert (ref.etag, ref.size, ref.first_seen) == (etag, 5, "2025-01-01T00:16:40.000000Z")


def test_new_changed_and_late_keys_are_found_by_the_next_scan(world: World) -> None:
    world.add("raw/b.csv", "raw/d.csv")
    lister = world.replica()
    lister.finish_pass()
    world.add("raw/a.csv", "raw/c.csv", "raw/e.csv", "raw/d.csv")
    lister.finish_pass()
    lister.finish_pass()
    assert sorted(world.topic.found()) == ["raw/a.csv", "raw/b.csv", "raw/c.csv", "raw/d.csv", "raw/d.csv", "raw/e.csv"]
    assert len(set(world.topic.ids())) == 6


def test_a_key_written_behind_the_scan_is_found_by_the_next(world: World) -> None:
    world.add(*(f"raw/{letter}.csv" for letter in "cdefgh"))
    lister = world.replica()
    while not world.topic.objects:
        lister.move()
    world.add("raw/a.csv")
    lister.finish_pass()
    assert "raw/a.csv" not in world.topic.found()
    lister.finish_pass()
    assert world.topic.found().count("raw/a.csv") == 1


def test_strange_keys_pass_untouched_and_folder_markers_do_not(world: World) -> None:
    keys = ["raw/../etc/x.csv", "raw/a b+c%2F.csv", "raw/ünï\U0001f600.csv", "raw/tab\tnew\nline.csv", 'raw/"q\\.csv']
    world.add(*keys)
    world.add("raw/folder/", "raw/empty.csv", data=b"")
    for _ in range(2):
        world.replica().finish_pass()
        world.clock.pass_seconds(60)
    assert sorted(world.topic.found()) == sorted([*keys, "raw/empty.csv"])


def test_unmatched_keys_are_told_and_found_when_a_route_comes(world: World) -> None:
    world.add("raw/a.csv", *(f"raw/{n:02}.json" for n in range(30)))
    lister = world.replica()
    lister.finish_pass()
    status = lister.source.status()
    assert (status["unmatched"], len(status["unmatched_examples"])) == (30, 20)
    assert "raw/00.json" in status["unmatched_examples"]
    assert world.metrics.registry.get_sample_value("ingest_unmatched_keys", {"source": "s3-main"}) == 30
    world.spec(route={"*.csv": "rows", "*.json": "events"})
    lister.finish_pass()
    assert sum(ref.dataset == "events" for ref in world.topic.objects) == 30
    assert len(world.topic.objects) == 31
    assert lister.source.status()["unmatched"] == 0


def test_another_dataset_for_a_key_is_another_object(world: World) -> None:
    world.add("raw/a.csv")
    lister = world.replica()
    lister.finish_pass()
    world.spec(route={"*.csv": "other"})
    lister.finish_pass()
    lister.finish_pass()
    assert [ref.dataset for ref in world.topic.objects] == ["rows", "other"]


def test_a_scan_without_a_change_writes_nothing(world: World) -> None:
    world.add(*(f"raw/{n}.csv" for n in range(9)))
    lister = world.replica()
    lister.finish_pass()
    before = (dict(world.store.buckets["out"]), dict(world.leases.checkpoints))
    for _ in range(3):
        lister.finish_pass()
    assert (world.store.buckets["out"], world.leases.checkpoints) == before


def test_old_snapshots_are_deleted_except_the_one_before(world: World) -> None:
    lister = world.replica()
    for n in range(12):
        world.add(f"raw/{n:02}.csv")
        lister.finish_pass()
    files = world.store.buckets["out"]
    manifests = [orjson.loads(data) for key, (data, _) in files.items() if key.endswith(".json")]
    assert len(manifests) == 2
    used = {part["uri"].removeprefix("s3://out/") for manifest in manifests for part in manifest["parts"]}
    assert used == {key for key in files if key.endswith(".jsonl.gz")}
    assert all(key.startswith("_ingest/snapshots/default/s3-main/0000") for key in files)


def test_a_replica_that_lost_its_lease_while_it_listed_old_files_deletes_none() -> None:
    store = MemoryStore()
    store.buckets["out"] = {}
    snapshots = SnapshotStore(store, "s3://out/work/")
    snapshots.begin(1, 1)
    used, stale = snapshots.write_part([Seen("a", "e", "d")]), snapshots.write_part([Seen("b", "e", "d")])
    current = Snapshot("lake", (used,))
    uri = snapshots.write(current)
    assert snapshots.sweep(uri, current, lambda: False) == 0
    assert len(store.buckets["out"]) == 3
    assert snapshots.sweep(uri, current, lambda: True) == 1
    assert stale.uri.removeprefix("s3://out/") not in store.buckets["out"]


def test_the_checkpoint_is_readable_json_with_the_documented_fields(world: World) -> None:
    world.add("raw/a.csv")
    world.replica().finish_pass()
    assert list(world.checkpoint) == ["version", "scan", "start_after", "snapshot", "fence"]
    assert world.checkpoint["snapshot"].startswith("s3://out/_ingest/snapshots/default/s3-main/000001-1-")
    assert (world.checkpoint["scan"], world.checkpoint["start_after"], world.checkpoint["fence"]) == (1, "", 1)


def test_an_empty_bucket_has_a_checkpoint_too(world: World) -> None:
    world.replica().finish_pass()
    assert world.checkpoint == {"version": 1, "scan": 1, "start_after": "", "snapshot": "", "fence": 1}


def test_a_deleted_checkpoint_lists_anew_with_the_same_ids(world: World) -> None:
    world.add("raw/a.csv", "raw/b.csv")
    lister = world.replica()
    lister.finish_pass()
    del world.leases.checkpoints[POINTER]
    lister.finish_pass()
    assert world.topic.ids()[:2] == world.topic.ids()[2:]


def test_an_edited_start_after_is_honoured_once(world: World) -> None:
    world.add(*(f"raw/{letter}.csv" for letter in "abcd"))
    lister = world.replica()
    world.leases.checkpoints[POINTER] = '{"version": 1, "start_after": "raw/b.csv"}'
    lister.finish_pass()
    assert world.topic.found() == ["raw/c.csv", "raw/d.csv"]
    assert world.checkpoint["start_after"] == ""
    lister.finish_pass()
    assert world.topic.found() == ["raw/c.csv", "raw/d.csv", "raw/a.csv", "raw/b.csv"]


def test_start_after_keeps_what_is_known_of_the_keys_before_it(world: World) -> None:
    world.add(*(f"raw/{letter}.csv" for letter in "abcdef"))
    lister = world.replica()
    lister.finish_pass()
    edited = world.checkpoint | {"start_after": "raw/c.csv"}
    world.leases.checkpoints[POINTER] = orjson.dumps(edited).decode()
    for _ in range(3):
        lister.finish_pass()
    assert len(world.topic.objects) == 6


def test_an_older_snapshot_may_be_put_back(world: World) -> None:
    world.add("raw/a.csv")
    lister = world.replica()
    lister.finish_pass()
    older = world.checkpoint["snapshot"]
    world.add("raw/b.csv")
    lister.finish_pass()
    world.leases.checkpoints[POINTER] = orjson.dumps(world.checkpoint | {"snapshot": older}).decode()
    lister.finish_pass()
    lister.finish_pass()
    assert world.topic.found() == ["raw/a.csv", "raw/b.csv", "raw/b.csv"]


def test_an_edit_during_a_scan_wins_over_the_scan(world: World) -> None:
    world.add(*(f"raw/{letter}.csv" for letter in "abcdefgh"))
    lister = world.replica()
    while len(world.topic.objects) < 4:
        lister.move()
    world.leases.checkpoints[POINTER] = '{"version": 1, "start_after": "raw/f.csv"}'
    world.clock.pass_seconds(10)
    lister.finish_pass()
    assert lister.source.pause_seconds() == 0
    emitted = len(world.topic.objects)
    lister.finish_pass()
    assert world.topic.found()[emitted:] == ["raw/g.csv", "raw/h.csv"]


BROKEN: list[tuple[str | bytes, str]] = [
    ("hello", "is no JSON"),
    ("", ""),
    ("{", "is no JSON"),
    ("[1]", "is no JSON object"),
    ("{}", "has version None"),
    ('{"version": 2}', "has version 2"),
    ('{"version": 1, "start_afer": "x"}', "unknown fields: start_afer"),
    ('{"version": 1, "scan": "7"}', '"scan" that is no whole number'),
    ('{"version": 1, "scan": true}', '"scan" that is no whole number'),
    ('{"version": 1, "fence": -1}', '"fence" that is no whole number'),
    ('{"version": 1, "start_after": null}', '"start_after" that is no text'),
    ('{"version": 1, "snapshot": 5}', '"snapshot" that is no text'),
    ('{"version": 1, "snapshot": "/tmp/x"}', '"snapshot" that is no s3://'),
    ('{"version": 1, "snapshot": "s3://out"}', '"snapshot" that is no s3://'),
    ('{"version": 1, "snapshot": "s3://out/nothing"}', "points to s3://out/nothing: it does not exist"),
    ('{"version": 1, "snapshot": "s3://out/text"}', "points to s3://out/text: it is no snapshot"),
    ('{"version": 1, "snapshot": "s3://out/newer"}', "it has version 9"),
    ('{"version": 1, "snapshot": "s3://out/part-gone"}', "part s3://out/p.gz: it does not exist"),
    ('{"version": 1, "snapshot": "s3://out/part-damaged"}', "part s3://out/text: it is damaged"),
    ('{"version": 1, "snapshot": "s3://gone/x"}', "there is no bucket gone"),
    (b"\xff\xfe", "is not UTF-8 text"),
]


@pytest.mark.parametrize(("value", "message"), [case for case in BROKEN if case[1]])
def test_a_broken_checkpoint_is_explained_and_waited_for(world: World, value: str | bytes, message: str) -> None:
    world.add("raw/a.csv")
    snapshot = {"version": 1, "bucket": "lake", "in_byte_order": True, "before": ""}
    part = {"last": "raw/a.csv", "entries": 1, "after": ""}
    out = {
        "text": b"no snapshot",
        "newer": b'{"version": 9}',
        "part-gone": orjson.dumps(snapshot | {"parts": [part | {"uri": "s3://out/p.gz"}]}),
        "part-damaged": orjson.dumps(snapshot | {"parts": [part | {"uri": "s3://out/text"}]}),
    }
    for key, data in out.items():
        world.store.add("out", key, data)
    world.leases.checkpoints[POINTER] = value
    lister = world.replica()
    lister.finish_pass()
    lister.finish_pass()
    status = lister.source.status()
    assert message in status["waiting"]
    assert (lister.trouble, world.topic.objects, world.leases.checkpoints[POINTER]) == ("", [], value)
    assert 0 < lister.source.pause_seconds() <= 10
    if "bucket" not in message:
        assert "checkpoint:default:s3-main" in status["waiting"]
        assert "redis-cli DEL" in status["waiting"]
    del world.leases.checkpoints[POINTER]
    lister.finish_pass()
    assert (world.topic.found(), lister.source.status()["waiting"]) == (["raw/a.csv"], "")


def test_a_store_that_lists_by_folder_is_sorted_first_and_remembered(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryStore(folder_order))
    keys = ["raw/a/x.csv", "raw/a-b.csv", "raw/a/y.csv", "raw/a.csv", "raw/b/z.csv", "raw/b.csv", "raw/c.csv"]
    world.add(*keys)
    lister = world.replica()
    lister.finish_pass()
    assert sorted(world.topic.found()) == sorted(keys)
    listings = len(world.store.lists)
    world.add("raw/a/w.csv", "raw/a+.csv")
    lister.finish_pass()
    lister.finish_pass()
    assert sorted(world.topic.found()) == sorted([*keys, "raw/a/w.csv", "raw/a+.csv"])
    assert [after for bucket, after in world.store.lists[listings:] if bucket == "lake"] == ["", ""]
    assert world.checkpoint["start_after"] == ""
    assert list(tmp_path.rglob("*.tmp")) == []


def test_keys_that_seem_to_vanish_until_the_order_breaks_are_not_handed_on_again(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryStore(folder_order))
    world.add("raw/a-b.csv")
    lister = world.replica()
    lister.finish_pass()
    world.add("raw/a/x.csv")
    lister.finish_pass()
    lister.finish_pass()
    assert world.topic.found() == ["raw/a-b.csv", "raw/a/x.csv"]


def test_start_after_is_honoured_where_the_order_is_not_the_bytes(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryStore(folder_order))
    world.add("raw/a/x.csv", "raw/a-b.csv", "raw/c.csv")
    lister = world.replica()
    lister.finish_pass()
    world.add("raw/a/w.csv", "raw/b.csv")
    world.leases.checkpoints[POINTER] = orjson.dumps(world.checkpoint | {"start_after": "raw/a~"}).decode()
    lister.finish_pass()
    assert world.topic.found()[3:] == ["raw/b.csv"]
    lister.finish_pass()
    assert world.topic.found()[3:] == ["raw/b.csv", "raw/a/w.csv"]


@pytest.mark.parametrize("order", ["bytes", "folders"])
def test_a_crash_repeats_only_what_the_checkpoint_does_not_tell(tmp_path: Path, order: str) -> None:
    store = MemoryStore(folder_order) if order == "folders" else MemoryStore()
    world = World(tmp_path, store, progress_objects=4)
    world.add("raw/00/x.csv", *(f"raw/{n:02}-.csv" for n in range(20)))
    lister = world.replica()
    while len(world.topic.objects) < 11:
        lister.move()
    assert bool(world.checkpoint["start_after"]) == (order == "bytes")
    world.clock.pass_seconds(60)
    successor = world.replica()
    successor.finish_pass()
    successor.finish_pass()
    assert len(set(world.topic.ids())) == 21
    assert len(world.topic.objects) <= 21 + 6


def test_a_clean_end_repeats_nothing(world: World) -> None:
    world.add(*(f"raw/{n:02}.csv" for n in range(20)))
    lister = world.replica()
    while len(world.topic.objects) < 10:
        lister.move()
    lister.source.close()
    world.replica().finish_pass()
    assert sorted(world.topic.found()) == [f"raw/{n:02}.csv" for n in range(20)]


def test_kafka_away_repeats_nothing_and_loses_nothing(world: World) -> None:
    world.add(*(f"raw/{n:02}.csv" for n in range(20)))
    lister = world.replica()
    for n in range(60):
        lister.move(abort=n % 3 == 2)
    lister.finish_pass()
    lister.finish_pass()
    assert sorted(world.topic.found()) == [f"raw/{n:02}.csv" for n in range(20)]


@pytest.mark.parametrize("entries", range(1, 20, 2))
def test_s3_away_in_the_middle_of_a_listing_repeats_nothing_and_loses_nothing(world: World, entries: int) -> None:
    world.add(*(f"raw/{n:02}.csv" for n in range(20)))
    lister = world.replica()
    world.store.away_after_entries = entries
    lister.finish_pass()
    assert lister.trouble == lister.source.status()["waiting"] == "S3 is away: waiting for it"
    lister.finish_pass()
    world.store.away = False
    lister.finish_pass()
    lister.finish_pass()
    assert sorted(world.topic.found()) == [f"raw/{n:02}.csv" for n in range(20)]
    assert lister.source.status()["waiting"] == ""


@pytest.mark.parametrize("moves", range(0, 14, 2))
def test_redis_away_repeats_nothing_and_loses_nothing(world: World, moves: int) -> None:
    world.add(*(f"raw/{n:02}.csv" for n in range(20)))
    lister = world.replica()
    for _ in range(moves):
        lister.move()
    world.leases.away = True
    world.clock.pass_seconds(6)
    lister.finish_pass()
    world.clock.pass_seconds(60)
    lister.finish_pass()
    assert lister.trouble == lister.source.status()["waiting"] == "Redis is away: waiting for it"
    world.leases.away = False
    lister.finish_pass()
    lister.finish_pass()
    assert sorted(world.topic.found()) == [f"raw/{n:02}.csv" for n in range(20)]
    assert lister.source.status()["waiting"] == ""


def test_a_lost_answer_of_redis_is_asked_for_again(world: World) -> None:
    world.add(*(f"raw/{n:02}.csv" for n in range(8)))
    lister = world.replica()
    while len(world.topic.objects) < 4:
        lister.move()
    world.leases.lose_answers = 1
    world.clock.pass_seconds(6)
    lister.finish_pass()
    lister.finish_pass()
    assert sorted(world.topic.found()) == [f"raw/{n:02}.csv" for n in range(8)]


def test_a_redis_that_lost_everything_lists_anew(world: World) -> None:
    world.add("raw/a.csv", "raw/b.csv")
    lister = world.replica()
    lister.finish_pass()
    world.leases.forget()
    lister.finish_pass()
    lister.finish_pass()
    assert world.topic.ids() == world.topic.ids()[:2] * 2
    assert world.checkpoint["fence"] >= 1


def test_a_second_replica_waits_and_takes_over_when_the_first_is_silent(world: World) -> None:
    world.add("raw/a.csv")
    first, second = world.replica(), world.replica()
    first.finish_pass()
    world.add("raw/b.csv")
    second.finish_pass()
    assert world.topic.found() == ["raw/a.csv"]
    assert "listed by another replica (state-0@" in second.source.status()["waiting"]
    assert second.source.pause_seconds() <= 5
    world.clock.pass_seconds(16)
    second.finish_pass()
    assert world.topic.found() == ["raw/a.csv", "raw/b.csv"]
    first.finish_pass()
    assert "listed by another replica (state-1@" in first.source.status()["waiting"]


def test_a_replica_that_was_frozen_in_the_middle_does_not_act_again(world: World) -> None:
    world.add(*(f"raw/{n:02}.csv" for n in range(10)))
    first, second = world.replica(), world.replica()
    while len(world.topic.objects) < 4:
        first.move()
    world.clock.pass_seconds(16)
    second.finish_pass()
    handed_on = len(world.topic.objects)
    first.finish_pass()
    first.finish_pass()
    assert len(world.topic.objects) == handed_on
    assert world.checkpoint["fence"] == 2


def test_acknowledging_after_a_takeover_is_refused(world: World) -> None:
    world.add(*(f"raw/{n:02}.csv" for n in range(10)))
    first, second = world.replica(), world.replica()
    scan = first.source.scan()
    step = next(step for step in scan if step)
    world.clock.pass_seconds(16)
    second.finish_pass()
    with pytest.raises(Fenced, match="another replica"):
        first.source.acknowledged(step.resume)


def test_a_lease_given_up_is_free_at_once(world: World) -> None:
    world.add("raw/a.csv")
    first, second = world.replica(), world.replica()
    first.finish_pass()
    first.source.close()
    second.finish_pass()
    assert second.source.status()["waiting"] == ""


def test_a_missing_bucket_is_told_and_waited_for(world: World) -> None:
    world.spec(s3={"bucket": "later"})
    lister = world.replica()
    with pytest.raises(Refused, match="no bucket later"):
        lister.source.check()
    lister.finish_pass()
    assert lister.source.status()["waiting"] == "there is no bucket later: create it"
    world.store.add("later", "raw/a.csv")
    lister.source.check()
    lister.finish_pass()
    assert world.topic.found() == ["raw/a.csv"]


def test_another_bucket_is_listed_anew_whatever_the_snapshot_says(world: World) -> None:
    world.add("raw/a.csv")
    lister = world.replica()
    lister.finish_pass()
    world.store.buckets["lake2"] = dict(world.store.buckets["lake"])
    world.spec(s3={"bucket": "lake2"})
    lister.finish_pass()
    lister.finish_pass()
    assert [ref.bucket for ref in world.topic.objects] == ["lake", "lake2"]


def test_another_tenant_is_another_checkpoint(world: World) -> None:
    world.add("raw/a.csv")
    lister = world.replica()
    lister.finish_pass()
    world.spec(tenant="acme")
    lister.finish_pass()
    assert [ref.tenant for ref in world.topic.objects] == ["default", "acme"]
    assert set(world.leases.checkpoints) == {"default:s3-main", "acme:s3-main"}


def test_the_platforms_own_files_are_skipped_with_a_warning(world: World) -> None:
    world.spec(s3={"bucket": "out", "prefix": ""})
    world.store.add("out", "a.csv")
    world.store.add("out", "d/tenant=default/ingest_date=2025-01-01/x.csv")
    lister = world.replica()
    lister.finish_pass()
    lister.finish_pass()
    status = lister.source.status()
    assert world.topic.found() == ["a.csv"]
    assert "sink lake" in status["warnings"][0]
    assert status["own_output_skipped"] >= 2


def test_the_poll_interval_and_the_route_in_force_are_asked_for_at_every_scan(world: World) -> None:
    lister = world.replica()
    lister.finish_pass()
    assert lister.source.pause_seconds() == 10
    world.spec(s3={"poll_interval": 2})
    lister.finish_pass()
    assert lister.source.pause_seconds() == 2
    world.specs.feed("source/s3-main", None)
    lister.finish_pass()
    assert "s3-main is not in the configuration" in lister.trouble


def test_without_a_sink_or_a_work_uri_it_says_what_is_missing(world: World) -> None:
    world.specs.feed("sink/lake", None)
    lister = world.replica()
    lister.finish_pass()
    assert "INGEST_WORK_URI" in lister.trouble


def test_a_long_listing_without_news_lets_the_runtime_look_up(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryStore(page=500), step_objects=5_000, part_entries=5_000)
    world.add(*(f"raw/{n:04}.csv" for n in range(3_000)))
    lister = world.replica()
    lister.finish_pass()
    world.store.on_page = lambda: world.clock.pass_seconds(1.5)
    moves = 0
    while lister.move():
        moves += 1
    assert 5 <= moves <= 8


def test_an_object_found_in_a_long_listing_does_not_wait_for_its_end(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryStore(page=500), step_objects=5_000, part_entries=5_000)
    world.add(*(f"raw/{n:04}.csv" for n in range(3_000)))
    lister = world.replica()
    lister.finish_pass()
    world.add("raw/0000a.csv")
    world.store.on_page = lambda: world.clock.pass_seconds(1.5)
    moves = 0
    while "raw/0000a.csv" not in world.topic.found():
        assert lister.move()
        moves += 1
    assert moves <= 3


def test_status_tells_scan_lease_and_lag(world: World) -> None:
    world.add("raw/a.csv", "raw/b.csv")
    lister = world.replica()
    world.clock.pass_seconds(7)
    assert (lister.source.status()["lag_seconds"], lister.source.status()["last_scan"]) == (7.0, None)
    lister.finish_pass()
    world.clock.pass_seconds(3)
    status = lister.source.status()
    assert (status["lag_seconds"], status["objects_listed"], status["objects_new"], status["scans"]) == (3.0, 2, 2, 1)
    assert status["lease"].startswith("1 state-0@")
    assert world.metrics.registry.get_sample_value("ingest_objects_found_total", {"source": "s3-main"}) == 2


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryStore(folder_order))
    world.add("raw/a/x.csv", *(f"raw/a-{n}.csv" for n in range(9)))
    lister = world.replica()
    (tmp_path / "state-0").rmdir()
    lister.finish_pass()
    assert "cannot write temporary files" in lister.trouble
    (tmp_path / "state-0").mkdir()
    lister.finish_pass()
    assert len(world.topic.objects) == len(set(world.topic.ids())) == 10


def test_retriable_trouble_is_raised_so_that_the_runtime_backs_off(world: World) -> None:
    world.store.away = True
    scan = world.replica().source.scan()
    assert next(scan) is None
    with pytest.raises(Retriable):
        next(scan)
