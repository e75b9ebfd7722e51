"""What `ingest up` refuses of references before it starts anything: what is missing, not what a source says itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestcore.datasets.config_file import load
from ingestcore.datasets.secrets import SecretMissing
from ingestcore.fleet.bring_up import check_references


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_WEBHOOK_SECRET", "POSTGRES_URL", "NOT_SET_HERE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("{http: {}}", ""),  # its source answers 503 until the variable is set
        ("{sinks: {warehouse: {postgres: {}}}}", ""),  # a Postgres is started
        ("{sinks: {warehouse: {postgres: {dsn: '${NOT_SET_HERE}'}}}}", "sinks.warehouse: .*NOT_SET_HERE is not set"),
    ],
    ids=["webhooks without a secret", "no POSTGRES_URL", "a missing variable"],
)
def test_a_missing_reference_is_refused(tmp_path: Path, text: str, refused: str) -> None:
    file = tmp_path / "ingest.yaml"
    file.write_text(text)
    config = load([file])
    if not refused:
        check_references(config)
        return
    with pytest.raises(SecretMissing, match=refused):
        check_references(config)
