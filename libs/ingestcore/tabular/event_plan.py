"""A dataset version meets events: what is read from where in a body, and which members a body may have besides."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from ingestcore.datasets.event_paths import Path, path_of
from ingestcore.datasets.spec import DatasetSpec, FieldSpec, OnExtra
from ingestcore.tabular.plan import Column
from ingestcore.tabular.rules import rules_of

_SHOWN = 12
"""Names listed in a message at most."""


@dataclass(frozen=True)
class EventPlan:
    """How events are read for one dataset version, and one set of members that no field names.

    columns  declared fields in declared order, then the rest by name; `place`: of the column's path
    paths    where each is
    heads    members of a body that some path leads into
    whole    a field holds the whole body: no member is left over
    schema   of the rows
    """

    spec: DatasetSpec
    columns: tuple[Column, ...]
    paths: tuple[Path, ...]
    heads: frozenset[str]
    whole: bool
    schema: pa.Schema

    @classmethod
    def of(cls, spec: DatasetSpec, rest: tuple[str, ...] = ()) -> EventPlan:
        """rest: names of further members, see `surplus`. Raises ValueError: the spec is none for events."""
        fields: dict[str, tuple[Path, FieldSpec]] = {}
        for name, field in spec.named.items():
            try:
                fields[name] = path_of(name, field.from_), field
            except ValueError as error:
                raise ValueError(f"field {name}: {error}") from error
        paths = [path for path, _ in fields.values()]
        if spec.rest is not None:
            fields |= {name: (path_of(name, None), spec.rest) for name in rest}
        columns = tuple(
            Column(place, path.text, name, field, rules_of(name, field))
            for place, (name, (path, field)) in enumerate(fields.items())
        )
        return cls(
            spec=spec,
            columns=columns,
            paths=tuple(path for path, _ in fields.values()),
            heads=frozenset(path.head for path in paths if path.head),
            whole=any(path.whole for path in paths),
            schema=pa.schema([(column.name, column.type) for column in columns]),
        )

    def surplus(self, members: Collection[str]) -> tuple[tuple[str, ...], str]:
        """Members of a body -> (those that become columns of `"*"`, by name; why the body is refused, or "").

        The plan is the one without any rest.
        """
        extra = sorted(set(members) - self.heads)
        if self.spec.rest is not None:
            return tuple(extra), self._unfit(extra) or self._without_key(extra)
        if not extra or self.whole or self.spec.on_extra is not OnExtra.FREEZE:
            return (), ""
        return (), (
            f"members the dataset does not name: {_listed(extra)}. Add them to `fields`, allow them with "
            '`"*"`, or set `on_extra: discard_value`'
        )

    def _unfit(self, extra: list[str]) -> str:
        """Members that would go out under their own names."""
        ours = [name for name in extra if name.startswith("_") or not name]
        if ours:
            return (
                f"names of members that are empty or start with _ can't be columns: {_listed(ours)}. Rename them with "
                "a field that has `from:`, e.g. `key: {from: _key}`"
            )
        clash = [name for name in extra if name in self.spec.named]
        if clash:
            return (
                f"member {_listed(clash)} would go out under the name of a field that is read from "
                f"{self.spec.named[clash[0]].from_!r}. Give the member a field of its own with `from:`, or rename the "
                "field"
            )
        return ""

    def _without_key(self, extra: list[str]) -> str:
        """Key columns that only the body can provide."""
        spec = self.spec
        listed = spec.dedupe.keys if isinstance(spec.dedupe.keys, tuple) else ()
        wanted = dict.fromkeys((*spec.primary_key, *listed, *filter(None, (spec.revision,))))
        missing = [name for name in wanted if name not in spec.named and name not in extra]
        return f"key column missing: {_listed(missing)}; the body has {_listed(extra)}" if missing else ""


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:64]) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
