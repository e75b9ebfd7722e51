"""The header record: how it is read, and what is said about one that does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from ingestcore.datasets.spec import DatasetSpec, Dialect
from ingestcore.tabular.header import judge_header, read_header


@pytest.mark.parametrize(
    ("record", "names"),
    [
        (b"a,b\n", ("a", "b")),
        (b"a,b", ("a", "b")),
        (b"a,b\r\n", ("a", "b")),
        (b"\xef\xbb\xbfa,b\n", ("a", "b")),
        (b'"a ""x""","b\nc"\r\n', ('a "x"', "b\nc")),
        ("größe,Cost Total $\n".encode(), ("größe", "Cost Total $")),
        (b",a,\n", ("column_1", "a", "column_3")),
        (b" a ,A,a\n", (" a ", "A", "a")),
        (b'""\n', ("column_1",)),
        (b"1,2.5\n", ("1", "2.5")),
    ],
)
def test_names_are_read_as_the_reader_reads_fields(record: bytes, names: tuple[str, ...]) -> None:
    assert read_header(record, Dialect()) == names


def test_names_are_decoded() -> None:
    assert read_header(b"gr\xf6\xdfe,\x80\n", Dialect(encoding="windows-1252")) == ("größe", "€")
    with pytest.raises(ValueError, match="the header is not windows-1252 \\(byte 2 of it\\)"):
        read_header(b"a,\x81\n", Dialect(encoding="windows-1252"))


def test_names_follow_the_dialect() -> None:
    assert read_header(b"'a;b';c\n", Dialect(delimiter=";", quote="'")) == ("a;b", "c")
    assert read_header(b'"a"|b\n', Dialect(delimiter="|", quote=None)) == ('"a"', "b")
    assert read_header(b"a\\,b,c\n", Dialect(escape="\\")) == ("a,b", "c")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"\n", "header is empty"),
        (b"", "header is empty"),
        (b"\xef\xbb\xbf\r\n", "header is empty"),
        (b"caf\xe9,b\n", "not UTF-8 (byte 3 of it)"),
        (b"a,b,a\n", "twice: 'a'"),
        (b",column_1\n", "twice: 'column_1'"),
    ],
)
def test_an_unreadable_header_is_refused_with_advice(record: bytes, words: str) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        read_header(record, Dialect())
    assert words in str(caught.value)


NAMED = {"id": "string", "cost": {"from": "Cost $", "type": "integer"}}


@pytest.mark.parametrize(
    ("spec", "columns"),
    [
        ({}, ("a", "b")),
        ({"fields": NAMED}, ("Cost $", "id")),
        ({"fields": NAMED | {"*": "string"}}, ("x", "Cost $", "id", "y")),
        ({"fields": NAMED, "on_extra": "discard_value"}, ("Cost $", "id", "_x", "cost")),
        ({"fields": NAMED | {"n": {"type": "date", "required": False}}}, ("Cost $", "id")),
        ({"fields": {"k": {"from": "_key"}, "*": "string"}}, ("_key", "b")),
        ({"primary_key": ["id"]}, ("id", "b")),
        ({"fields": NAMED, "csv": {"header": False}}, ()),
    ],
)
def test_a_header_that_fits_passes(spec: dict[str, Any], columns: tuple[str, ...]) -> None:
    assert judge_header(columns, DatasetSpec.model_validate(spec)) is None


@pytest.mark.parametrize(
    ("spec", "columns", "words"),
    [
        ({"fields": NAMED}, ("id",), "required column missing: 'Cost $'; the header has 'id'"),
        ({"fields": NAMED}, ("id", "cost"), "required column missing: 'Cost $'"),
        ({"fields": NAMED}, ("id", "Cost $", "x", "y"), "columns the dataset does not name: 'x', 'y'"),
        ({"fields": {"id": "string", "*": "string"}}, ("ID",), "required column missing: 'id'"),
        ({"fields": {"n": {"required": False, "nullable": False}, "*": "string"}}, ("a",), "column missing: 'n'"),
        ({}, ("_row", "b"), "start with _ are the platform's: '_row'"),
        ({"fields": NAMED | {"*": "string"}}, ("id", "Cost $", "cost"), "under the name of a field"),
        ({"fields": {"a": "string", "b": {"from": "a"}}}, ("a",), "two fields are read from one column: 'a'"),
        ({"primary_key": ["id"]}, ("a",), "key column missing: 'id'"),
        ({"dedupe": {"keys": ["id"]}}, ("a",), "key column missing: 'id'"),
        ({"csv": {"header": False}}, (), "needs `fields`"),
        ({"fields": {"a": "string"}}, tuple("abcdefghijklmnop"), "and 3 more"),
    ],
)
def test_a_header_that_does_not_fit_gets_one_sentence_of_advice(
    spec: dict[str, Any], columns: tuple[str, ...], words: str
) -> None:
    assert words in (judge_header(columns, DatasetSpec.model_validate(spec)) or "")
