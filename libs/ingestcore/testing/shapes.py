"""Shapes of generated rows: their text as CSV, their typed values, and rows broken in known ways. Pure.

All of a row follows from its id, so repeating an id repeats the row byte for byte, and text and typed values come from
the same numbers without parsing anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.datasets.spec import DatasetSpec

Ids = NDArray[np.uint64]
Text = NDArray[np.uint8]
"""One row of bytes per record, padded with NUL bytes that are taken out when the file is written."""

_FIRST_DAY: Final = np.datetime64("2021-01-01")
_DAYS: Final = 1500
_COUNTRIES: Final = re.findall("..", "ATAUBEBRCACHCNCZDEDKEGESFIFRGBINITJPKEMXNLNOPLSEUSZA")
_WORDS: Final = re.findall(
    r"\S+",
    "order parcel express standard gift return invoice fragile customer warehouse pickup delayed reviewed priority "
    "second floor please ring paid partly missing label weekend evening Zürich café señor naïve",
)
_NOTES: Final = 2048
_EXTRA_NOTE: Final = 44


class BadKind(StrEnum):
    """How a row is broken. The value names the column at fault where there is one."""

    INTEGER = "integer"
    FLOAT = "float"
    TIMESTAMP = "timestamp"
    NULL = "null"
    RULE_MIN = "rule_min"
    RULE_LENGTH = "rule_length"
    TOO_FEW_FIELDS = "too_few_fields"
    TOO_MANY_FIELDS = "too_many_fields"
    INVALID_UTF8 = "invalid_utf8"


class Shape(Protocol):
    """One kind of rows."""

    columns: tuple[str, ...]
    spec: dict[str, Any]
    """The dataset as an operator writes it; `DatasetSpec` reads it."""
    chunk_rows: int
    breaks: tuple[tuple[BadKind, str], ...]
    """Ways to break a row, each with the column at fault (`""`: the whole row)."""

    def render(self, ids: Ids) -> Text:
        """-> one NUL-padded row of text per id, without the line end."""

    def table(self, ids: Ids) -> pa.Table:
        """-> the typed rows, in the columns' order."""

    def broken(self, id: int, kind: BadKind, column: str) -> bytes:
        """-> the bytes of a row broken in this way, without the line end."""


class Narrow:
    """Six columns, about 94 bytes a row: id, timestamp, user, amount, country, note.

    tricky  notes with newlines, delimiters and doubled quotes inside quotes, and stray quotes outside
    """

    columns: tuple[str, ...] = ("id", "timestamp", "user", "amount", "country", "note")
    chunk_rows = 65_536
    breaks: tuple[tuple[BadKind, str], ...] = (
        (BadKind.INTEGER, "id"),
        (BadKind.TIMESTAMP, "timestamp"),
        (BadKind.NULL, "user"),
        (BadKind.FLOAT, "amount"),
        (BadKind.RULE_MIN, "amount"),
        (BadKind.RULE_LENGTH, "country"),
        (BadKind.TOO_FEW_FIELDS, ""),
        (BadKind.TOO_MANY_FIELDS, ""),
        (BadKind.INVALID_UTF8, "note"),
    )
    spec: dict[str, Any] = {  # noqa: RUF012 - a literal, never changed
        "primary_key": ["id"],
        "revision": "timestamp",
        "on_extra": "freeze",
        "fields": {
            "id": "integer",
            "timestamp": "timestamp",
            "user": {"type": "string", "nullable": False, "pii": True},
            "amount": {"type": "float", "min": 0},
            "country": {"type": "string", "length": 2},
            "note": "string",
        },
    }

    def __init__(self, seed: int, *, tricky: bool = False) -> None:
        self._salt = np.uint64(seed)
        texts, values = _tricky_notes(seed) if tricky else _plain_notes(seed)
        self._note_text, self._note_values = _padded(texts), pa.array(values, pa.string())
        days = _FIRST_DAY + np.arange(_DAYS)
        self._day_text = _padded([str(day) for day in days])
        self._second_text = _padded(
            [f"T{h:02}:{m:02}:{s:02}Z" for h in range(24) for m in range(60) for s in range(60)]
        )
        self._whole_text = _padded([str(n) for n in range(20_000)])
        self._cent_text = _padded([f".{n:02}" for n in range(100)])
        self._country_text = _padded(_COUNTRIES)

    def render(self, ids: Ids) -> Text:
        part = self._parts(ids)
        comma = np.full((len(ids), 1), ord(","), np.uint8)
        prefix = np.broadcast_to(np.frombuffer(b"user-", np.uint8), (len(ids), 5))
        return np.hstack(
            (
                _digits(ids, 10),
                comma,
                self._day_text[part["day"]],
                self._second_text[part["second"]],
                comma,
                prefix,
                _digits(part["user"], 7),
                comma,
                self._whole_text[part["whole"]],
                self._cent_text[part["cent"]],
                comma,
                self._country_text[part["country"]],
                comma,
                self._note_text[part["note"]],
            )
        )

    def table(self, ids: Ids) -> pa.Table:
        part = self._parts(ids)
        first = int(_FIRST_DAY.astype("datetime64[s]").astype(np.int64))
        seconds = part["day"] * 86_400 + part["second"] + first
        users = _strings(np.hstack((np.broadcast_to(_bytes(b"user-"), (len(ids), 5)), _digits(part["user"], 7))))
        cents = part["whole"] * 100 + part["cent"]
        return pa.table(
            {
                "id": pa.array(ids.astype(np.int64)),
                "timestamp": pa.array(seconds * 1_000_000, pa.timestamp("us", "UTC")),
                "user": users,
                "amount": pa.array(cents / 100.0),
                "country": pa.array(_COUNTRIES).take(pa.array(part["country"])),
                "note": self._note_values.take(pa.array(part["note"])),
            }
        )

    def broken(self, id: int, kind: BadKind, column: str) -> bytes:
        plain = f"{id:010},2024-05-06T07:08:09Z,user-0000001,12.50,DE,known bad row {id}"
        return _break(plain.encode(), self.columns, kind, column)

    def _parts(self, ids: Ids) -> dict[str, NDArray[np.int64]]:
        """The numbers a row is made of, drawn from its id."""
        one, two = _mix(ids, self._salt), _mix(ids, self._salt + np.uint64(1))
        limits = {"day": (one, 0, _DAYS), "second": (one, 20, 86_400), "note": (one, 44, _NOTES)}
        limits |= {"user": (two, 0, 2_000_000), "whole": (two, 24, 20_000), "cent": (two, 40, 100)}
        limits |= {"country": (two, 50, len(_COUNTRIES))}
        return {
            name: ((bits >> np.uint64(shift)) % np.uint64(limit)).astype(np.int64)
            for name, (bits, shift, limit) in limits.items()
        }


class Wide:
    """500 columns, about 3.8 kB a row: id and 499 integers, floats and strings in turn."""

    columns: tuple[str, ...] = ("id", *(f"c{n:03}" for n in range(1, 500)))
    chunk_rows = 2_048
    breaks: tuple[tuple[BadKind, str], ...] = (
        (BadKind.INTEGER, "id"),
        (BadKind.INTEGER, "c001"),
        (BadKind.FLOAT, "c002"),
        (BadKind.FLOAT, "c497"),
        (BadKind.RULE_LENGTH, "c003"),
        (BadKind.TOO_FEW_FIELDS, ""),
        (BadKind.TOO_MANY_FIELDS, ""),
        (BadKind.INVALID_UTF8, "c498"),
    )

    def __init__(self, seed: int) -> None:
        self._salt = np.uint64(seed)
        types = ("string", "integer", "float")
        fields: dict[str, Any] = {"id": "integer"}
        fields |= {name: types[n % 3] for n, name in enumerate(self.columns) if n}
        fields["c003"] = {"type": "string", "length": 7}
        self.spec: dict[str, Any] = {"primary_key": ["id"], "fields": fields}

    def render(self, ids: Ids) -> Text:
        values = self._values(ids)
        cells = np.zeros((len(ids), values.shape[1], 8), np.uint8)
        digits = _digits(values.ravel(), 6).reshape(*values.shape, 6)
        kinds = np.arange(1, 500) % 3
        cells[:, kinds == 1, :6] = digits[:, kinds == 1]
        cells[:, kinds == 2, :3] = digits[:, kinds == 2, :3]
        cells[:, kinds == 2, 3] = ord(".")
        cells[:, kinds == 2, 4:7] = digits[:, kinds == 2, 3:]
        cells[:, kinds == 0, 0] = ord("w")
        cells[:, kinds == 0, 1:7] = digits[:, kinds == 0]
        cells[:, :-1, 7] = ord(",")
        comma = np.full((len(ids), 1), ord(","), np.uint8)
        return np.hstack((_digits(ids, 10), comma, cells.reshape(len(ids), -1)))

    def table(self, ids: Ids) -> pa.Table:
        values = self._values(ids)
        columns: dict[str, pa.Array] = {"id": pa.array(ids.astype(np.int64))}
        for n, name in enumerate(self.columns[1:], 1):
            column = values[:, n - 1]
            if n % 3 == 1:
                columns[name] = pa.array(column)
            elif n % 3 == 2:
                columns[name] = pa.array(column / 1000.0)
            else:
                text = np.hstack((np.broadcast_to(_bytes(b"w"), (len(ids), 1)), _digits(column, 6)))
                columns[name] = _strings(text)
        return pa.table(columns)

    def broken(self, id: int, kind: BadKind, column: str) -> bytes:
        row = self.render(np.array([id], np.uint64)).tobytes().replace(b"\0", b"")
        return _break(row, self.columns, kind, column)

    def _values(self, ids: Ids) -> NDArray[np.int64]:
        """-> six-digit numbers [rows, 499] without a leading zero."""
        lanes = np.arange(1, 500, dtype=np.uint64) << np.uint64(40)
        bits = _mix(ids[:, None] ^ lanes[None, :], self._salt)
        return (np.uint64(100_000) + (bits >> np.uint64(8)) % np.uint64(900_000)).astype(np.int64)


class Tiny:
    """Two columns, 20 bytes a row: id and a number of eight digits."""

    columns: tuple[str, ...] = ("id", "n")
    chunk_rows = 262_144
    breaks: tuple[tuple[BadKind, str], ...] = ((BadKind.INTEGER, "id"), (BadKind.TOO_MANY_FIELDS, ""))
    spec: dict[str, Any] = {"primary_key": ["id"], "fields": {"id": "integer", "n": "integer"}}  # noqa: RUF012

    def __init__(self, seed: int) -> None:
        self._salt = np.uint64(seed)

    def render(self, ids: Ids) -> Text:
        comma = np.full((len(ids), 1), ord(","), np.uint8)
        return np.hstack((_digits(ids, 10), comma, _digits(self._numbers(ids), 8)))

    def table(self, ids: Ids) -> pa.Table:
        return pa.table({"id": pa.array(ids.astype(np.int64)), "n": pa.array(self._numbers(ids))})

    def broken(self, id: int, kind: BadKind, column: str) -> bytes:
        return _break(b"%010d,12345678" % id, self.columns, kind, column)

    def _numbers(self, ids: Ids) -> NDArray[np.int64]:
        return (np.uint64(10_000_000) + (_mix(ids, self._salt) >> np.uint64(8)) % np.uint64(90_000_000)).astype(
            np.int64
        )


class Long:
    """Two columns, about 4 kB a row: id and a text of random letters."""

    columns: tuple[str, ...] = ("id", "text")
    chunk_rows = 2_048
    breaks: tuple[tuple[BadKind, str], ...] = ((BadKind.INTEGER, "id"), (BadKind.INVALID_UTF8, "text"))
    spec: dict[str, Any] = {"primary_key": ["id"], "fields": {"id": "integer", "text": "string"}}  # noqa: RUF012

    def __init__(self, seed: int) -> None:
        self._salt = np.uint64(seed)

    def render(self, ids: Ids) -> Text:
        comma = np.full((len(ids), 1), ord(","), np.uint8)
        return np.hstack((_digits(ids, 10), comma, self._letters(ids)))

    def table(self, ids: Ids) -> pa.Table:
        return pa.table({"id": pa.array(ids.astype(np.int64)), "text": _strings(self._letters(ids))})

    def broken(self, id: int, kind: BadKind, column: str) -> bytes:
        return _break(b"%010d,text" % id, self.columns, kind, column)

    def _letters(self, ids: Ids) -> Text:
        lanes = np.arange(1, 513, dtype=np.uint64) << np.uint64(40)
        drawn = _mix(ids[:, None] ^ lanes[None, :], self._salt).view(np.uint8)
        return (drawn % 26 + ord("a")).astype(np.uint8).reshape(len(ids), 4096)


def dataset_of(shape: Shape) -> DatasetSpec:
    return DatasetSpec.model_validate(shape.spec)


_BREAKS: Final = {
    BadKind.INTEGER: b"12x45",
    BadKind.FLOAT: b"12.3.4",
    BadKind.TIMESTAMP: b"2024-13-45T00:00:00Z",
    BadKind.NULL: b"",
    BadKind.RULE_MIN: b"-5.25",
    BadKind.RULE_LENGTH: b"Germany or so",
    BadKind.INVALID_UTF8: b"not \xff\xfe text",
}


def _break(row: bytes, columns: Sequence[str], kind: BadKind, column: str) -> bytes:
    fields = row.split(b",")
    if kind is BadKind.TOO_FEW_FIELDS:
        fields = fields[:-1]
    elif kind is BadKind.TOO_MANY_FIELDS:
        fields = [*fields, b"one more"]
    else:
        fields[columns.index(column)] = _BREAKS[kind]
    return b",".join(fields)


def _plain_notes(seed: int) -> tuple[list[str], list[str | None]]:
    draw = np.random.default_rng(seed)
    notes = []
    for _ in range(_NOTES - 1):
        words = draw.choice(_WORDS, 8)
        notes.append(" ".join(words)[: draw.integers(24, _EXTRA_NOTE)].strip())
    return ["", *notes], [None, *notes]


def _tricky_notes(seed: int) -> tuple[list[str], list[str | None]]:
    """Every note as it stands in the file, and as it reads."""
    texts, values = _plain_notes(seed)
    forms = (
        ('"{a}\n{b}"', "{a}\n{b}"),
        ('"{a}\r\n{b}"', "{a}\r\n{b}"),
        ('"{a}, ""{b}"""', '{a}, "{b}"'),
        ('5" {a}', '5" {a}'),
        ('{a} "{b}', '{a} "{b}'),
        ('"{a}"', "{a}"),
        ('""', ""),
    )
    for n in range(1, len(texts)):
        if n % 2:
            a, b = texts[n][:12].strip(), texts[n][12:30].strip()
            text, value = forms[(n // 2) % len(forms)]
            texts[n], values[n] = text.format(a=a, b=b), value.format(a=a, b=b)
    return texts, values


def _mix(ids: Ids, salt: np.uint64) -> Ids:
    """-> 64 well-mixed bits per id (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = ids + (salt + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Ids = x ^ (x >> np.uint64(31))
        return mixed


def _bytes(text: bytes) -> Text:
    return np.frombuffer(text, np.uint8)


def _padded(texts: Sequence[str]) -> Text:
    """-> [texts, longest] bytes, NUL where a text is shorter."""
    encoded = [text.encode() for text in texts]
    width = max(map(len, encoded))
    return _bytes(b"".join(text.ljust(width, b"\0") for text in encoded)).reshape(-1, width)


_FOUR_DIGITS: Final = _bytes(b"".join(b"%04d" % n for n in range(10_000))).reshape(-1, 4)


def _digits(values: NDArray[Any], width: int) -> Text:
    """-> [values, width] decimal digits with leading zeros."""
    parts, left, rest = [], width, values.astype(np.int64)
    while left > 0:
        parts.append(_FOUR_DIGITS[rest % 10_000])
        rest, left = rest // 10_000, left - 4
    return np.hstack(parts[::-1])[:, -width:]


def _strings(text: Text) -> pa.Array:
    """-> strings of equal length."""
    rows, width = text.shape
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))
