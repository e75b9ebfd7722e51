"""The body of an event: one JSON object, read strictly. What else it may be is said in words, with a code. Pure.

Refused, beside what is no JSON (RFC 8259): a name that stands twice in an object, NaN and Infinity, a number beyond a
64-bit float's range, lone surrogates, NUL characters (which databases refuse), nesting deeper than a limit.
"""

from __future__ import annotations

import base64
import json
from enum import StrEnum
from typing import Any, Final

import orjson

from ingestcore.messages.events import STRUCTURED, Event

MAX_DEPTH: Final = 64
"""Levels of objects and arrays inside each other; orjson writes 254 at most."""

_WRITTEN_OTHERWISE: Final = b"\\u003"
"""Escapes of `:` begin so: where one occurs, colons can't be counted."""
_NUL: Final = b"\\u0000"


class Fault(StrEnum):
    """Why a body is none. Stands in the fact `fault` of a dead letter."""

    EMPTY = "empty"
    NOT_UTF8 = "not_utf8"
    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_NAME = "duplicate_name"
    NOT_A_NUMBER = "not_a_number"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    LONE_SURROGATE = "lone_surrogate"
    NUL = "nul"
    TOO_DEEP = "too_deep"
    NO_DATA = "no_data"


class Unfit(ValueError):
    """No event can be read from these bytes. The message says what is wrong and what the producer should send."""

    def __init__(self, fault: Fault, message: str) -> None:
        self.fault = fault
        super().__init__(message)


class Written(str):
    """A number as it is written, where that matters."""


def payload(event: Event, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """-> what the event's row is made of: the body, or of a structured CloudEvent its `data`. Raises Unfit."""
    body = read_object(event.body, max_depth)
    return _data(body, max_depth) if is_structured(event) else body


def exact_payload(event: Event) -> Any:
    """-> the same, of a body that `payload` has read; numbers that may have lost digits are Written."""
    body = json.loads(event.body, parse_float=Written, parse_int=_integer)
    if not is_structured(event):
        return body
    if "data" in body:
        return body["data"]
    return json.loads(base64.b64decode(body["data_base64"]), parse_float=Written, parse_int=_integer)


def is_structured(event: Event) -> bool:
    """Whether the body is a whole CloudEvent."""
    return event.content_type.partition(";")[0].strip().lower() == STRUCTURED


def read_object(data: bytes, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """-> the one JSON object. Raises Unfit."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _unreadable(data, error, max_depth) from None
    if type(value) is not dict:
        raise Unfit(Fault.NOT_AN_OBJECT, f"the body is {kind(value)}, not a JSON object: send one event as {{...}}")
    if deeper(data, value, max_depth):
        raise _too_deep(max_depth)
    refuse_repeated_names(data, value)
    if _NUL in data:
        _refuse_nul(value)
    return value


def _data(envelope: dict[str, Any], max_depth: int) -> dict[str, Any]:
    data = envelope.get("data")
    if type(data) is dict:
        return data
    if "data" in envelope:
        raise Unfit(Fault.NOT_AN_OBJECT, f"`data` of the CloudEvent is {kind(data)}, not a JSON object")
    if "data_base64" not in envelope:
        raise Unfit(Fault.NO_DATA, "the CloudEvent has no `data`: there is no row in it")
    try:
        return read_object(base64.b64decode(envelope["data_base64"], validate=True), max_depth)
    except (TypeError, ValueError) as error:
        if isinstance(error, Unfit):
            raise
        raise Unfit(Fault.INVALID_JSON, f"`data_base64` of the CloudEvent is no base64 ({error})") from error


def _integer(text: str) -> Any:
    """-> the number, or, beyond 64 bits, its text."""
    if len(text) > 20:
        return Written(text)
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 64 else Written(text)


def as_json(value: Any) -> bytes:
    """-> compact JSON; a number that is Written stands as it is."""
    return orjson.dumps(value, default=_fragment, option=orjson.OPT_PASSTHROUGH_SUBCLASS)


def _fragment(value: Any) -> orjson.Fragment:
    return orjson.Fragment(str(value))


def _unreadable(data: bytes, error: orjson.JSONDecodeError, max_depth: int) -> Unfit:
    said = str(error)
    if not data.strip():
        return Unfit(Fault.EMPTY, "the body is empty: send one JSON object")
    try:
        text = data.decode()
    except UnicodeDecodeError as fault:
        return Unfit(Fault.NOT_UTF8, f"the body is not UTF-8 (byte {fault.start}): send JSON in UTF-8")
    if "\0" in text:
        return Unfit(Fault.NUL, f"the body holds a NUL byte (byte {text.index(chr(0))}): send JSON text")
    if "depth limit" in said:
        return _too_deep(max_depth)
    if "surrogate" in said:
        return Unfit(Fault.LONE_SURROGATE, f"half of a surrogate pair stands alone: {said}; no text can hold that")
    if "infinity" in said:
        return Unfit(Fault.NUMBER_OUT_OF_RANGE, f"a number is beyond the range of 64-bit floats: {said}")
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except Unfit as fault:
        return fault
    except (ValueError, RecursionError):
        pass
    return Unfit(Fault.INVALID_JSON, f"the body is not JSON: {said}")


def _refuse_constant(text: str) -> None:
    raise Unfit(Fault.NOT_A_NUMBER, f"{text} is not JSON: send null, or leave the member out")


def _too_deep(max_depth: int) -> Unfit:
    return Unfit(Fault.TOO_DEEP, f"objects and arrays lie more than {max_depth} levels inside each other")


def kind(value: Any) -> str:
    """-> in words, of a JSON value that is no object."""
    if value is None:
        return "null"
    kinds = {list: "an array", str: "a string", bool: "a boolean"}
    return kinds.get(type(value), "a number")


def deeper(data: bytes, value: Any, levels: int) -> bool:
    """Whether more than so many levels lie inside each other. value: what was read from `data`."""
    if data.count(b"{") + data.count(b"[") <= levels:
        return False
    here = [value]
    for _ in range(levels):
        here = [part for whole in here for part in _parts(whole) if type(part) in (dict, list)]
        if not here:
            return False
    return True


def _parts(value: Any) -> Any:
    return value.values() if type(value) is dict else value


def refuse_repeated_names(data: bytes, value: Any) -> None:
    """value: what orjson has read from `data`. Raises Unfit: a name stands twice in one object."""
    # What is dropped of a name that stands twice holds at least its own colon.
    if _WRITTEN_OTHERWISE in data or data.count(b":") != _colons(value):
        json.loads(data, object_pairs_hook=_distinct, parse_int=_integer)


def _colons(value: Any) -> int:
    """-> how many are in its JSON; -1: it is too deep to be written."""
    try:
        return orjson.dumps(value).count(b":")
    except orjson.JSONEncodeError:
        return -1


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Unfit(Fault.DUPLICATE_NAME, f"the name {twice[:64]!r} stands twice in one object: which value is meant?")
    return made


def _refuse_nul(value: Any) -> None:
    here = [value]
    while here:
        part = here.pop()
        if type(part) is str:
            if "\0" in part:
                raise Unfit(Fault.NUL, f"the text {part[:64]!r} holds a NUL character: databases take none")
        elif type(part) is dict:
            here += part
            here += part.values()
        elif type(part) is list:
            here += part
