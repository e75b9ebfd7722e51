"""The Postgres sink's stage on a real Postgres: what lands, what is refused, what a row read again changes."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from devstack import Stack
from ingestcore.messages.rows import read
from ingestcore.runtime.recording import dead_letter
from ingestcore.stage import Fate, OperatorNeeded, Step
from ingestcore.testing.database_world import DatabaseWorld, Run, fates, reasons
from ingestcore.testing.sink_world import normalized, object_facts
from services.postgres_sink.database import Database
from services.postgres_sink.failures import Away, CircuitOpen, TimedOut
from services.postgres_sink.stage import PostgresSinkStage

Open = Callable[..., DatabaseWorld]


@pytest.fixture
def open_world(postgres: Stack) -> Open:
    return lambda **spec: DatabaseWorld(postgres.endpoints.postgres, **spec)


def stage(world: DatabaseWorld, silence: float = 5.0) -> PostgresSinkStage:
    return PostgresSinkStage(
        "warehouse",
        world.sink_spec,
        world.dataset,
        lambda: world.topic_id,
        lambda place: Database("warehouse", place, silence),
        clock=lambda: world.now,
    )


def orders(*rows: tuple[int, int | None]) -> dict[str, Any]:
    return {"id": [i for i, _ in rows], "revision": pa.array([r for _, r in rows], pa.int64())}


def table(world: DatabaseWorld, columns: str = "id, revision") -> list[tuple[Any, ...]]:
    return world.sql(f"SELECT {columns} FROM orders ORDER BY 1, 2")


# -- tables and types
def test_a_table_is_made_and_every_type_comes_back(open_world: Open) -> None:
    world = open_world()
    fields = {
        "id": "string",
        "n": "integer",
        "x": "float",
        "yes": "boolean",
        "day": "date",
        "at": "timestamp",
        "price": "decimal(20,3)",
        "body": "json",
    }
    world.datasets["orders@1"] = {"primary_key": ["id"], "fields": fields}
    noon = datetime.datetime(2024, 2, 29, 12, 30, 1, 123456, tzinfo=datetime.UTC)
    values: list[dict[str, Any]] = [
        {
            "id": 'tab\tline\nback\\slash \\N \\. \r\n\\.\n"quotes" ü🙂',
            "n": -(1 << 63),
            "x": 1e-300,
            "yes": True,
            "day": datetime.date(1899, 12, 31),
            "at": noon,
            "price": decimal.Decimal("-12345678901234567.891"),
            "body": '{"a": [1, null, "x\\ty"]}',
        },
        dict.fromkeys(fields) | {"id": ""},
        {"id": "\\N", "n": 1, "x": 0.1, "yes": False, "day": noon.date(), "at": noon, "price": None, "body": "[]"},
    ]
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("n", pa.int64()),
            ("x", pa.float64()),
            ("yes", pa.bool_()),
            ("day", pa.date32()),
            ("at", pa.timestamp("us", "UTC")),
            ("price", pa.decimal128(20, 3)),
            ("body", pa.string()),
        ]
    )
    step = Run(stage(world)).give(world.rows(pa.Table.from_pylist(values, schema), first_row=7))
    assert fates(step) == {Fate.DELIVERED: 3}
    found = {row[0]: row for row in world.sql("SELECT id, n, x, yes, day, at, price, body FROM orders")}
    bodies: list[Any] = [{"a": [1, None, "x\ty"]}, None, []]
    for value, body in zip(values, bodies, strict=True):
        assert found[value["id"]] == (*(value[name] for name in fields if name != "body"), body)
    [place] = world.sql(
        "SELECT _tenant, _row, encode(_key, 'escape'), _provenance ->> 'sourceUri', _provenance ? 'parentId', "
        "_topic_id, _partition, _offset, _index, extract(epoch FROM _ingested_at)::float FROM orders WHERE id = ''"
    )
    assert place == ("default", 8, "0000000000000001", "s3://bucket/raw/orders.csv", False, "topic-1", 0, 0, 1, 1.7e9)
    [[types]] = world.sql(
        "SELECT array_agg(format_type(atttypid, atttypmod) ORDER BY attnum) FROM pg_attribute "
        "WHERE attrelid = 'orders'::regclass AND attnum BETWEEN 1 AND 8"
    )
    assert types == [
        *("text", "bigint", "double precision", "boolean", "date"),
        *("timestamp with time zone", "numeric(20,3)", "jsonb"),
    ]


def test_tenants_with_the_same_primary_key_are_kept_apart(open_world: Open) -> None:
    world = open_world()
    step = Run(stage(world)).give(world.rows(orders((1, 1))), world.rows(orders((1, 5)), tenant="acme"))
    assert fates(step) == {Fate.DELIVERED: 2}
    assert table(world, "revision, _tenant") == [(1, "default"), (5, "acme")]


def test_without_a_primary_key_every_key_is_a_row(open_world: Open) -> None:
    world = open_world()
    world.datasets["orders@1"] = {}
    run, first = Run(stage(world)), world.rows({"text": ["a", "a", "b"]})
    for _ in range(2):
        assert fates(run.give(first)) == {Fate.DELIVERED: 3}
    run.give(world.rows({"text": ["c"]}))
    assert world.sql("SELECT text FROM orders ORDER BY 1") == [("a",), ("a",), ("b",), ("c",)]


def test_a_new_version_adds_columns(open_world: Open) -> None:
    world = open_world()
    run = Run(stage(world))
    run.give(world.rows(orders((1, 1), (2, 1))))
    world.datasets["orders@2"] = {**world.datasets["orders@1"]}
    run.give(world.rows({**orders((1, 2)), "note": ["x"]}, dataset="orders@2"), world.rows(orders((3, 1))))
    assert table(world, "id, revision, note") == [(1, 2, "x"), (2, 1, None), (3, 1, None)]


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "not there": ("", {"create": False}, "there is no table .*orders: CREATE TABLE IF NOT EXISTS .*create: true"),
    "lacks a column": (
        "CREATE TABLE orders (id bigint, _tenant text, PRIMARY KEY (id, _tenant))",
        {"alter": "none"},
        'it lacks revision, _key.*: ALTER TABLE .* ADD COLUMN .*"revision" bigint.*or `alter: additive`',
    ),
    "another type": (
        "CREATE TABLE orders (id bigint, revision date, _tenant text, PRIMARY KEY (id, _tenant))",
        {},
        "column revision is date, the dataset's is bigint: change it by hand",
    ),
    "no key": (
        "CREATE TABLE orders (id bigint, revision bigint)",
        {},
        r"no unique index on \(id, _tenant\): CREATE UNI",
    ),
    "a key that may be null": (
        "CREATE TABLE orders (id bigint, _tenant text NOT NULL, UNIQUE (id, _tenant))",
        {},
        'column id of the key may be null: ALTER TABLE .*orders" ALTER COLUMN "id" SET NOT NULL',
    ),
    "demands more": (
        "CREATE TABLE orders (id bigint, _tenant text, owner text NOT NULL, PRIMARY KEY (id, _tenant))",
        {},
        "column owner may not be null and no row has it",
    ),
    "nowhere to note late rows": (
        "CREATE TABLE orders (id bigint, revision bigint, _tenant text, PRIMARY KEY (id, _tenant))",
        {"create": False},
        "there is no table .*_ingest_late: CREATE TABLE IF NOT EXISTS .*create: true",
    ),
}


@pytest.mark.parametrize(("made", "spec", "message"), REFUSED.values(), ids=REFUSED)
def test_a_table_that_does_not_fit_is_refused_until_it_does(
    open_world: Open, made: str, spec: dict[str, Any], message: str
) -> None:
    world = open_world(**spec)
    if made:
        world.sql(made)
    before = world.sql(
        "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE relname = 'orders'"
    )
    run, input = Run(stage(world)), world.rows(orders((1, 1)))
    with pytest.raises(OperatorNeeded, match=message):
        run.give(input)
    assert before == world.sql(
        "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE relname = 'orders'"
    )
    world.sql("DROP TABLE IF EXISTS orders")
    world.spec |= {"create": True}
    assert fates(run.retry(lambda: run.give(input))) == {Fate.DELIVERED: 1}


def test_an_operators_own_table_with_narrower_types_is_used(open_world: Open) -> None:
    world = open_world(alter="additive")
    world.sql(
        "CREATE TABLE orders (id integer NOT NULL, _tenant varchar NOT NULL, revision smallint, mine text DEFAULT 'x')"
    )
    world.sql("CREATE UNIQUE INDEX ON orders (_tenant, id)")
    step = Run(stage(world)).give(world.rows(orders((1, 1), (2, 1 << 40), (3, 3))))
    assert fates(step) == {Fate.DELIVERED: 2, Fate.REJECTED: 1}
    assert "out of range" in step.rejects[0].message
    assert table(world, "id, revision, mine") == [(1, 1, "x"), (3, 3, "x")]


def test_a_table_that_is_dropped_is_made_again(open_world: Open) -> None:
    world = open_world()
    run = Run(stage(world))
    run.give(world.rows(orders((1, 1))))
    world.sql("DROP TABLE orders")
    input = world.rows(orders((2, 1)))
    with pytest.raises(OperatorNeeded, match="does not exist"):
        run.give(input)
    run.retry(lambda: run.give(input))
    assert table(world) == [(2, 1)]


# -- revisions
def test_an_older_revision_never_overwrites(open_world: Open) -> None:
    world = open_world()
    run = Run(stage(world))
    run.give(world.rows(orders((1, 5), (2, 5), (3, None))))
    step = run.give(world.rows(orders((1, 4), (2, 5), (3, 1), (4, 1)), first_row=10))
    assert fates(step) == {Fate.DELIVERED: 2, Fate.STALE: 2}
    assert reasons(step.rejects) == [("OLDER_REVISION", "10")]
    assert step.rejects[0].fate is Fate.STALE and step.rejects[0].audience == "warehouse"
    step = run.give(world.rows(orders((3, None)), first_row=20))
    assert reasons(step.rejects) == [("OLDER_REVISION", "20")]
    assert table(world) == [(1, 5), (2, 5), (3, 1), (4, 1)]


def test_of_several_rows_of_an_entity_in_one_batch_the_newest_counts(open_world: Open) -> None:
    world = open_world()
    run = Run(stage(world))
    run.give(world.rows(orders((1, 3))))
    late = world.rows(orders((1, 2), (1, 5), (2, 1), (2, 3), (2, 2), (1, 5), (3, None), (3, None)), first_row=10)
    step = run.give(late)
    assert fates(step) == {Fate.DELIVERED: 3, Fate.STALE: 5}
    assert reasons(step.rejects) == [("OLDER_REVISION", "10"), ("OLDER_REVISION", "14")]
    assert table(world, "id, revision, _row") == [(1, 5, 11), (2, 3, 13), (3, None, 17)]


def test_without_a_revision_the_later_row_counts(open_world: Open) -> None:
    world = open_world()
    world.datasets["orders@1"] = {"primary_key": ["id"]}
    run = Run(stage(world))
    first, second = world.rows({"id": [1, 1, 2], "v": ["a", "b", "c"]}), world.rows({"id": [1], "v": ["d"]})
    assert fates(run.give(first)) == {Fate.DELIVERED: 2, Fate.STALE: 1}
    run.give(second)
    step = run.give(first)
    assert fates(step) == {Fate.DELIVERED: 1, Fate.STALE: 2} and step.rejects == []
    world.topic_id = "made-anew"
    run.stage.assigned([0])
    run.give(world.rows({"id": [2], "v": ["e"]}, offset=0, timestamp_ms=1_800_000_000_000))
    assert table(world, "id, v") == [(1, "d"), (2, "e")]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch_size", [3, 1000])
def test_rows_in_any_order_and_read_again_end_the_same(open_world: Open, seed: int, batch_size: int) -> None:
    """Which batches rows fall into decides neither the table nor the letters."""
    chance = random.Random(seed)
    versions = [(i, r) for i in range(40) for r in range(1, 6)]
    chance.shuffle(versions)
    world = open_world(batch_size=batch_size)
    parts = [versions[i : i + 17] for i in range(0, len(versions), 17)]
    inputs = [world.rows(orders(*part), first_row=1 + 17 * n) for n, part in enumerate(parts)]
    late = {
        str(row)
        for row, (i, r) in enumerate(versions, 1)
        if any(other == i and higher > r for other, higher in versions[: row - 1])
    }
    run = Run(stage(world))
    letters: set[str] = set()
    for begin in (0, 0, 5):
        todo = inputs[begin:]
        while todo:
            count = chance.randint(1, 4)
            step = run.give(*todo[:count])
            letters |= {row for reason, row in reasons(step.rejects) if reason == "OLDER_REVISION"}
            todo = todo[count:]
    assert table(world) == [(i, 5) for i in range(40)]
    assert letters == late


def test_a_reset_brings_deleted_rows_back_and_nothing_else(open_world: Open) -> None:
    world = open_world()
    run = Run(stage(world))
    inputs = [world.rows(orders(*((i, n) for i in range(100)))) for n in (1, 2)] + [world.rows(orders((0, 1)))]
    first = [run.give(input) for input in inputs]
    before = world.sql("SELECT *, xmin FROM orders WHERE id >= 10 ORDER BY id")
    gone = world.sql("SELECT * FROM orders WHERE id < 10 ORDER BY id")
    world.sql("DELETE FROM orders WHERE id < 10")
    again = [run.give(input) for input in inputs]
    assert world.sql("SELECT * FROM orders WHERE id < 10 ORDER BY id") == gone
    assert world.sql("SELECT *, xmin FROM orders WHERE id >= 10 ORDER BY id") == before
    assert [reasons(step.rejects) for step in first] == [reasons(step.rejects) for step in again]
    assert [sum(fates(step).values()) for step in again] == [100, 100, 1]


# -- poison
@pytest.mark.parametrize("count", [1, 2, 100])
def test_refused_rows_are_found_and_the_rest_lands(open_world: Open, count: int) -> None:
    world = open_world()
    run = Run(stage(world))
    run.give(world.rows(orders((-1, 1))))
    world.sql("ALTER TABLE orders ADD CONSTRAINT not_seven CHECK (revision <> 7)")
    bad = set(random.Random(count).sample(range(1000), count))
    input = world.rows(orders(*((i, 7 if i in bad else 1) for i in range(1000))), first_row=0)
    step = run.give(input)
    assert fates(step) == {Fate.DELIVERED: 1000 - count, Fate.REJECTED: count}
    assert {int(row) for _, row in reasons(step.rejects)} == bad
    [reject, *_] = step.rejects
    assert reject.reason == "CONSTRAINT_VIOLATION" and 'violates check constraint "not_seven"' in reject.message
    single = read(reject.raw)
    assert single.num_rows == 1 and single.column("revision").to_pylist() == [7]
    assert world.sql("SELECT count(*) FROM orders") == [(1001 - count,)]
    world.sql("ALTER TABLE orders DROP CONSTRAINT not_seven")
    assert fates(run.give(input)) == {Fate.DELIVERED: 1000}, "read again without it, they land"
    assert world.sql("SELECT count(*) FROM orders") == [(1001,)]


def test_events_with_one_number_in_two_partitions_have_two_letters(open_world: Open) -> None:
    world = open_world()
    world.datasets["orders@1"] = {}
    day = dataclasses.replace(object_facts("x"), uri="webhook://shop/2026-01-02")
    bad = [normalized(n, pa.table({"text": ["nul\0"]}), [day], partition=n, first_row=7) for n in (0, 1)]
    step = Run(stage(world)).give(*bad)
    letters = {dead_letter(reject, "postgres-sink", "ingest.normalized", "").id for reject in step.rejects}
    assert fates(step) == {Fate.REJECTED: 2} and len(letters) == 2


def test_a_text_postgres_can_not_hold_is_refused_alone(open_world: Open) -> None:
    world = open_world()
    world.datasets["orders@1"] = {"primary_key": ["id"], "fields": {"id": "integer", "body": "json", "*": "string"}}
    rows = {"id": [1, 2, 3, None], "body": ["{}", '"\\u0000"', "{}", "{}"], "text": ["a", "b", "nul\0", "d"]}
    step = Run(stage(world)).give(world.rows(rows, first_row=1))
    assert fates(step) == {Fate.DELIVERED: 1, Fate.REJECTED: 3}
    assert reasons(step.rejects) == [("CONSTRAINT_VIOLATION", str(row)) for row in (2, 3, 4)]


def test_where_the_newest_row_is_refused_the_one_before_lands(open_world: Open) -> None:
    world = open_world()
    run = Run(stage(world))
    run.give(world.rows(orders((1, 1))))
    world.sql("ALTER TABLE orders ADD CHECK (revision < 6)")
    step = run.give(world.rows(orders((1, 2), (1, 4), (1, 9), (1, 7), (2, 9)), first_row=10))
    assert fates(step) == {Fate.DELIVERED: 1, Fate.STALE: 1, Fate.REJECTED: 3}
    assert table(world) == [(1, 4)]
    step = run.give(world.rows(orders((3, 9), (3, 1), (3, 2)), first_row=20))
    assert reasons(step.rejects) == [("CONSTRAINT_VIOLATION", "20")], "nothing is late after what is not there"
    assert table(world) == [(1, 4), (3, 2)]


# -- outages
def test_a_lock_that_is_held_too_long_is_waited_out(open_world: Open) -> None:
    world = open_world(statement_timeout="300ms")
    run, input = Run(stage(world)), world.rows(orders((1, 2)))
    run.give(world.rows(orders((1, 1))))
    import psycopg

    with psycopg.connect(world.url) as other:
        other.execute(f"LOCK TABLE {world.schema}.orders")
        with pytest.raises(TimedOut, match="timeout") as caught:
            run.give(input)
        assert caught.value.reason == "SINK_TIMEOUT" and caught.value.wait_seconds == 0
    run.retry(lambda: run.give(input))
    assert table(world) == [(1, 2)]


def test_the_circuit_opens_is_half_open_after_a_while_and_closes(open_world: Open, postgres: Stack) -> None:
    world = open_world(open_after=3, half_open_after="30s")
    sink = stage(world)
    run, input = Run(sink), world.rows(orders((1, 1)))
    postgres.kill("postgres")
    for kind, wait_seconds in ((Away, 0), (Away, 0), (CircuitOpen, 30)):
        with pytest.raises(kind, match="Postgres of sink warehouse") as caught:
            run.retry(lambda: run.give(input))
        assert caught.value.wait_seconds == wait_seconds
    assert sink.circuit_open() and sink.status()["circuit"] == "open"
    with pytest.raises(CircuitOpen, match="next try in 30 s"):
        run.retry(lambda: run.give(input))
    world.now += 29
    with pytest.raises(CircuitOpen, match="next try in 1 s"):
        run.retry(lambda: run.give(input))
    world.now += 2
    assert sink.status()["circuit"] == "half-open"
    with pytest.raises(CircuitOpen, match=r"Postgres of sink warehouse, table .* next try in 30 s"):
        run.retry(lambda: run.give(input))
    postgres.restart("postgres")
    with pytest.raises(CircuitOpen, match="again and again"):
        run.retry(lambda: run.give(input))
    world.now += 30
    run.retry(lambda: run.give(input))
    assert not sink.circuit_open() and table(world) == [(1, 1)]


def test_rows_may_be_dead_lettered_instead_of_waited_for(open_world: Open, postgres: Stack) -> None:
    world = open_world(open_after=2, on_outage="dead_letter")
    run, step = Run(stage(world)), None
    run.give(world.rows(orders((1, 1))))
    postgres.kill("postgres")
    input, more = world.rows(orders((2, 1), (3, 1)), first_row=20), world.rows(orders((4, 1)), first_row=40)
    with pytest.raises(Away):
        run.give(input)
    step = run.retry(lambda: run.give(input))
    assert fates(step) == {Fate.REJECTED: 2}
    assert reasons(step.rejects) == [("CONNECTION_ERROR", "20"), ("CONNECTION_ERROR", "21")]
    assert {(reject.audience, reject.reentry) for reject in step.rejects} == {("warehouse", "normalized")}
    assert reasons(run.give(more).rejects) == [("CIRCUIT_OPEN", "40")]
    postgres.restart("postgres")
    world.now += 31
    run.give(world.rows(orders((5, 1))))
    assert table(world) == [(1, 1), (5, 1)]
    assert fates(run.give(input, more)) == {Fate.DELIVERED: 3}, "read again, they land"
    assert table(world) == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]


def test_a_server_that_says_nothing_is_hung_up_on(open_world: Open) -> None:
    world = open_world(statement_timeout="1s")
    run = Run(stage(world, silence=0.5))
    run.give(world.rows(orders((1, 1))))
    # Its own time limit is off: as if it were frozen.
    world.sql(
        "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql SET statement_timeout = 0 AS "
        "$$BEGIN IF NEW.id = 2 THEN PERFORM pg_sleep(20); END IF; RETURN NEW; END$$"
    )
    world.sql("CREATE TRIGGER sleep BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION sleep()")
    world.spec["statement_timeout"] = "20s"
    run = Run(stage(world, silence=-19.0))
    with pytest.raises(TimedOut, match="no answer for 1 s"):
        run.give(world.rows(orders((2, 1))))


def test_wrong_credentials_and_databases_are_an_operators_business(open_world: Open) -> None:
    world = open_world()
    for dsn, words in (
        (world.url.rpartition("/")[0] + "/nowhere", "does not exist"),
        (world.url.replace("postgres@", "nobody@"), "does not exist"),
        ("postgresql://[", "is no address"),
    ):
        world.spec["dsn"] = dsn
        run = Run(stage(world))
        with pytest.raises(OperatorNeeded, match=words):
            run.give(world.rows(orders((1, 1))))


def test_datasets_of_other_sinks_pass(open_world: Open) -> None:
    world = open_world()
    world.sink["datasets"] = ["others"]
    step: Step = Run(stage(world)).give(world.rows(orders((1, 1))))
    assert fates(step) == {Fate.NOT_FOR_US: 1}
