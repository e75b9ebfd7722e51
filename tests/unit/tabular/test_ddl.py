"""DDL of the lake's tables: DuckDB runs it over files the sink wrote, a parser reads what is meant for the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot
import sqlglot.expressions as exp

from ingestcore.cli.main import main
from ingestcore.datasets.engines import Engine
from ingestcore.datasets.spec import DatasetSpec
from ingestcore.messages.rows import PROVENANCE_TYPE
from ingestcore.tabular.ddl import Table, dataset_table, letters_table, statement
from ingestcore.testing.sink_world import SinkWorld, dead_letter, normalized, object_facts
from services.parquet_sink import wiring
from services.parquet_sink.settings import ParquetSinkSettings

FIELDS = {
    "name": "string",
    'it\'s "odd"': "string",
    "whole": "integer",
    "number": "float",
    "yes": "boolean",
    "day": "date",
    "at": "timestamp",
    "price": "decimal(10,2)",
    "notes": "json",
}
SPEC = DatasetSpec.model_validate({"fields": FIELDS, "on_extra": "freeze"})
COLUMNS = pa.table(
    {
        "name": ["a", "b"],
        'it\'s "odd"': ["x", None],
        "whole": [1, 2],
        "number": [1.5, None],
        "yes": [True, False],
        "day": [date(2024, 5, 1), None],
        "at": pa.array([datetime(2024, 5, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
        "notes": ['{"a": 1}', None],
    }
)
DUCKDB_TYPES = {
    "name": "VARCHAR",
    'it\'s "odd"': "VARCHAR",
    "whole": "BIGINT",
    "number": "DOUBLE",
    "yes": "BOOLEAN",
    "day": "DATE",
    "at": "TIMESTAMP WITH TIME ZONE",
    "price": "DECIMAL(10,2)",
    "notes": "VARCHAR",
}


def written(tmp_path: Path, inputs: list[Any], **sink: Any) -> Path:
    """Write inputs by the sink itself. -> the local folder that stands for `s3://out/lake/`."""
    world = SinkWorld(tmp_path / "state", {0: []})
    world.specs.more |= sink
    stage = wiring.open_sink(world.context(ParquetSinkSettings()), clock=world.clock)
    stage.assigned([0])
    for input in inputs:
        assert list(stage.process(input, None)) == []
    assert list(stage.settle(final=True))
    for key, data in world.files().items():
        path = tmp_path / "out" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "out" / "lake"


def run(table: Table, lake: Path) -> duckdb.DuckDBPyConnection:
    """Execute DuckDB's statement, its address replaced by the local folder."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(statement(Engine.DUCKDB, table).replace("s3://out/lake/", f"{lake}/"))
    return connection


def described(connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    return {name: kind for name, kind, *_ in connection.execute(f'DESCRIBE "{view}"').fetchall()}


def test_duckdbs_view_reads_what_the_sink_writes(tmp_path: Path) -> None:
    facts = object_facts("orders.csv", tenant="acme")
    lake = written(tmp_path, [normalized(0, COLUMNS, [facts])])
    connection = run(dataset_table("orders", SPEC, "s3://out/lake/"), lake)
    types = described(connection, "orders")
    assert {name: types[name] for name in FIELDS} == DUCKDB_TYPES
    assert list(types)[-4:] == ["_provenance", "_row", "ingest_date", "tenant"]
    assert (types["_row"], types["tenant"], types["ingest_date"]) == ("BIGINT", "VARCHAR", "DATE")
    rows = connection.execute('SELECT name, price, tenant, ingest_date, _row, _provenance.purpose FROM "orders"')
    assert rows.fetchall()[0] == ("a", Decimal("1.50"), "acme", date(2023, 11, 14), 1, "test")


def test_duckdbs_view_reads_files_of_older_versions_with_fewer_columns(tmp_path: Path) -> None:
    older, newer = object_facts("a.csv"), object_facts("b.csv", dataset="orders@2")
    lake = written(
        tmp_path,
        [
            normalized(0, pa.table({"name": ["old"]}), [older]),
            normalized(1, pa.table({"name": ["new"], "more": [7]}), [newer]),
        ],
    )
    connection = run(dataset_table("orders", SPEC, "s3://out/lake"), lake)
    assert connection.execute('SELECT name, more FROM "orders" ORDER BY 1').fetchall() == [("new", 7), ("old", None)]


def test_duckdbs_view_reads_dead_letters(tmp_path: Path) -> None:
    letter = dead_letter(0, b"x,y\n", object_facts("orders.csv", tenant="acme"))
    lake = written(tmp_path, [letter], **{"from": "dlq"})
    connection = run(letters_table("s3://out/lake/"), lake)
    found = connection.execute('SELECT reason, raw, tenant, ingest_date FROM "dlq"').fetchall()
    assert found == [("VALIDATION_FAIL", b"x,y\n", "acme", date(2023, 11, 14))]


def parsed(engine: Engine, table: Table) -> tuple[dict[str, exp.DataType], exp.Create]:
    """Read a statement by the engine's grammar. -> its columns and itself."""
    (made,) = (found for found in sqlglot.parse(statement(engine, table), dialect=engine.value) if found)
    assert isinstance(made, exp.Create)
    columns = made.this.expressions
    return {column.name: column.args["kind"] for column in columns}, made


TYPE = exp.DataType.Type
KINDS = {
    "name": {TYPE.TEXT, TYPE.VARCHAR},
    "whole": {TYPE.BIGINT},
    "number": {TYPE.DOUBLE},
    "yes": {TYPE.BOOLEAN},
    "day": {TYPE.DATE},
    "at": {TYPE.TIMESTAMP},
    "price": {TYPE.DECIMAL},
    "notes": {TYPE.TEXT, TYPE.VARCHAR},
    "_row": {TYPE.BIGINT},
    "_provenance": {TYPE.STRUCT},
}


@pytest.mark.parametrize("engine", [Engine.ATHENA, Engine.TRINO])
def test_the_statement_is_grammatical_and_its_columns_have_the_types_of_the_files(engine: Engine) -> None:
    columns, made = parsed(engine, dataset_table("my-orders", SPEC, "s3://out/la'ke", ["b", "a"]))
    assert made.this.this.name == "my_orders"
    assert {*FIELDS, "_provenance", "_row"} <= set(columns)
    for name, kinds in KINDS.items():
        assert columns[name].this in kinds, (name, columns[name])
    assert [part.name for part in columns["_provenance"].expressions] == [field.name for field in PROVENANCE_TYPE]
    assert [literal.this for literal in columns["price"].find_all(exp.Literal)] == ["10", "2"]
    assert "s3://out/la'ke/my-orders/" in {literal.this for literal in made.find_all(exp.Literal)}


def test_athena_computes_its_partitions_of_every_tenant() -> None:
    columns, made = parsed(Engine.ATHENA, dataset_table("orders", SPEC, "s3://out/", ["b", "a", "b"]))
    assert "tenant" not in columns
    folders = made.find(exp.PartitionedByProperty)
    assert folders is not None and [c.name for c in folders.this.expressions] == ["tenant", "ingest_date"]
    properties = {p.name: p.args["value"].name for p in made.find_all(exp.Property) if type(p) is exp.Property}
    assert properties["projection.tenant.values"] == "a,b"
    template = properties["storage.location.template"]
    assert template == "s3://out/orders/tenant=${tenant}/ingest_date=${ingest_date}/"


def test_trino_names_the_folders_as_its_last_columns() -> None:
    columns, made = parsed(Engine.TRINO, dataset_table("orders", SPEC, "s3://out/"))
    assert list(columns)[-2:] == ["tenant", "ingest_date"]
    assert "partitioned_by = ARRAY['tenant', 'ingest_date']" in statement(
        Engine.TRINO, dataset_table("orders", SPEC, "s3://out/")
    )
    assert made.find(exp.Array) is not None


@pytest.mark.parametrize("engine", list(Engine))
def test_the_dead_letters_table_is_grammatical(engine: Engine) -> None:
    statements = sqlglot.parse(statement(engine, letters_table("s3://out/")), dialect=engine.value)
    assert [type(found) for found in statements if found] == [exp.Create]


def test_what_a_statement_cannot_say_is_a_comment() -> None:
    open_ended = DatasetSpec.model_validate({"fields": {"tenant": "string", "*": "float"}})
    text = statement(Engine.ATHENA, dataset_table("orders", open_ended, "s3://out/"))
    comments = [line for line in text.splitlines() if line.startswith("--")]
    assert comments[0] == "-- columns that only the files name are not listed: add them, each double"
    assert "column tenant has the name of a folder column" in comments[1]
    assert text.count("`tenant`") == 1


class TestCommand:
    FILE = (
        "sources: {s: {s3: {bucket: abc}, tenant: acme, route: {'o*': orders, '*': rest}}}\n"
        "datasets: {orders: {primary_key: [id], revision: at, fields: {id: integer, at: timestamp, '*': string}}}\n"
        "sinks: {lake: {parquet: {uri: 's3://out/'}}}\n"
    )

    @pytest.fixture
    def ingest(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Callable[..., tuple[int, str]]:
        monkeypatch.chdir(tmp_path)
        Path("a.yaml").write_text(self.FILE)

        def run(*arguments: str) -> tuple[int, str]:
            with pytest.raises(SystemExit) as end:
                main(arguments)
            return int(end.value.code or 0), capsys.readouterr().out

        return run

    @pytest.mark.parametrize("engine", ["athena", "trino", "duckdb"])
    def test_every_dataset_of_every_sink_has_a_table(self, ingest: Callable[..., Any], engine: str) -> None:
        code, text = ingest("validate", "a.yaml", "--ddl", engine)
        made = [found for found in sqlglot.parse(text, dialect=engine) if isinstance(found, exp.Create)]
        names = [found.find(exp.Table).name for found in made]  # type: ignore[union-attr]
        assert (code, names) == (0, ["orders", "rest", "dlq"])

    def test_json(self, ingest: Callable[..., Any]) -> None:
        _, text = ingest("validate", "a.yaml", "--ddl", "athena", "--json")
        told = json.loads(text)
        assert [(t["sink"], t["table"]) for t in told["tables"]] == [
            ("lake", "orders"),
            ("lake", "rest"),
            ("dlq", "dlq"),
        ]
        assert "'projection.tenant.values' = 'acme'" in told["tables"][0]["sql"]
