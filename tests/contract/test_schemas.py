"""Messages as `schemas/` describes them: every example fits, and is read by everything that reads such a message."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pyarrow as pa
import pytest

from ingestcore.cli.looking import tap_lines
from ingestcore.cli.looking.tap_filters import Filters
from ingestcore.datasets.provenance import provenance_problem
from ingestcore.datasets.registry import Registry
from ingestcore.kafka.reading import as_input
from ingestcore.ledger.audit import Audit
from ingestcore.messages import rows
from ingestcore.messages.blocks import Block
from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.events import Event
from ingestcore.messages.ledger import LedgerRecord
from ingestcore.messages.objects import ObjectFacts, ObjectRef
from ingestcore.observe.metrics import Metrics
from ingestcore.reasons import Reason
from ingestcore.runtime.poison import condemn
from ingestcore.runtime.service import Context
from ingestcore.settings import Platform
from ingestcore.stage import At, Fate, Input, NewerFormat, Step
from ingestcore.testing.by_hand import feed, settle
from ingestcore.testing.harness import Committed
from ingestcore.testing.lister_world import Clock, MemoryLeases, Replica, Topic
from ingestcore.testing.lister_world import MemoryStore as Listable
from ingestcore.testing.memory_store import MemoryStore
from ingestcore.testing.message_schemas import TOPICS, Example, examples, names, problems, schema
from ingestcore.testing.stage_chain import SPECS, World
from services.parquet_sink.checkpoint import Checkpoint as ClaimCheckpoint
from services.parquet_sink.claims import ClaimLog
from services.s3_lister.checkpoint import Checkpoint
from services.s3_lister.settings import ListerSettings
from services.s3_lister.snapshot import Snapshot
from services.s3_lister.snapshot_store import SnapshotStore
from services.s3_lister.source import Lister

OBJECTS = {
    "orders/2026-01-02.csv": b'id,amount,note\n1,2.5,first\n2,,"two\nlines"\n3,x,third\n',
    "logs/app.csv": b"level,text\n# c\ninfo,started\n",
}
"""What the examples of object references speak of."""


def all_examples(*messages: str) -> list[Any]:
    return [pytest.param(e, id=f"{e.message}/{e.name}") for m in messages for e in examples(m)]


def world(folder: Path) -> World:
    made = World(folder, 0)
    for key, data in OBJECTS.items():
        made.store.put("raw", key, data)
    return made


# -- the files


@pytest.mark.parametrize("message", names())
def test_every_message_has_a_sound_schema_and_examples_down_to_the_least(message: str) -> None:
    schema_ = schema(message)
    assert schema_["$id"] == f"urn:ingest:schema:{message}:1"
    found = {example.name for example in examples(message)}
    assert found, "write schemas/examples/<message>/<name>.json"


@pytest.mark.parametrize("example", all_examples("*"))
def test_an_example_fits_its_schema(example: Example) -> None:
    assert problems(example.message, example.document) == []


def test_what_does_not_fit_is_told_with_its_place() -> None:
    block = examples("block")[0].document
    broken = block | {"headers": block["headers"] | {"object": '{"id": 1}', "colour": "red", "row": "x"}}
    found = "\n".join(problems("block", broken))
    for part in ("$.headers.object", "'tenant' is a required property", "colour", "'x' does not match"):
        assert part in found


def test_lists_of_the_code_and_of_the_schemas_agree() -> None:
    assert schema("dead-letter")["$defs"]["reason"]["enum"] == [reason.value for reason in Reason]
    entry = schema("ledger-record")["properties"]["value"]["properties"]["entries"]["items"]
    assert entry["properties"]["fates"]["propertyNames"]["enum"] == [fate.value for fate in Fate]
    assert set(schema("object-facts")["properties"]) == set(ObjectFacts.__slots__)


# -- who reads what


def read_by_the_runtime(example: Example) -> Input:
    """A stand-in for confluent_kafka's Message, which only its client can make."""
    named = [(name, text.encode()) for name, text in example.document["headers"].items()]
    input = example.input(TOPICS[example.message])
    answers = {
        "headers": named, "topic": "ingest.x", "partition": 0, "offset": 0, "value": input.value, "key": input.key,
        "timestamp": (2, input.timestamp_ms),
    }  # fmt: skip
    message: Any = SimpleNamespace(**{name: (lambda answer=answer: answer) for name, answer in answers.items()})
    read = as_input(message, input.at.topic)
    assert read == input
    return read


def run_stage(service: str, input: Input, folder: Path) -> list[Step]:
    """One input through a stage as its service builds it. -> its steps, every row of the promise accounted for."""
    place = input.at[:2]
    stage = world(folder).maker(service, {place: [input]})(Committed())
    stage.assigned([0])
    steps = [*until_done(lambda: stage.process(input, None)), *settle(stage, final=True)]
    counted = sum(line.rows for step in steps for line in step.tally)
    if input.rows is not None:
        assert counted == input.rows
    assert any(step.resume is None and input.at in step.covers for step in steps), "the input is finished"
    return steps


def until_done(job: Callable[[], Iterator[Step | None]]) -> list[Step]:
    return feed(SimpleNamespace(process=lambda *_: job()), Input(At("", 0, 0), b"", {}))  # type: ignore[arg-type]


@pytest.mark.parametrize("example", all_examples(*TOPICS))
def test_the_runtime_reads_it_and_stops_at_a_newer_format(example: Example) -> None:
    read_by_the_runtime(example)
    newer = example.document | {"headers": example.document["headers"] | {"format": "2"}}
    with pytest.raises(NewerFormat, match="upgrade it"):
        read_by_the_runtime(Example(example.message, example.name, newer))


@pytest.mark.parametrize("example", all_examples(*TOPICS))
def test_tap_shows_it_without_a_problem(example: Example) -> None:
    input = read_by_the_runtime(example)
    shown = list(tap_lines.lines(input, tap_lines.Asked(Filters(), whole=False)))
    assert shown and not [line for line in shown if "problem" in line]


@pytest.mark.parametrize("example", all_examples("object-ref", "block", "event", "typed", "normalized"))
def test_it_can_be_dead_lettered_whole(example: Example) -> None:
    """What the runtime reads of an input to say whose rows are lost with it."""
    step = condemn(read_by_the_runtime(example), "some-service", "it failed")
    assert step.tally[0].origin.source == "s"


@pytest.mark.parametrize("example", all_examples("object-facts"))
def test_facts_are_read(example: Example) -> None:
    assert ObjectFacts.decode(example.raw.decode()).table == "orders"


@pytest.mark.parametrize("example", all_examples("object-ref"))
def test_the_downloader_reads_references(example: Example, tmp_path: Path) -> None:
    input = read_by_the_runtime(example)
    assert ObjectRef.decode(input.value).key in OBJECTS
    steps = run_stage("chunk-downloader", input, tmp_path)
    assert sum(emit.rows for step in steps for emit in step.emits) > 0
    audit = Audit()
    audit.listed(ObjectRef.decode(input.value))
    assert [o.origin.id for o in audit.objects()] == [ObjectRef.decode(input.value).id]


@pytest.mark.parametrize("example", all_examples("block"))
def test_the_parser_reads_blocks(example: Example, tmp_path: Path) -> None:
    input = read_by_the_runtime(example)
    block = Block.of(input.headers)
    assert problems("object-facts", orjson.loads(block.object.encode())) == []
    run_stage("csv-parser", input, tmp_path)


@pytest.mark.parametrize("example", all_examples("event"))
def test_the_event_parser_reads_events(example: Example, tmp_path: Path) -> None:
    input = read_by_the_runtime(example)
    event = Event.of(input.value, input.headers)
    assert (event.headers(), event.key()) == (input.headers, input.key), "written again as it was"
    run_stage("event-parser", input, tmp_path)


@pytest.mark.parametrize("example", all_examples("typed"))
def test_the_normalizer_reads_typed_rows(example: Example, tmp_path: Path) -> None:
    assert plain_rows(example.value) == example.document["rows"]
    steps = run_stage("normalizer", read_by_the_runtime(example), tmp_path)
    assert {emit.topic for step in steps for emit in step.emits} == {"normalized", "dedupe-changelog"}


@pytest.mark.parametrize("example", all_examples("normalized"))
def test_the_parquet_sink_reads_normalized_rows(example: Example, tmp_path: Path) -> None:
    assert plain_rows(example.value) == example.document["rows"]
    for row in example.document["rows"]:
        assert problems("provenance", {n: v for n, v in row["_provenance"].items() if v is not None}) == []
    run_stage("parquet-sink", read_by_the_runtime(example), tmp_path)


@pytest.mark.parametrize("example", all_examples("dedupe-changelog"))
def test_the_normalizer_restores_its_keys_from_the_changelog(example: Example, tmp_path: Path) -> None:
    """A row whose key stands in the changelog is a duplicate."""
    keys = example.document["keys"]
    assert base64.b64decode(example.document["value_base64"]).hex() == "".join(keys)
    typed = next(e for e in examples("typed") if e.name == "orders-0").input("typed")
    known = {row["_key"] for row in plain_rows(typed.value)} & set(keys)
    changelog = read_by_the_runtime(example)
    inputs = {("typed", 0): [typed], ("dedupe-changelog", 0): [changelog]}
    stage = world(tmp_path).maker("normalizer", inputs)(Committed())
    stage.assigned([0])
    steps = [*feed(stage, typed), *settle(stage, final=True)]
    duplicates = sum(line.rows for step in steps for line in step.tally if line.fate is Fate.DUPLICATE)
    assert duplicates == len(known)


@pytest.mark.parametrize("example", all_examples("dead-letter"))
def test_the_lake_of_dead_letters_reads_letters(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPECS, "sink/lake", {"parquet": {"uri": "s3://out/dlq/", "max_age": 0}, "from_": "dlq"})
    input = read_by_the_runtime(example)
    letter = DeadLetter.of(input.value, input.headers)
    assert letter.id == input.headers["id"] == input.key.hex()
    run_stage("parquet-sink", input, tmp_path)


@pytest.mark.parametrize("example", all_examples("ledger-record"))
def test_the_audit_reads_ledger_records(example: Example) -> None:
    record = LedgerRecord.decode(read_by_the_runtime(example).value)
    assert orjson.loads(record.encode()) == example.document["value"]
    audit = Audit()
    audit.take(record)
    assert [found.origin for found in audit.objects()] == [record.origin]


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ("config-source", "source/a"),
        ("config-sink", "sink/a"),
        ("config-dataset", "dataset/a@2"),
        ("config-pointer", "dataset/a"),
    ],
)
def test_the_registry_reads_specs(message: str, key: str) -> None:
    for example in examples(message):
        registry = Registry()
        registry.feed(key, example.raw)
        found = [*registry.sources().values(), *registry.sinks().values(), *registry.datasets().values()]
        if message != "config-pointer":
            assert orjson.loads(found[0].canonical()) == example.document, "written again as it was"


@pytest.mark.parametrize("example", all_examples("provenance"))
def test_provenance_is_judged_by_the_same_schema(example: Example) -> None:
    assert provenance_problem(example.document) is None


# -- what is kept outside Kafka


@pytest.mark.parametrize("example", all_examples("lister-checkpoint"))
def test_the_lister_goes_on_from_a_checkpoint(example: Example, tmp_path: Path) -> None:
    """`start_after` and the snapshot decide what is listed and what counts as seen."""
    text = example.raw.decode()
    checkpoint = Checkpoint.decode(text)
    clock, store = Clock(), Listable()
    store.buckets |= {"lake": {}, "out": {}}
    for number in (40, 41, 42):
        store.add("lake", f"raw/2026-01-02/{number:04}.csv")
    seen = Snapshot("lake", ())
    if checkpoint.snapshot:
        store.put(*checkpoint.snapshot.removeprefix("s3://").split("/", 1), seen.encode())
    leases, topic, registry = MemoryLeases(clock), Topic(), Registry()
    leases.checkpoints["default:s3-main"] = text
    registry.feed("source/s3-main", orjson.dumps({"s3": {"bucket": "lake", "prefix": "raw/"}}))
    registry.feed("sink/lake", orjson.dumps({"parquet": {"uri": "s3://out/"}}))
    nothing: Any = SimpleNamespace()
    context = Context(
        Platform(), ListerSettings(), "s3-lister", registry, nothing, Metrics(), tmp_path, lambda spec: store
    )
    lister = Lister("s3-main", context, leases, now=clock.now, monotonic=clock.monotonic, renew_beside=False)
    Replica(lister, topic).finish_pass()
    assert topic.found() == [f"raw/2026-01-02/{n:04}.csv" for n in (40, 41, 42) if n > 41 or not checkpoint.start_after]
    written = leases.checkpoints["default:s3-main"]
    assert problems("lister-checkpoint", orjson.loads(written)) == []
    assert orjson.loads(written)["fence"] > checkpoint.fence
    snapshot = orjson.loads(store.get(*orjson.loads(written)["snapshot"].removeprefix("s3://").split("/", 1)))
    assert problems("lister-snapshot", snapshot) == []


@pytest.mark.parametrize("example", all_examples("lister-snapshot"))
def test_the_lister_reads_snapshots_part_by_part(example: Example) -> None:
    store = MemoryStore("out")
    store.put("out", "snapshot.json", example.raw)
    entries = [["raw/a.csv", "e", "orders", 0], ["raw/b.csv", "e", "orders", 0]]
    for number, part in enumerate(example.document["parts"]):
        lines = entries if number == 0 else [["raw/c.csv", "e", "orders", 1], ["raw/d.csv", "e", "orders", 0]]
        data = gzip.compress(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        store.put("out", part["uri"].removeprefix("s3://out/"), data)
    snapshots = SnapshotStore(store, "s3://out/")
    snapshot = snapshots.read("s3://out/snapshot.json")
    wanted = ["raw/a.csv", "raw/b.csv", "raw/d.csv"] if example.document["parts"] else []
    assert [entry.key for entry in snapshots.entries(snapshot.parts)] == wanted
    assert orjson.loads(snapshot.encode()) == example.document


@pytest.mark.parametrize("done", all_examples("claim-done"))
@pytest.mark.parametrize("claim", all_examples("claim"))
def test_the_parquet_sink_reads_its_claims(claim: Example, done: Example) -> None:
    store = MemoryStore("out")
    store.put("out", "claims/id/0/00000000.json", claim.raw)
    store.put("out", "claims/id/0/00000000.done", done.raw)
    log = ClaimLog(store, "out", "", "id/0")
    log.load()
    assert orjson.loads(log.claims[0].encode()) == claim.document
    assert log.unfinished() == []
    assert log.repeats(log.claims[0]).runs == tuple(map(tuple, done.document.get("repeats", ())))
    assert b"".join(log.ids_since(0)) == base64.b64decode(done.document.get("ids", ""))


@pytest.mark.parametrize("example", all_examples("claim-checkpoint"))
def test_the_parquet_sink_reads_checkpoints_of_its_claims(example: Example) -> None:
    store = MemoryStore("out")
    store.put("out", "checkpoints/id/0/99999935.json", example.raw)
    log = ClaimLog(store, "out", "", "id/0")
    log.load()
    assert log.entries == example.document["entries"]
    assert orjson.loads(ClaimCheckpoint.decode(example.raw, "x").encode()) == example.document


def plain_rows(value: bytes) -> list[dict[str, Any]]:
    """-> rows of an Arrow message as an example shows them: bytes in hex, moments as ISO texts."""
    batch = rows.read(value)
    plain = [c.dictionary_decode() if isinstance(c, pa.DictionaryArray) else c for c in batch.columns]
    columns = [c.to_pylist() for c in plain]
    return [{n: _plain(v) for n, v in zip(batch.schema.names, row, strict=True)} for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime) else value
