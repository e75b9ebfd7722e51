"""`schemas/`: the JSON Schema of every message, and the examples of it. Texts that hold JSON are judged by what they
hold, which plain JSON Schema leaves to its reader."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry, Resource

from ingestcore.stage import At, Input

TOPICS = {
    "object-ref": "objects",
    "block": "blocks",
    "event": "events",
    "typed": "typed",
    "normalized": "normalized",
    "dedupe-changelog": "dedupe-changelog",
    "dead-letter": "dlq",
    "ledger-record": "ledger",
}
"""Kafka messages with headers -> logical topic."""

FOLDER = Path(__file__).resolve().parents[3] / "schemas"


@dataclass(frozen=True)
class Example:
    """One file below `schemas/examples/<message>/`."""

    message: str
    name: str
    document: dict[str, Any]

    @property
    def raw(self) -> bytes:
        """-> the document itself, for what is no Kafka message."""
        return orjson.dumps(self.document)

    @property
    def value(self) -> bytes:
        """-> value of the Kafka message."""
        if "value_base64" in self.document:
            return base64.b64decode(self.document["value_base64"])
        value = self.document["value"]
        return value.encode() if isinstance(value, str) else orjson.dumps(value)

    def input(self, topic: str) -> Input:
        """-> as a stage would be given it: partition 0, offset 0. A key that is an id is bytes on the wire."""
        text = "" if topic == "ledger" else self.document.get("key", "")
        key = text.encode() if topic == "events" else bytes.fromhex(text)
        return Input(At(topic, 0, 0), self.value, self.document["headers"], key, 1_767_323_045_000)


def names() -> list[str]:
    """-> messages that have a schema."""
    return sorted(path.name.removesuffix(".schema.json") for path in FOLDER.glob("*.schema.json"))


def examples(message: str = "*") -> list[Example]:
    paths = sorted(FOLDER.glob(f"examples/{message}/*.json"))
    return [Example(path.parent.name, path.stem, orjson.loads(path.read_bytes())) for path in paths]


def schema(message: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((FOLDER / f"{message}.schema.json").read_bytes())
    return found


def problems(message: str, document: Any) -> list[str]:
    """-> what is wrong with a document, each with its place; nothing where it fits its schema."""
    return [f"{error.json_path}: {error.message}" for error in _validator(message).iter_errors(document)]


@cache
def _validator(message: str) -> Any:
    registry: Registry[Any] = Registry().with_resources(
        (schema(name)["$id"], Resource.from_contents(schema(name))) for name in names()
    )
    return _Validator(schema(message), registry=registry)


def _content(validator: Any, content: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "string"):
        return
    try:
        held = orjson.loads(instance)
    except orjson.JSONDecodeError as error:
        yield ValidationError(f"no JSON: {error}")
        return
    yield from validator.descend(held, content)


_extended: Any = validators.extend
_Validator: Any = _extended(Draft202012Validator, {"contentSchema": _content})
