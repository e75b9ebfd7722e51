"""The event-parser's stage: what leaves it for an event, how events are gathered, what no input can make it do."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from ingestcore.datasets.provenance import provenance_problem
from ingestcore.datasets.registry import NotSeenYet, Registry
from ingestcore.datasets.spec import DatasetSpec
from ingestcore.datasets.windows import EVENT_WINDOW_SECONDS
from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.events import Event, day_of
from ingestcore.messages.rows import EVENT_FIELDS, TYPED_FIELDS, read
from ingestcore.reasons import Reason
from ingestcore.runtime.recording import dead_letter
from ingestcore.stage import At, Fate, Input, Step
from ingestcore.testing.by_hand import fates, feed, offsets, settle
from ingestcore.testing.harness import Committed
from ingestcore.testing.stage_chain import World
from services.event_parser.stage import EventParser

SPEC = {"primary_key": ["id"], "fields": {"id": "integer", "v": {"type": "float", "required": False}}}
BROKEN = {"fields": {"id": {"from": "a..b"}}}


def parser(**settings: Any) -> EventParser:
    specs = Registry()
    for name, spec in (("orders", SPEC), ("others", SPEC), ("broken", BROKEN)):
        specs.feed(f"dataset/{name}@1", DatasetSpec.model_validate(spec).canonical())
    return EventParser(specs, 4, **settings)


def input_of(offset: int, body: object = None, *, dataset: str = "orders", source: str = "shop", **more: Any) -> Input:
    received = more.pop("received", "2026-01-02T03:04:05.678Z")
    raw = body if isinstance(body, bytes) else json.dumps({"id": offset} if body is None else body).encode()
    day = day_of(tenant="t", source=source, dataset=f"{dataset}@1", received=received, provenance={"purpose": "p"})
    named: dict[str, Any] = {"id": f"e{offset}", "source": "/shop", "type": "t"} | more
    event = Event(**named, body=raw, object=day, received=received)
    return Input(At("events", 0, offset), raw, event.headers(), event.key())


def rows_of(steps: list[Step]) -> list[dict[str, Any]]:
    return [row for step in steps for emit in step.emits for row in read(bytes(emit.value)).to_pylist()]


def test_a_row_knows_its_event() -> None:
    stage = parser()
    sent = input_of(7, {"id": 1, "v": 2}, time="2026-01-01T00:00:00.123456789+01:00")
    assert feed(stage, sent) == []
    (step,) = settle(stage)
    (emit,) = step.emits
    batch = read(bytes(emit.value))
    assert list(batch.schema)[2:] == [*TYPED_FIELDS, *EVENT_FIELDS]
    (row,) = batch.to_pylist()
    assert (row["id"], row["v"], row["_row"]) == (1, 2.0, 7)
    assert row["_hash"] == hashlib.sha256(sent.value).hexdigest()
    assert row["_object"] == sent.headers["object"]
    assert row["_received"].isoformat() == "2026-01-02T03:04:05.678000+00:00"
    assert row["_observed"].isoformat() == "2025-12-31T23:00:00.123456+00:00"
    assert (emit.topic, emit.headers) == ("typed", {"dataset": "orders@1"})


@pytest.mark.parametrize("time", ["", "yesterday", "2026-13-01T00:00:00Z"])
def test_a_time_that_is_none_is_no_time(time: str) -> None:
    stage = parser()
    feed(stage, input_of(0, time=time))
    assert rows_of(settle(stage))[0]["_observed"] is None


def test_events_of_one_dataset_share_messages_whatever_their_source() -> None:
    stage = parser()
    many = [input_of(n, source=("shop", "till")[n % 2]) for n in range(1000)]
    assert feed(stage, *many, *(input_of(n, dataset="others") for n in (1000, 1001))) == []
    first, second = settle(stage)
    assert (offsets([first]), offsets([second])) == (list(range(1000)), [1000, 1001])
    assert len(first.emits) == 4, "one for each partition"
    assert sum(emit.rows for emit in first.emits) == 1000
    assert {line.origin.source for line in first.tally} == {"shop", "till"}
    assert settle(stage) == []


@pytest.mark.parametrize("settings", [{"gather_events": 10}, {"gather_bytes": 100}])
def test_what_is_held_has_a_limit(settings: dict[str, int]) -> None:
    stage = parser(**settings)
    steps = feed(stage, *(input_of(n, {"id": 1}) for n in range(95)))
    assert len(steps) >= 7
    assert offsets([*steps, *settle(stage)]) == list(range(95))


def test_an_abort_forgets_what_is_held() -> None:
    stage = parser()
    feed(stage, input_of(0))
    stage.aborted()
    assert settle(stage) == []
    feed(stage, input_of(0), input_of(1))
    assert offsets(settle(stage)) == [0, 1]


def test_a_version_that_has_not_come_yet_is_waited_for() -> None:
    with pytest.raises(NotSeenYet):
        feed(parser(), input_of(0, dataset="coming"))


def letters_of(steps: list[Step]) -> list[DeadLetter]:
    return [dead_letter(reject, "event-parser", "ingest.events", "") for step in steps for reject in step.rejects]


def test_a_letter_has_the_producers_bytes_and_all_its_headers() -> None:
    stage = parser()
    bad = input_of(3, b'{"id": "x" }\n', attributes={"subject": "s"}, entity="k", idempotency="i", client="192.0.2.1")
    feed(stage, bad, input_of(4))
    steps = settle(stage)
    assert fates(steps) == {Fate.REJECTED: 1, Fate.EMITTED: 1}
    (letter,) = letters_of(steps)
    assert (letter.raw, letter.reason, letter.reentry, letter.offset) == (
        bad.value,
        Reason.VALIDATION_FAIL,
        "events",
        3,
    )
    assert (letter.facts["column"], letter.facts["value"], letter.facts["event_id"]) == ("id", "x", "e3")
    assert letter.object is not None and letter.object.uri == "webhook://shop/2026-01-02"
    told = json.loads(letter.facts["headers"])
    again = told | {n: bad.headers[n] for n in ("object", "first_seen")}
    assert Event.of(letter.raw, again) == Event.of(bad.value, bad.headers)


def test_the_same_bad_event_makes_the_same_letter_and_another_one_does_not() -> None:
    stage = parser()
    same = [input_of(n, b"{", id="e") for n in (0, 1)]
    others = [input_of(2, b"[", id="e"), input_of(3, b"{", id="f"), input_of(4, b"{", id="e", source="till")]
    feed(stage, *same, *others)
    ids = [letter.id for letter in letters_of(settle(stage))]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_a_message_that_is_no_event_is_a_letter_of_its_own() -> None:
    stage = parser()
    strange = [Input(At("events", 2, n), b"x", {"rows": "1"}) for n in (5, 6)]
    letters = letters_of(feed(stage, *strange))
    assert [letter.origin for letter in letters] == ["events/2/5", "events/2/6"]
    assert len({letter.id for letter in letters}) == 2
    assert "'ce_specversion' is missing" in letters[0].message


def test_a_dataset_that_can_take_no_events_refuses_each_with_advice() -> None:
    (letter,) = letters_of(feed(parser(), input_of(0, dataset="broken")))
    assert letter.reason is Reason.SCHEMA_DRIFT
    assert "field id: from: 'a..b' is no path" in letter.message


def test_no_bytes_make_it_fail() -> None:
    """Bodies torn, mixed and mutated: each is a row or a letter, alone as among others."""
    chance = random.Random(11)
    parts = [
        *(b"{", b"}", b'"', b'"id"', b'"v"', b":", b",", b"1", b"e9", b"-", b"[", b"]", b"null", b"true", b"NaN", b" "),
        *(b"\\ud800", b"\\u0000", b"\\u003a", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"9" * 400),
    ]
    bodies = [b"".join(chance.choices(parts, k=chance.randint(0, 12))) for _ in range(3000)]
    sound = b'{"id": 17, "v": 1.5}'
    for _ in range(2000):
        at = chance.randrange(len(sound))
        bodies.append(sound[:at] + chance.choice(parts) + sound[at + chance.randint(0, 3) :])
    stage = parser(gather_events=500)
    steps = feed(stage, *(input_of(n, body) for n, body in enumerate(bodies))) + settle(stage)
    counted = fates(steps)
    assert counted[Fate.EMITTED] + counted[Fate.REJECTED] == len(bodies)
    assert counted[Fate.EMITTED] > 20
    rejected = {line.at.offset for step in steps for line in step.tally if line.fate is Fate.REJECTED}
    for offset in chance.sample(range(len(bodies)), 300):
        alone = parser()
        feed(alone, input_of(offset, bodies[offset]))
        assert (fates(settle(alone))[Fate.REJECTED] == 1) is (offset in rejected), bodies[offset]


def test_the_normalizer_gives_each_event_its_moments_and_a_week(tmp_path: Path) -> None:
    stage = parser()
    feed(stage, input_of(0, dataset="orders", time="2026-01-01T00:00:00Z"), input_of(1), input_of(2, id="e1"))
    emits = [emit for step in settle(stage) for emit in step.emits]
    inputs = Committed(emits=emits).inputs("typed")
    normalizer = World(tmp_path, 0).maker("normalizer", inputs)(Committed())
    normalizer.assigned([0, 1, 2, 3])
    steps = feed(normalizer, *(input for many in inputs.values() for input in many)) + settle(normalizer, final=True)
    published = [emit for step in steps for emit in step.emits if emit.topic == "normalized"]
    entries = [row["_provenance"] for emit in published for row in read(bytes(emit.value)).to_pylist()]
    assert all(provenance_problem(entry) is None for entry in entries)
    moments = {(entry["ingestedAt"], entry["observedAt"]) for entry in entries}
    assert moments == {
        ("2026-01-02T03:04:05.678Z", "2026-01-01T00:00:00.000000Z"),
        ("2026-01-02T03:04:05.678Z", None),
    }
    logged = [emit for step in steps for emit in step.emits if emit.topic == "dedupe-changelog"]
    windows = {int(emit.headers["window_ms"]) for emit in logged}
    assert windows == {int(EVENT_WINDOW_SECONDS * 1000)}
