"""What a change of a spec does: rows that come again as new ones, columns of the lake, new dead letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingestcore.cli.main import main
from ingestcore.datasets.compatibility import Effect, Kind, compare, compatible, consequences
from ingestcore.datasets.config_file import load
from ingestcore.datasets.publish import Unpublishable, plan
from ingestcore.datasets.registry import Registry
from ingestcore.datasets.spec import DatasetSpec

KEYS, LAKE, DEAD, NOTE = Effect.KEYS, Effect.LAKE, Effect.DEAD_LETTERS, Effect.NOTE


def spec(**given: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(given)


def fields(**given: Any) -> DatasetSpec:
    """-> a dataset without keys, so that only its columns matter."""
    return spec(fields={name.replace("rest", "*"): told for name, told in given.items()})


def effects(old: DatasetSpec, new: DatasetSpec) -> list[tuple[Effect, bool]]:
    return [(found.effect, found.breaks) for found in consequences(old, new)]


def same(**given: Any) -> dict[str, Any]:
    return {"fields": {"id": "integer", "x": "string"}, **given}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        # nothing
        (same(), same(), []),
        (same(), same(description="words"), []),
        (same(), same(dedupe={"capacity": 5}), []),
        # keys
        (same(dedupe={"keys": ["id"]}), same(dedupe={"keys": ["id", "x"]}), [(KEYS, True)]),
        (same(dedupe={"keys": ["id"]}), same(), [(KEYS, True)]),
        (same(primary_key=["id"]), same(primary_key=["x"]), [(KEYS, True)]),
        (same(dedupe={"window": "7d"}), same(dedupe={"window": "1d"}), [(KEYS, True)]),
        (same(), same(dedupe={"window": "1d"}), [(KEYS, True)]),
        (same(dedupe={"window": "1d"}), same(dedupe={"window": "7d"}), []),
        (same(dedupe={"window": "1d"}), same(), []),
        (same(revision="id"), same(revision="x"), [(NOTE, False)]),
        # reading
        (same(), same(csv={"delimiter": ";"}), [(DEAD, True)]),
        (same(), same(csv={"null_values": ["", "NA"]}), [(DEAD, True)]),
        (same(on_extra="discard_value"), same(on_extra="freeze"), [(DEAD, True)]),
        (same(on_extra="freeze"), same(on_extra="discard_value"), []),
    ],
)
def test_a_dataset(old: dict[str, Any], new: dict[str, Any], found: list[Any]) -> None:
    assert effects(spec(**old), spec(**new)) == found


OPTIONAL = {"type": "string", "required": False}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        # a column comes
        ({"a": "string"}, {"a": "string", "b": OPTIONAL}, [(LAKE, False)]),
        ({"a": "string"}, {"a": "string", "b": "string"}, [(LAKE, False), (DEAD, True)]),
        ({"a": "string", "rest": "string"}, {"a": "string", "b": OPTIONAL, "rest": "string"}, []),
        ({"a": "string", "rest": "string"}, {"a": "string", "b": "string", "rest": "string"}, [(DEAD, True)]),
        ({"a": "string"}, {"a": "string", "rest": "string"}, [(LAKE, False)]),
        # a column goes
        ({"a": "string", "b": "string"}, {"a": "string"}, [(LAKE, True), (DEAD, True)]),
        ({"a": "string", "b": "string", "rest": "string"}, {"a": "string", "rest": "string"}, []),
        ({"a": "string", "rest": "string"}, {"a": "string"}, [(DEAD, True)]),
        # another type
        ({"a": "string"}, {"a": "integer"}, [(LAKE, True), (DEAD, True)]),
        ({"a": "integer"}, {"a": "string"}, [(LAKE, True)]),
        ({"a": "integer"}, {"a": "float"}, [(LAKE, True)]),
        ({"a": "integer"}, {"a": "decimal(21,2)"}, [(LAKE, True)]),
        ({"a": "integer"}, {"a": "decimal(20,2)"}, [(LAKE, True), (DEAD, True)]),
        ({"a": "decimal(10,2)"}, {"a": "decimal(12,3)"}, [(LAKE, True)]),
        ({"a": "decimal(10,2)"}, {"a": "decimal(10,3)"}, [(LAKE, True), (DEAD, True)]),
        ({"a": "json"}, {"a": "string"}, [(LAKE, False)]),
        ({"a": "string"}, {"a": "json"}, [(LAKE, False), (DEAD, True)]),
        ({"a": "string", "rest": "string"}, {"a": "string", "rest": "float"}, [(LAKE, True), (DEAD, True)]),
        # another place in the file
        ({"a": {"from": "A"}}, {"a": {"from": "B"}}, [(DEAD, True)]),
        ({"a": {"from": "a"}}, {"a": "string"}, []),
        ({"a": OPTIONAL}, {"a": "string"}, [(DEAD, True)]),
        ({"a": "string"}, {"a": OPTIONAL}, []),
        # order
        ({"a": "string", "b": "string"}, {"b": "string", "a": "string"}, []),
    ],
)
def test_columns(old: dict[str, Any], new: dict[str, Any], found: list[Any]) -> None:
    assert effects(fields(**old), fields(**new)) == found


@pytest.mark.parametrize(
    ("kind", "looser", "tighter"),
    [
        ("string", {}, {"nullable": False}),
        ("integer", {}, {"min": 1}),
        ("integer", {"min": 1}, {"min": 2}),
        ("float", {"max": 2.5}, {"max": 2}),
        ("date", {"min": "2024-01-01"}, {"min": "2024-01-02"}),
        ("decimal(5,2)", {"max": "9.5"}, {"max": "9.25"}),
        ("string", {"min_length": 1}, {"min_length": 2}),
        ("string", {"max_length": 20}, {"max_length": 9}),
        ("string", {}, {"length": 5}),
        ("string", {}, {"regex": "a+"}),
        ("string", {}, {"enum": ["a"]}),
        ("string", {"enum": ["a", "b"]}, {"enum": ["a"]}),
        ("boolean", {"true": ["y", "j"]}, {"true": ["y"]}),
        ("boolean", {}, {"true": ["y"]}),
    ],
)
def test_rules_may_become_looser_not_tighter(kind: str, looser: dict[str, Any], tighter: dict[str, Any]) -> None:
    loose, tight = fields(a={"type": kind, **looser}), fields(a={"type": kind, **tighter})
    assert effects(loose, tight) == [(DEAD, True)]
    assert effects(tight, loose) == []


@pytest.mark.parametrize("name", ["length", "regex"])
def test_rules_without_an_order_are_tighter_whenever_they_differ(name: str) -> None:
    one, other = ({"length": 5}, {"length": 6}) if name == "length" else ({"regex": "a"}, {"regex": "b"})
    assert effects(fields(a=one), fields(a=other)) == effects(fields(a=other), fields(a=one)) == [(DEAD, True)]


def test_times_that_mean_other_moments_are_told() -> None:
    old, new = fields(a="timestamp"), fields(a={"type": "timestamp", "timezone": "Europe/Berlin"})
    (found,) = consequences(old, new)
    assert (found.effect, found.path) == (LAKE, "fields.a.timezone")
    old, new = fields(a="date"), fields(a={"type": "date", "format": "%d.%m.%Y"})
    assert effects(old, new) == [(DEAD, True)]


def test_a_new_column_in_a_dataset_known_by_its_content_makes_all_rows_new() -> None:
    old = spec(dedupe={"keys": "all"}, fields={"a": "string"})
    new = spec(dedupe={"keys": "all"}, fields={"a": "string", "b": OPTIONAL})
    found = list(consequences(old, new))
    assert [(f.effect, f.breaks) for f in found] == [(KEYS, True), (LAKE, False)]
    assert "the whole content: columns or types of it differ" in found[0].message


class TestFiles:
    def config(self, tmp_path: Path, given: dict[str, Any], name: str = "c.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(given))
        return path

    def files(self, tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> tuple[Path, Path]:
        return self.config(tmp_path, old, "old.yaml"), self.config(tmp_path, new, "new.yaml")

    def test_what_breaks_the_keys_is_what_apply_refuses_without_rekey(self, tmp_path: Path) -> None:
        cases = [{"dedupe": {"keys": ["a"]}}, {"dedupe": {"keys": ["b"]}}, {"primary_key": ["a"]}, {}]
        for old in cases:
            for new in cases:
                first, second = (
                    load([p]) for p in self.files(tmp_path, {"datasets": {"d": old}}, {"datasets": {"d": new}})
                )
                registry = Registry()
                for change in plan(first, registry):
                    registry.feed(change.key, change.value)
                (verdict,) = compare(first, second)
                broken = any(found.effect is KEYS for found in verdict.consequences)
                try:
                    plan(second, registry)
                    refused = False
                except Unpublishable:
                    refused = True
                assert broken == refused == (old != new)

    def test_datasets_that_come_go_and_stay(self, tmp_path: Path) -> None:
        source = {"s3": {"bucket": "abc"}, "route": {"a*": "a", "b*": "b"}}
        old = {"sources": {"s": source}, "datasets": {"gone": {"primary_key": ["id"], "revision": "r"}}}
        new = {"sources": {"s": {**source, "route": {"a*": "a", "b*": "b", "c*": "c"}}}}
        verdicts = compare(*(load([p]) for p in self.files(tmp_path, old, new)))
        assert [(v.dataset, v.kind, v.compatible) for v in verdicts] == [
            ("a", Kind.UNCHANGED, True),
            ("b", Kind.UNCHANGED, True),
            ("c", Kind.ADDED, True),
            ("gone", Kind.LEFT_OUT, True),
        ]

    def test_another_tenant_makes_all_rows_new_and_another_place_splits_the_lake(self, tmp_path: Path) -> None:
        sink = {"lake": {"parquet": {"uri": "s3://out/"}}}
        old = {"sources": {"d": {"s3": {"bucket": "abc"}}}, "sinks": sink}
        tenant = {"sources": {"d": {"s3": {"bucket": "abc"}, "tenant": "acme"}}, "sinks": sink}
        (verdict,) = compare(*(load([p]) for p in self.files(tmp_path, old, tenant)))
        assert [c.effect for c in verdict.consequences] == [KEYS]
        moved = {**old, "sinks": {"lake": {"parquet": {"uri": "s3://elsewhere/"}}}}
        (verdict,) = compare(*(load([p]) for p in self.files(tmp_path, old, moved)))
        assert [c.effect for c in verdict.consequences] == [LAKE]
        assert not compatible([verdict])

    @pytest.mark.parametrize(
        ("new", "code", "words"),
        [
            ({"a": "integer", "b": OPTIONAL}, 0, "d: changed, compatible"),
            ({"a": "string"}, 1, "d: changed, NOT compatible"),
            ({"a": "integer"}, 0, "d: unchanged"),
            ({"a": "text"}, 2, ""),
        ],
    )
    def test_the_command(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        new: dict[str, Any],
        code: int,
        words: str,
    ) -> None:
        def dataset(columns: dict[str, Any]) -> dict[str, Any]:
            return {"datasets": {"d": {"fields": columns, "on_extra": "freeze"}}}

        before, after = self.files(tmp_path, dataset({"a": "integer"}), dataset(new))
        with pytest.raises(SystemExit) as end:
            main(["validate", str(after), "--against", str(before)])
        assert int(end.value.code or 0) == code
        assert words in capsys.readouterr().out
        with pytest.raises(SystemExit) as end:
            main(["validate", str(after), "--against", str(before), "--json"])
        assert int(end.value.code or 0) == code
        told = json.loads(capsys.readouterr().out)
        if code < 2:
            assert told["compatible"] is (code == 0)
            assert told["datasets"][0]["dataset"] == "d"
