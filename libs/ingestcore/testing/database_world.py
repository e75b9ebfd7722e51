"""The world of a Postgres sink: its own schema in a real database, its specs, its stage driven by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg
import pyarrow as pa
from psycopg import sql

from ingestcore.datasets.registry import NotSeenYet
from ingestcore.datasets.spec import DatasetSpec, SinkSpec
from ingestcore.messages.objects import ObjectFacts
from ingestcore.stage import Fate, Input, Reject, Stage, Step, check
from ingestcore.testing.sink_world import NOON_MS, normalized, object_facts

ORDERS: Final = {"primary_key": ["id"], "revision": "revision"}
_SCHEMAS = itertools.count()


class DatabaseWorld:
    """One schema and what stands in it. `spec`: of the sink's `postgres:`; `datasets`: by `name@version`."""

    def __init__(self, url: str, **spec: Any) -> None:
        self.url = url
        self.schema = f"test_{next(_SCHEMAS)}"
        self.spec: dict[str, Any] = {"dsn": url, "schema": self.schema, **spec}
        self.sink: dict[str, Any] = {}
        self.datasets: dict[str, dict[str, Any]] = {"orders@1": dict(ORDERS)}
        self.topic_id = "topic-1"
        self.now = 1000.0
        self._offsets = itertools.count()
        self.sql(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        self.sql(f"CREATE SCHEMA {self.schema}")

    def sql(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement in the schema. -> its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("SELECT set_config('search_path', {}, false)").format(sql.Literal(self.schema)))
            done = connection.execute(text, values or None)
            return done.fetchall() if done.description else []

    def sink_spec(self) -> SinkSpec:
        return SinkSpec.model_validate({"postgres": self.spec, **self.sink})

    def dataset(self, name: str) -> DatasetSpec:
        if name not in self.datasets:
            raise NotSeenYet(name)
        return DatasetSpec.model_validate(self.datasets[name])

    def rows(self, columns: dict[str, Any], *, name: str = "orders.csv", tenant: str = "default", **more: Any) -> Input:
        """-> a message with these columns, at the next offset."""
        dataset = more.pop("dataset", "orders@1")
        facts: Sequence[ObjectFacts] = [object_facts(name, tenant=tenant, dataset=dataset)]
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        offset = more.pop("offset", None)
        offset = next(self._offsets) if offset is None else offset
        more = {"timestamp_ms": NOON_MS + offset, "first_row": offset * 1000, **more}
        return normalized(offset, table, facts, **more)


class Run:
    """A stage, and what it has said."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.steps: list[Step] = []
        stage.assigned([0])

    def give(self, *inputs: Input) -> Step:
        """Take inputs and commit. -> the step that covers them all."""
        steps = [step for input in inputs for step in self.stage.process(input, None) if step is not None]
        steps += self.stage.settle(final=False)
        for step in steps:
            check(step)
        self.stage.committed()
        self.steps += steps
        return steps[-1]

    def retry(self, give: Callable[[], Step]) -> Step:
        """As the runtime does after an error."""
        self.stage.aborted()
        return give()


def fates(step: Step) -> dict[Fate, int]:
    """-> rows by fate."""
    found: dict[Fate, int] = {}
    for line in step.tally:
        found[line.fate] = found.get(line.fate, 0) + line.rows
    return found


def reasons(rejects: Sequence[Reject]) -> list[tuple[str, str]]:
    """-> (reason, row) of letters."""
    return sorted((reject.reason.value, reject.facts["row"]) for reject in rejects)
