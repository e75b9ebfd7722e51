"""JSON as it is taken: strict, flat enough, each key once. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson

from services.webhook_gateway.problems import Kind, Problem

_SAID_CHARACTERS: Final = 100
_BOM: Final = b"\xef\xbb\xbf"


class _Twice(ValueError):
    """A key stands twice."""


def read_object(text: bytes, max_depth: int) -> dict[str, Any]:
    """-> the JSON object of an event. Raises Problem."""
    if not text.strip():
        raise Problem(Kind.EMPTY_BODY)
    value = _strict(text)
    if not isinstance(value, dict):
        raise Problem(Kind.NOT_AN_OBJECT, f"it is {_called(value)}")
    if text.count(b"{") + text.count(b"[") > max_depth and _depth(value) > max_depth:
        raise Problem(Kind.TOO_DEEP, f"more than {max_depth} levels")
    _refuse_doubled_keys(text)
    return value


def _strict(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        said = str(error)
        if "depth" in said or "recursion" in said:
            raise Problem(Kind.TOO_DEEP, "more than 1000 levels") from None
        if text.startswith(_BOM):
            raise Problem(Kind.INVALID_JSON, "it begins with a byte order mark") from None
        raise Problem(Kind.INVALID_JSON, said[:_SAID_CHARACTERS]) from None


def _refuse_doubled_keys(text: bytes) -> None:
    try:
        json.loads(text, object_pairs_hook=_each_once)
    except _Twice as error:
        raise Problem(Kind.DUPLICATE_KEYS, str(error)) from None
    except ValueError:
        # A number longer than int() reads: orjson, whose verdict counts, took it as a float.
        return


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Twice(f"{twice[:_SAID_CHARACTERS]!r} stands twice")


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        inner = (part for one in level for part in (one.values() if isinstance(one, dict) else one))
        level = [part for part in inner if isinstance(part, dict | list)]
    return depth


def items_of_array(text: bytes, max_items: int) -> Sequence[bytes]:
    """-> each element of a JSON array, its bytes untouched. Raises Problem."""
    if not text.strip():
        raise Problem(Kind.EMPTY_BODY)
    try:
        found = msgspec.json.decode(text, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        if not text.lstrip().startswith(b"["):
            raise Problem(Kind.INVALID_JSON, "a batch is a JSON array, or NDJSON with its media type") from None
        raise Problem(Kind.INVALID_JSON, str(error)[:_SAID_CHARACTERS]) from None
    return _counted([bytes(one) for one in found], max_items)


def items_of_lines(text: bytes, max_items: int) -> Sequence[bytes]:
    """-> each line of NDJSON that is not blank. Raises Problem."""
    return _counted([line for line in text.split(b"\n") if line.strip()], max_items)


def _counted(items: list[bytes], max_items: int) -> Sequence[bytes]:
    if not items:
        raise Problem(Kind.EMPTY_BODY, "the batch holds no event")
    if len(items) > max_items:
        raise Problem(Kind.TOO_LARGE, f"the batch holds {len(items)} events, {max_items} are taken at once")
    return items


def _called(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
