"""Specs as read from the configuration topic."""

from pathlib import Path

import pytest

from ingestcore.datasets.registry import RESOLVED_SECONDS, NotSeenYet, Registry
from ingestcore.datasets.secrets import Unusable
from ingestcore.stage import OperatorNeeded

SOURCE = b'{"s3": {"bucket": "lake", "secret_access_key": "${S3_SECRET}"}}'


def test_references_stay_unresolved_for_tools_and_are_resolved_for_services(tmp_path: Path) -> None:
    tool, service = Registry(), Registry({"S3_SECRET": "hush"})
    for registry in (tool, service):
        registry.feed("source/s", SOURCE)
    assert tool.source("s").s3.secret_access_key == "${S3_SECRET}"
    assert service.source("s").s3.secret_access_key == "hush"
    assert service.sources()["s"].s3.secret_access_key == "${S3_SECRET}"


def test_a_missing_secret_is_the_operators_business() -> None:
    registry = Registry({})
    registry.feed("source/s", SOURCE)
    with pytest.raises(OperatorNeeded, match="S3_SECRET"):
        registry.source("s")


def test_a_changed_spec_is_resolved_anew() -> None:
    registry = Registry({"A": "1", "B": "2"})
    registry.feed("source/s", b'{"s3": {"bucket": "lake", "region": "${A}"}}')
    assert registry.source("s").s3.region == "1"
    registry.feed("source/s", b'{"s3": {"bucket": "lake", "region": "${B}"}}')
    assert registry.source("s").s3.region == "2"


def test_a_secret_written_anew_is_noticed(tmp_path: Path) -> None:
    secret, now = tmp_path / "secret", [0.0]
    secret.write_text("old")
    registry = Registry({}, clock=lambda: now[0])
    registry.feed("source/s", b'{"s3": {"bucket": "lake", "secret_access_key": "${file:%s}"}}' % bytes(secret))
    assert registry.source("s").s3.secret_access_key == "old"
    secret.write_text("new")
    now[0] = RESOLVED_SECONDS / 2
    assert registry.source("s").s3.secret_access_key == "old"
    now[0] = RESOLVED_SECONDS
    assert registry.source("s").s3.secret_access_key == "new"


def test_what_is_wrong_with_a_resolved_spec_is_said_without_its_values() -> None:
    registry = Registry({"BUCKET": "x/hush-hush"})
    registry.feed("sink/lake", b'{"parquet": {"uri": "s3://${BUCKET}/"}}')
    with pytest.raises(Unusable, match=r"parquet.uri: .*\$\{BUCKET\} gives here") as caught:
        registry.sink("lake")
    assert "hush-hush" not in str(caught.value)


def test_versions_of_a_dataset_stay_and_the_pointer_moves() -> None:
    registry = Registry()
    with pytest.raises(NotSeenYet):
        registry.current("x")
    registry.feed("dataset/x@1", b"{}")
    registry.feed("dataset/x", b'{"version": 1}')
    registry.feed("dataset/x@2", b'{"primary_key": ["id"]}')
    registry.feed("dataset/x", b'{"version": 2}')
    assert registry.current("x") == "x@2"
    assert registry.dataset("x@1").primary_key == ()
    assert registry.dataset("x@2").primary_key == ("id",)
    registry.feed("dataset/x", None)
    with pytest.raises(NotSeenYet):
        registry.current("x")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        Registry().feed("webhook/x", b"{}")
