"""JSON as it is taken: strict, flat enough, each key once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson

from ingestcore.tabular.event_body import Unfit, deeper, kind, refuse_repeated_names
from services.webhook_gateway.problems import Kind, Problem

_SAID_CHARACTERS: Final = 100
_BOM: Final = b"\xef\xbb\xbf"


def read_object(text: bytes, max_depth: int) -> dict[str, Any]:
    """-> the JSON object of an event. Raises Problem."""
    value = _strict(text)
    if not isinstance(value, dict):
        raise Problem(Kind.NOT_AN_OBJECT, f"it is {kind(value)}")
    if deeper(text, value, max_depth):
        raise Problem(Kind.TOO_DEEP, f"more than {max_depth} levels")
    try:
        refuse_repeated_names(text, value)
    except Unfit as error:
        raise Problem(Kind.DUPLICATE_KEYS, str(error)) from None
    return value


def _strict(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if not text.strip():
            raise Problem(Kind.EMPTY_BODY) from None
        said = str(error)
        if "depth" in said or "recursion" in said:
            raise Problem(Kind.TOO_DEEP, "more than 1000 levels") from None
        if text.startswith(_BOM):
            raise Problem(Kind.INVALID_JSON, "it begins with a byte order mark") from None
        raise Problem(Kind.INVALID_JSON, said[:_SAID_CHARACTERS]) from None


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
