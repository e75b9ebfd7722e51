"""What `apply` would write, compared with what is in force."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from textwrap import dedent

import orjson
import pytest

from ingestcore.datasets.config_file import Config, load
from ingestcore.datasets.publish import Change, Kind, Unpublishable, plan, to_write
from ingestcore.datasets.registry import Registry

Make = Callable[[str], Config]


@pytest.fixture
def config(tmp_path: Path) -> Make:
    def made(text: str) -> Config:
        path = tmp_path / "ingest.yaml"
        path.write_text(dedent(text))
        return load([path])

    return made


def applied(*rounds: Iterable[Change]) -> Registry:
    """A registry that was fed what was written."""
    registry = Registry()
    for changes in rounds:
        for change in to_write(changes):
            registry.feed(change.key, change.value)
    return registry


def told(changes: Iterable[Change]) -> dict[str, str]:
    return {change.key: change.kind.value for change in changes}


BASE = """
    sources: {s: {s3: {bucket: abc}, route: {"z*": zips, "*": rest}}}
    datasets: {zips: {primary_key: [zip], fields: {zip: string, "*": string}}}
    sinks: {lake: {parquet: {uri: "s3://out/"}}, dead: {from: dlq, parquet: {uri: "s3://dead/"}}}
"""


def test_the_first_apply_adds_everything_datasets_before_what_leads_to_them(config: Make) -> None:
    changes = plan(config(BASE), Registry())
    assert [change.key for change in changes] == [
        "dataset/zips@1",
        "dataset/zips",
        "dataset/rest@1",
        "dataset/rest",
        "sink/lake",
        "sink/dead",
        "source/s",
    ]
    assert {change.kind for change in changes} == {Kind.ADDED}
    assert orjson.loads({c.key: c.value for c in changes}["dataset/zips"] or b"") == {"version": 1}


def test_applying_the_same_again_changes_nothing(config: Make) -> None:
    first = plan(config(BASE), Registry())
    again = plan(config(BASE), applied(first))
    assert to_write(again) == []
    assert told(again)["dataset/zips"] == "unchanged"


def test_another_spelling_of_the_same_spec_changes_nothing(config: Make) -> None:
    other = BASE.replace("zip: string", "zip: {type: string}").replace("primary_key", "primaryKey")
    assert to_write(plan(config(other), applied(plan(config(BASE), Registry())))) == []


def test_what_is_published_can_be_read_back(config: Make) -> None:
    base = config(BASE)
    registry = applied(plan(base, Registry()))
    assert registry.dataset("zips@1") == base.datasets["zips"]
    assert registry.source("s") == base.sources["s"]
    assert registry.sinks() == dict(base.sinks)


def test_a_changed_dataset_is_a_new_version_and_the_old_one_stays(config: Make) -> None:
    first = plan(config(BASE), Registry())
    second = plan(config(BASE.replace("zip: string,", "zip: {type: string, length: 5},")), applied(first))
    assert told(to_write(second)) == {"dataset/zips@2": "added", "dataset/zips": "changed"}
    registry = applied(first, second)
    assert registry.current("zips") == "zips@2"
    assert registry.dataset("zips@1").fields["zip"].length is None
    back = plan(config(BASE), registry)
    assert told(to_write(back)) == {"dataset/zips@3": "added", "dataset/zips": "changed"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("primary_key: [zip]", "primary_key: [state]"),
        ("primary_key: [zip]", "primary_key: [zip], dedupe: {keys: [zip]}"),
        ("zip: string,", "zip: {type: string, casefold: true},"),
        ('"*": string', '"*": integer'),
    ],
)
def test_other_keys_are_refused_until_the_operator_says_so(config: Make, before: str, after: str) -> None:
    registry = applied(plan(config(BASE), Registry()))
    changed = config(BASE.replace(before, after))
    with pytest.raises(Unpublishable, match=r"datasets\.zips: .*all rows will be new.*--rekey"):
        plan(changed, registry)
    changes = plan(changed, registry, rekey=True)
    assert told(to_write(changes)) == {"dataset/zips@2": "added", "dataset/zips": "changed"}
    assert "all rows will be new" in next(c.note for c in changes if c.key == "dataset/zips")


def test_an_implicit_dataset_leaves_one_that_was_declared_before_alone(config: Make) -> None:
    declared = plan(config("datasets: {rest: {description: mine}}"), Registry())
    changes = plan(config(BASE), applied(declared))
    assert "dataset/rest" not in told(changes)


def test_a_source_without_route_leads_to_a_dataset_of_its_own_name(config: Make) -> None:
    keys = told(plan(config("sources: {a: {s3: {bucket: abc}}, b: {s3: {bucket: abc}, dataset: c}}"), Registry()))
    assert {key for key in keys if key.startswith("dataset/") and "@" not in key} == {"dataset/a", "dataset/c"}


class TestSinksThatNobodyNamed:
    def test_a_lake_and_its_dead_letters_are_made(self, config: Make) -> None:
        sinks = applied(plan(config("s3csv: {bucket: abc, batchSize: 7}"), Registry())).sinks()
        assert {name: (sink.from_, sink.parquet.uri) for name, sink in sinks.items()} == {
            "lake": ("normalized", "s3://ingest-lake/"),
            "dlq": ("dlq", "s3://ingest-lake/"),
        }
        assert sinks["lake"].parquet.batch_size == 7

    def test_the_place_of_the_default_lake_is_a_setting(self) -> None:
        sinks = applied(plan(Config(), Registry(), default_sink_uri="s3://other/x/")).sinks()
        assert {sink.parquet.uri for sink in sinks.values()} == {"s3://other/x/"}

    def test_dead_letters_go_beside_the_first_lake(self, config: Make) -> None:
        sinks = applied(plan(config("sinks: {mine: {parquet: {uri: 's3://out/a/'}}}"), Registry())).sinks()
        assert list(sinks) == ["mine", "dlq"]
        assert (sinks["dlq"].from_, sinks["dlq"].parquet) == ("dlq", sinks["mine"].parquet)

    def test_a_file_without_sinks_does_not_touch_those_in_force(self, config: Make) -> None:
        registry = applied(plan(config(BASE.replace("lake:", "other:")), Registry()))
        assert told(plan(config("datasets: {sixth: {}}"), registry)) == {
            "dataset/sixth@1": "added",
            "dataset/sixth": "added",
        }


class TestPrune:
    def test_without_it_nothing_is_removed(self, config: Make) -> None:
        registry = applied(plan(config(BASE), Registry()))
        assert to_write(plan(Config(), registry)) == []

    def test_it_removes_what_the_files_do_not_have_but_never_a_version(self, config: Make) -> None:
        registry = applied(plan(config(BASE), Registry()))
        changes = plan(config("sources: {t: {s3: {bucket: xyz}, dataset: rest}}"), registry, prune=True)
        assert told(to_write(changes)) == {
            "source/s": "removed",
            "sink/dead": "removed",
            "dataset/zips": "removed",
            "sink/lake": "changed",
            "sink/dlq": "added",
            "source/t": "added",
        }
        assert [change.value for change in changes if change.kind is Kind.REMOVED] == [None] * 3

    def test_a_dataset_that_comes_back_goes_on_counting(self, config: Make) -> None:
        first = plan(config(BASE), Registry())
        gone = plan(Config(), applied(first), prune=True)
        registry = applied(first, gone)
        assert "zips" not in registry.pointers()
        assert told(to_write(plan(config(BASE), registry)))["dataset/zips"] == "changed"
        other = plan(config(BASE.replace("zip: string,", "zip: {type: string, length: 5},")), registry)
        assert "dataset/zips@2" in told(to_write(other))


def test_a_sink_may_not_write_where_a_source_applied_earlier_reads(config: Make) -> None:
    registry = applied(plan(config(BASE), Registry()))
    with pytest.raises(Unpublishable, match="overlaps source s"):
        plan(config("sinks: {bad: {parquet: {uri: 's3://abc/lake/'}}}"), registry)


def test_every_reason_is_told_at_once(config: Make) -> None:
    registry = applied(plan(config(BASE), Registry()))
    registry.feed("sink/elder", b'{"parquet": {"uri": "s3://new"}}')
    text = """
        datasets: {zips: {primary_key: [state], fields: {state: string, "*": string}}}
        sinks: {younger: {parquet: {uri: "s3://new/"}}}
    """
    with pytest.raises(Unpublishable) as refused:
        plan(config(text), registry)
    assert [reason.split(":")[0] for reason in refused.value.reasons] == ["sinks.younger.parquet.uri", "datasets.zips"]
