"""Messages as the stages really make them fit `schemas/`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingestcore.datasets.config_file import load
from ingestcore.datasets.publish import plan
from ingestcore.datasets.registry import Registry
from ingestcore.messages import rows
from ingestcore.reasons import Reason
from ingestcore.runtime.poison import condemn
from ingestcore.runtime.recording import (
    LEDGER_HEADERS,
    Delivery,
    LedgerBook,
    dead_letter,
    emitted,
    headers,
    lettered,
)
from ingestcore.stage import Reject, Step
from ingestcore.testing.message_schemas import TOPICS, problems, schema
from ingestcore.testing.stage_chain import Chain
from services.parquet_sink.checkpoint import Checkpoint as ClaimCheckpoint
from services.parquet_sink.claim import Claim

CHECKOUT = Path(__file__).parents[2]


NOW = "2026-01-02T03:04:05.678Z"


def added(service: str, chain: Chain, number: int) -> dict[str, str]:
    """Headers as the runtime makes them for a step that covers one input, or many, or none."""
    one = next(iter(chain.inputs[service].values()))[0]
    deliveries = [Delivery(one, "b8f1a2c3d4e5f607", 0)] * (number % 3)
    lines = chain.committed[service].tally[:3]
    return headers(Step((), lines), deliveries, NOW)


def test_messages_of_all_stages_fit_their_schemas(chain: Chain) -> None:
    messages = {topic: message for message, topic in TOPICS.items()}
    met = set()
    for service, made in chain.committed.items():
        for number, emit in enumerate(made.emits):
            message = messages[emit.topic]
            met.add(message)
            shown = {"value": ""} if message == "block" else {"value_base64": "", **listed(message)}
            document = {"headers": emitted(emit, added(service, chain, number)), **shown}
            assert problems(message, document | ({"key": emit.key.hex()} if emit.key else {})) == []
            if number % 20 == 0 and message in ("typed", "normalized"):
                platform_columns_are_as_declared(message, bytes(emit.value))
    assert met == {"block", "typed", "normalized", "dedupe-changelog"}


def listed(message: str) -> dict[str, list[Any]]:
    return {"keys": []} if message == "dedupe-changelog" else {"rows": []}


def platform_columns_are_as_declared(message: str, value: bytes) -> None:
    batch = rows.read(value)
    declared = rows.TYPED_FIELDS if message == "typed" else rows.NORMALIZED_FIELDS
    if rows.RECEIVED in batch.schema.names:
        declared += rows.EVENT_FIELDS
    assert {f.name: f.type for f in batch.schema if f.name.startswith("_")} == {f.name: f.type for f in declared}
    own = schema(message)["properties"]["rows"]["description"]
    assert [f.name for f in declared if f"`{f.name}`" not in own] == []


def test_dead_letters_of_all_stages_fit_their_schema(chain: Chain) -> None:
    rejects: list[tuple[str, Reject]] = [
        (service, reject) for service, made in chain.committed.items() for reject in made.rejects
    ]
    poison = next(iter(chain.inputs["csv-parser"].values()))[0]
    rejects += [("csv-parser", condemn(poison, "csv-parser", "it failed").rejects[0])]
    kinds = {reject.reason for _, reject in rejects}
    assert kinds >= {Reason.SCHEMA_DRIFT, Reason.OBJECT_CORRUPT, Reason.VALIDATION_FAIL, Reason.INTERNAL_ERROR}
    for number, (service, reject) in enumerate(rejects[:: max(1, len(rejects) // 100)] + rejects[-3:]):
        letter = dead_letter(reject, service, "ingest.blocks", NOW)
        document = {"key": letter.id, "headers": lettered(letter, added(service, chain, number)), "value": ""}
        assert problems("dead-letter", document) == []


def test_ledger_records_of_all_stages_fit_their_schema(chain: Chain) -> None:
    for service, made in chain.committed.items():
        book = LedgerBook(service, service, "0")
        book.add(Step(tuple({line.at for line in made.tally}), made.tally))
        known = {i.at: Delivery(i, "c0ffee", 0) for many in chain.inputs[service].values() for i in many}
        records = book.records(known, {})
        assert records
        for record in records:
            document = {
                "key": record.origin.id,
                "headers": dict(LEDGER_HEADERS),
                "value": orjson.loads(record.encode()),
            }
            assert problems("ledger-record", document) == []


def test_references_of_objects_fit_their_schema(chain: Chain) -> None:
    for input in itertools.chain(*chain.inputs["chunk-downloader"].values()):
        document = {"key": input.key.hex(), "headers": headers(Step((), ()), (), NOW)}
        assert problems("object-ref", document | {"value": orjson.loads(input.value)}) == []


def test_claims_fit_their_schemas(chain: Chain) -> None:
    store = chain.worlds["parquet-sink"].store
    claims = [e.key for e in store.list("out", "x/_ingest/claims/")]
    assert {key.rpartition(".")[2] for key in claims} == {"json", "done"}
    for key in claims:
        message = "claim-done" if key.endswith(".done") else "claim"
        assert problems(message, orjson.loads(store.get("out", key))) == []
    claim = Claim.decode(0, store.get("out", claims[1]), "")
    summed = ClaimCheckpoint.none().plus(1, [claim.offsets], [], [bytes(16)], 0)
    assert problems("claim-checkpoint", orjson.loads(summed.encode())) == []


@pytest.mark.parametrize("file", sorted((CHECKOUT / "examples").glob("*.*")), ids=lambda path: path.name)
def test_specs_as_applied_fit_their_schemas(file: Path) -> None:
    changes = plan(load([file]), Registry())
    assert changes
    for change in changes:
        kind, _, name = change.key.partition("/")
        message = "config-pointer" if kind == "dataset" and "@" not in name else f"config-{kind}"
        assert change.value is not None
        assert problems(message, orjson.loads(change.value)) == [], change.key
