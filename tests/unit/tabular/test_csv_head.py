"""The head of an object is the same however many of its bytes are known; until it is certain, more are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.tabular.head import LIMIT_BYTES, Drift, Head, find_head

OBJECTS: list[tuple[dict[str, Any], bytes]] = [
    ({}, b"id,name\n1,a\n"),
    ({}, b"id,name\r\n1,a\r\n"),
    ({}, b"id,name\r1,a\r"),
    ({}, b"\xef\xbb\xbfid,name\n1,a\n"),
    ({}, b"\n\r\n\rid,name\n1,a\n"),
    ({}, b'"i\n""d","na\r\nme"\n1,a\n'),
    ({"csv": {"skip_rows": 2}}, b'report "a\r\n\r\nid\n1\n'),
    ({"csv": {"comment": "#", "delimiter": "\t"}}, b'# "x\n\n# y\nid\tname\n1\ta\n'),
    ({"csv": {"header": False, "skip_rows": 1}, "fields": {"a": "string"}}, b"skipped\r\n1\n2\n"),
    ({"csv": {"quote": None}}, b'"id,name"\n1,a\n'),
    ({"fields": {"colour": "string"}}, b"id,name\n1,a\n"),
    ({}, "id,name\n1,a\n".encode("utf-16")),
]


def said(found: Head | Drift | None) -> object:
    return found.message if isinstance(found, Drift) else found


@pytest.mark.parametrize(("spec", "data"), OBJECTS)
def test_a_head_once_found_stays_what_it_is(spec: dict[str, Any], data: bytes) -> None:
    dataset = DatasetSpec.model_validate(spec)
    whole = find_head(data, dataset, whole=True, max_row_bytes=1000)
    assert whole is not None
    for size in range(len(data) + 1):
        assert said(find_head(data[:size], dataset, whole=False, max_row_bytes=1000)) in (None, said(whole))
    assert said(find_head(data + b"x" * 10, dataset, whole=False, max_row_bytes=1000)) == said(whole)


@pytest.mark.parametrize(
    ("spec", "data", "columns", "size"),
    [
        ({}, b"id,name", ("id", "name"), 7),
        ({}, b"id\r", ("id",), 3),
        ({}, b"", (), 0),
        ({"csv": {"skip_rows": 5}}, b"a\nb", (), 3),
        ({"csv": {"comment": "#"}}, b"# only\n#comments", (), 16),
        ({}, b"id,\n1,2\n", ("id", "column_2"), 4),
    ],
)
def test_an_object_may_end_in_its_head(spec: dict[str, Any], data: bytes, columns: tuple[str, ...], size: int) -> None:
    found = find_head(data, DatasetSpec.model_validate(spec), whole=True, max_row_bytes=1000)
    assert found == Head(columns, size)


def test_a_head_that_never_ends_is_given_up() -> None:
    open_quote = b'"' + b"x\n" * (LIMIT_BYTES // 2)
    found = find_head(open_quote, DatasetSpec(), whole=False, max_row_bytes=1000)
    assert isinstance(found, Drift) and "quote never closed" in found.message and len(found.raw) == 64 << 10


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("declared", ["utf-8", "windows-1252"])
def test_an_object_in_utf_16_is_told_by_its_mark_and_what_to_do(encoding: str, declared: str) -> None:
    spec = DatasetSpec.model_validate({"csv": {"encoding": declared}})
    found = find_head("\ufeffid,name\n1,a\n".encode(encoding), spec, whole=True, max_row_bytes=1000)
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert said(found) == f"the object is {name}, which is not read: convert it, e.g. `iconv -f {name} -t UTF-8`"


def test_a_mark_of_utf_8_contradicts_another_encoding() -> None:
    spec = DatasetSpec.model_validate({"csv": {"encoding": "latin-1"}})
    found = find_head(b"\xef\xbb\xbfid\n1\n", spec, whole=True, max_row_bytes=1000)
    assert isinstance(found, Drift)
    assert "begins with the mark of UTF-8, and `encoding: iso-8859-1` is set" in found.message


def test_a_header_longer_than_a_row_may_be_is_refused() -> None:
    found = find_head(b"x" * 1001 + b"\n", DatasetSpec(), whole=False, max_row_bytes=1000)
    assert isinstance(found, Drift) and "max_row_bytes (1000)" in found.message
