"""From files to a configuration: each case is a file, what must be said of it, and that the csv-parser agrees."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestcore.datasets.config_file import Config, load, problems
from ingestcore.datasets.problems import Level
from ingestcore.datasets.spec import Dialect, FieldSpec
from ingestcore.inference.datasets import Dataset, infer_dataset
from ingestcore.inference.document import Document
from ingestcore.inference.names import dataset_name
from ingestcore.inference.routes import routes_of
from ingestcore.inference.sample import Look, Sample, Skipped, groups_of, look
from ingestcore.tabular.rehearsal import rehearse


class Inferred:
    """What came of some files. `config`: the written YAML, read again as `ingest apply` reads it."""

    def __init__(self, files: Mapping[str, bytes], folder: Path) -> None:
        seen = [look(Sample(name, data, True)) for name, data in files.items()]
        self.skipped = {one.name: one.why for one in seen if isinstance(one, Skipped)}
        self.datasets: list[Dataset] = []
        for group in groups_of(one for one in seen if isinstance(one, Look)):
            name = dataset_name(group.names, "files", [found.name for found in self.datasets])
            self.datasets.append(infer_dataset(name, group))
        route = routes_of({found.name: found.group.names for found in self.datasets})
        self.document = Document("test", "s", "bucket", "in/", True, route, "s3://lake/")
        self.text = self.document.text(self.datasets)
        path = folder / "inferred.yaml"
        path.write_text(self.text, encoding="utf-8")
        errors = [problem for problem in problems([path]) if problem.level is Level.ERROR]
        assert not errors, (errors, self.text)
        self.config: Config = load([path])
        self._judge(files)

    def _judge(self, files: Mapping[str, bytes]) -> None:
        """Every file is routed to its dataset, and every sampled row is taken, but for those told."""
        source = self.config.sources["s"]
        for found in self.datasets:
            refused = 0
            for name in found.group.names:
                assert source.dataset_of(f"in/{name}", "s") == found.name
                if not found.warnings:
                    done = rehearse([files[name]], self.config.datasets[found.name], max_row_bytes=1 << 20)
                    refused += len(done.refused)
            assert refused == (0 if found.warnings else len(found.refused)), self.text

    @property
    def only(self) -> Dataset:
        (found,) = self.datasets
        return found

    def types(self) -> dict[str, str]:
        fields = self.config.datasets[self.only.name].named
        return {name: _written(field) for name, field in fields.items()}

    def remark(self, column: str) -> str:
        return next(c.verdict.remark for c in self.only.columns if c.name == column)

    @property
    def csv(self) -> Dialect:
        return self.config.datasets[self.only.name].csv


def _written(field: FieldSpec) -> str:
    return field.written_type + (f" {field.format}" if field.format else "")


def one(data: bytes, folder: Path, name: str = "file.csv") -> Inferred:
    return Inferred({name: data}, folder)


def column(*values: str, title: str = "v", more: int = 0) -> bytes:
    """A file with one interesting column; `more`: how often the values come again."""
    lines = [f"{value},x" for value in values * (more + 1)]
    return "\n".join([f"{title},other", *lines, ""]).encode()


# fmt: off
TYPES = {
    "whole numbers": (("1", "-2", "30", "4", "5"), "v", "integer", ""),
    "numbers mixed with decimals": (("1", "2.5", "3", "-4.25", "5e3"), "v", "float", ""),
    "leading zeros": (("00501", "10001", "94105", "60601", "73301"), "v", "string", "leading zeros ('00501')"),
    "a zero alone is a number": (("0", "10", "20", "30", "40"), "v", "integer", ""),
    "decimals below one are numbers": (("0.5", "0.25", "1.5", "2", "3"), "v", "float", ""),
    "leading zeros before a point": (("00.5", "1.5", "2.5", "3.5", "4.5"), "v", "string", "leading zeros"),
    "named like a code": (("94105", "94110", "94112", "94114", "94115"), "zip_code", "string", "named like a code"),
    "phone numbers": (("+4930", "+4931", "+4932", "+4933", "+4934"), "v", "string", "a plus sign in front"),
    "beyond 64 bits": (("9223372036854775808", "1", "2", "3", "4"), "v", "string", "exceed 64 bits"),
    "the last of 64 bits": (("9223372036854775807", "1", "2", "3", "4"), "v", "integer", ""),
    "digits a float would lose": (("9007199254740995", "1.5", "2.5", "3", "4"), "v", "string", "more digits than"),
    "hexadecimal codes": (("12e4", "123456", "99e1", "1", "22"), "v", "string", "rather a code"),
    "versions": (("1.10", "1.2", "1.3", "1.4", "1.5"), "version", "string", "named like a code"),
    "true and false": (("true", "False", "TRUE", "false", "true"), "v", "boolean", ""),
    "yes and no": (("yes", "no", "Yes", "no", "no"), "v", "boolean", ""),
    "only no": (("no", "no", "no", "no", "no"), "v", "string", ""),
    "one letter alone": (("N", "N", "N", "N", "N"), "v", "string", ""),
    "ones and zeros": (("1", "0", "0", "1", "1"), "v", "integer", ""),
    "words of two kinds": (("yes", "false", "no", "true", "yes"), "v", "string", ""),
    "ISO dates": (("2024-01-31", "2024-02-01", "2023-12-31", "2024-01-01", "2024-02-29"), "v", "date", ""),
    "an impossible date": (("2024-02-30", "2024-02-01", "2023-12-31", "2024-01-01", "x"), "v", "string", ""),
    "timestamps": (("2024-01-31T10:00:00Z",) * 5, "v", "timestamp", ""),
    "local timestamps": (("2024-01-31 10:00",) * 5, "v", "timestamp", "times without a zone"),
    "day first": (("31/01/2024", "01/02/2024", "03/04/2024", "5/6/2024", "07/08/2024"), "v", "date %d/%m/%Y", ""),
    "month first": (("01/31/2024", "01/02/2024", "03/04/2024", "5/6/2024", "07/08/2024"), "v", "date %m/%d/%Y", ""),
    "either first": (("01/02/2024", "03/04/2024", "5/6/2024", "7/8/2024", "9/10/2024"), "v", "string", "day first or"),
    "with dots": (("31.01.2024", "01.02.2024", "03.04.2024", "05.06.2024", "07.08.2024"), "v", "date %d.%m.%Y", ""),
    "with slashes, year first": (("2024/01/31", "2024/2/1") * 3, "v", "date %Y/%m/%d", ""),
    "a month's name": (("31 Jan 2024", "1 Feb 2024", "3 May 2024") * 2, "v", "date %d %b %Y", ""),
    "twelve hours": (("01/31/2024 9:05 PM",) * 5, "v", "timestamp %m/%d/%Y %I:%M %p", "times without a zone"),
    "with a zone": (("31.01.2024 09:05:00 +0100",) * 5, "v", "timestamp %d.%m.%Y %H:%M:%S %z", ""),
    "days as digits, named so": (("20240131", "20240201") * 3, "day", "date %Y%m%d", ""),
    "days as digits, named otherwise": (("20240131", "20240201") * 3, "v", "integer", ""),
    "nanoseconds": (("2024-01-31T10:00:00.123456789Z",) * 5, "v", "string", "more than 6 decimals of a second"),
    "decimal commas": (('"1,5"', '"2,25"', '"3,0"', '"4,1"', '"5,9"'), "v", "string", "decimal commas"),
    "text": (("a", "b", "c", "d", "e"), "v", "string", ""),
    "spaces around numbers": ((" 1", "2 ", " 3 ", "4", "5"), "v", "integer", ""),
    "no value at all": (("", "", "", "", ""), "v", "string", "no value in the sample"),
    "nothing but NULL and numbers": (("NULL", "1", "2", "3", "4", "5"), "v", "integer", ""),
    "NA may be Namibia": (("NA", "1", "2", "3", "4", "5"), "v", "string", "add it to `null_values`"),
    "few values": (("7", "", "", "", "8", ""), "v", "string", "only 2 values of 6 rows back it"),
}
# fmt: on


@pytest.mark.parametrize(("values", "title", "type_", "remark"), TYPES.values(), ids=TYPES)
def test_the_type_of_a_column(values: tuple[str, ...], title: str, type_: str, remark: str, tmp_path: Path) -> None:
    found = one(column(*values, title=title), tmp_path)
    assert found.types()[title] == type_, found.text
    assert remark in found.remark(title), found.remark(title)
    assert remark in found.text.replace("\n    # ", " ")


def test_a_column_with_nearly_one_type_says_which_value_keeps_it_from_it(tmp_path: Path) -> None:
    found = one(column(*map(str, range(100)), "n.a. (see note)"), tmp_path)
    assert found.types()["v"] == "string"
    assert found.remark("v") == (
        "integer but for 1 of 101 values such as 'n.a. (see note)': as such those rows would become dead letters"
    )


def test_a_type_backed_by_few_of_many_rows_stays_a_string(tmp_path: Path) -> None:
    found = one(column(*["1"] * 12, *[""] * 2000), tmp_path)
    assert found.types()["v"] == "string"
    assert "only 12 values of 2,012 rows back it" in found.remark("v")


def test_words_for_null_are_declared_where_no_text_has_them(tmp_path: Path) -> None:
    found = one(b"n,t\n\\N,a\n1,b\n2,c\n3,d\n4,e\n5,f\n", tmp_path)
    assert found.types() == {"n": "integer", "t": "string"}
    assert found.csv.null_values == ("", "\\N")
    again = one(b"n,t\nNULL,NULL\n1,b\n2,c\n3,d\n4,e\n5,f\n", tmp_path)
    assert again.types() == {"n": "string", "t": "string"}
    assert again.csv.null_values == ("",)
    assert "which other columns have as text" in again.remark("n")


ROWS = [("1", "a", "2.5"), ("2", "b", "3.5"), ("3", "c", "4"), ("4", "d", "5"), ("5", "e", "6")]


def lines(delimiter: str = ",", end: str = "\n", header: bool = True) -> bytes:
    rows = [("number", "word", "size"), *ROWS] if header else ROWS
    return "".join(delimiter.join(row) + end for row in rows).encode()


NUMBERED = {"column_1": "integer", "column_2": "string", "column_3": "float"}
NAMED = {"number": "integer", "word": "string", "size": "float"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(delimiter: str, end: str, tmp_path: Path) -> None:
    found = one(lines(delimiter, end), tmp_path)
    assert found.csv.delimiter == delimiter
    assert found.types() == NAMED
    assert found.only.rows == 5


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert one(b"\xef\xbb\xbf" + lines(), tmp_path).types() == NAMED


def test_without_a_header_columns_are_numbered(tmp_path: Path) -> None:
    found = one(lines(header=False), tmp_path)
    assert found.types() == NUMBERED
    assert found.csv.header is False
    assert found.only.rows == 5
    assert "looks like a row" in found.text


def test_one_column_whose_texts_hold_delimiters(tmp_path: Path) -> None:
    found = one(b"comment\nhello, world\nfine\nwell, yes, ok\nno\n", tmp_path)
    assert found.types() == {"comment": "string"}
    assert (found.only.rows, found.only.refused) == (4, ())


def test_years_as_names_are_a_header(tmp_path: Path) -> None:
    found = one(b"country,2019,2020\nDE,1,2\nFR,3,4\nIT,5,6\nES,7,8\nPT,9,10\n", tmp_path)
    assert [c.title for c in found.only.columns] == ["country", "2019", "2020"]


def test_a_name_that_comes_twice_is_taken_by_its_place(tmp_path: Path) -> None:
    found = one(b"id,name,name\n" + b"".join(b"%d,a%d,b\n" % (i, i) for i in range(9)), tmp_path)
    assert found.types() == {"id": "integer", "name": "string", "name_2": "string"}
    assert (found.csv.header, found.csv.skip_rows) == (False, 1)
    assert found.only.rows == 9
    assert "name twice" in found.text


def test_one_row_is_a_header_if_it_holds_no_value(tmp_path: Path) -> None:
    found = one(b"id,name\n", tmp_path)
    assert found.types() == {"id": "string", "name": "string"}
    assert found.only.rows == 0
    row = one(b"7,2024-01-31\n", tmp_path)
    assert row.types() == {"column_1": "string", "column_2": "string"}
    assert row.only.rows == 1


def test_one_row_below_a_header_backs_no_type(tmp_path: Path) -> None:
    found = one(b"id,size\n7,2.5", tmp_path)
    assert found.types() == {"id": "string", "size": "string"}
    assert "only 1 value of 1 rows back it" in found.remark("id")
    assert found.only.key.columns == ()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"\n\n\r\n", "no record in it"),
        (b"PAR1\x00\x01", "not CSV but Parquet"),
        (b'{"a": 1}\n{"a": 2}\n', "not CSV but JSON"),
        (b"PK\x03\x04abc", "not CSV but a zip archive (or an Excel workbook)"),
        (b"a,b\n\x00\x01,\x02\n", "not CSV but binary"),
    ],
)
def test_files_to_learn_nothing_from_are_left_out_with_a_reason(data: bytes, why: str, tmp_path: Path) -> None:
    assert look(Sample("x", data, True)) == Skipped("x", why)


def test_newlines_and_delimiters_in_quotes(tmp_path: Path) -> None:
    data = b"id,text\n" + b"".join(b'%d,"line one\nline ""two"", and more"\n' % i for i in range(10, 16))
    found = one(data, tmp_path)
    assert found.types() == {"id": "integer", "text": "string"}
    assert found.only.rows == 6


def test_quotes_escaped_by_a_backslash(tmp_path: Path) -> None:
    found = one(b"id,text\n" + b"".join(b'%d,"say \\"hi\\", twice"\n' % i for i in range(10, 16)), tmp_path)
    assert found.csv.escape == "\\"
    assert (found.only.rows, found.only.refused) == (6, ())


def test_single_quotes(tmp_path: Path) -> None:
    found = one(b"id,text\n" + b"".join(b"%d,'a, b'\n" % i for i in range(10, 16)), tmp_path)
    assert found.csv.quote == "'"
    assert (found.only.rows, found.only.refused) == (6, ())


def test_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    found = one(b"Report of today\nmade by a machine\n" + lines(";"), tmp_path)
    assert (found.csv.skip_rows, found.csv.delimiter) == (2, ";")
    assert found.types() == NAMED


def test_comments_before_the_header(tmp_path: Path) -> None:
    found = one(b"# made by a machine\n# yesterday\n" + lines(), tmp_path)
    assert found.csv.comment == "#"
    assert found.types() == NAMED


def test_a_name_may_begin_like_a_comment(tmp_path: Path) -> None:
    found = one(lines().replace(b"number", b"#number"), tmp_path)
    assert found.csv.comment is None
    assert found.types() == {"number": "integer", "word": "string", "size": "float"}
    assert found.only.columns[0].title == "#number"


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1252"])
def test_a_single_byte_encoding_is_guessed_and_declared(encoding: str, tmp_path: Path) -> None:
    text = "größe,name\n" + "".join(f"{i},{'€' if encoding != 'iso-8859-1' else ''}Müller\n" for i in range(6))
    found = one(text.encode(encoding), tmp_path)
    assert found.types() == {"größe": "integer", "name": "string"}
    assert found.csv.encoding == encoding
    assert (found.only.warnings, found.only.refused) == ((), ())
    assert f"not UTF-8, probably {encoding}: where letters come out wrong" in found.text


def test_another_encoding_is_told_and_inferred_as_if_converted(tmp_path: Path) -> None:
    found = one(("größe,name\n" + "".join(f"{i},Müller\n" for i in range(6))).encode("utf-16"), tmp_path)
    assert found.types() == {"größe": "integer", "name": "string"}
    (warning,) = found.only.warnings
    assert "is utf-16, which is not read" in warning and "iconv -f" in warning
    assert "# WARNING: " in found.text


def test_ragged_rows_are_told(tmp_path: Path) -> None:
    found = one(lines() * 1 + b"6,f\n7,g,8\n", tmp_path)
    assert found.only.rows == 6
    assert "1 of the sampled rows would become a dead letter" in found.text
    assert "row 6: 3 columns are expected and 2 were found" in found.text


class TestGroups:
    def test_files_with_the_same_columns_in_any_order_are_one_dataset(self, tmp_path: Path) -> None:
        other = b"size,number,word\n2.5,6,f\n3.5,7,g\n"
        found = Inferred({"a-1.csv": lines(), "a-2.csv": other}, tmp_path)
        assert found.only.rows == 7
        assert found.types() == NAMED

    def test_other_columns_are_another_dataset(self, tmp_path: Path) -> None:
        found = Inferred({"a.csv": lines(), "b.csv": b"x,y\n1,2\n"}, tmp_path)
        assert [d.name for d in found.datasets] == ["a", "b"]
        assert found.document.route == {"a*.csv": "a", "b*.csv": "b"}

    def test_the_same_columns_written_otherwise_are_another_dataset(self, tmp_path: Path) -> None:
        found = Inferred({"a.csv": lines(), "b.csv": lines(";")}, tmp_path)
        assert [d.csv for d in found.datasets] == [{}, {"delimiter": ";"}]

    def test_a_report_that_has_grown_by_a_column_is_the_same_report(self, tmp_path: Path) -> None:
        grown = b"number,word,size,colour\n6,f,1.5,red\n"
        found = Inferred({"a-2024.csv": lines(), "a-2025.csv": grown}, tmp_path)
        spec = found.config.datasets["a"]
        assert {name: field.required for name, field in spec.named.items()} == {
            "number": True, "word": True, "size": True, "colour": False,
        }  # fmt: skip
        assert "missing from 1 of 2 files" in found.text

    def test_a_contradiction_in_another_file_counts(self, tmp_path: Path) -> None:
        found = Inferred({"a-1.csv": lines(), "a-2.csv": b"number,word,size\nsix,f,1\n"}, tmp_path)
        assert found.types() == {"number": "string", "word": "string", "size": "float"}


class TestKeys:
    def rows(self, title: str, ids: list[object], also: str = "x") -> bytes:
        return f"{title},{also}\n".encode() + b"".join(f"{i},{n // 2}\n".encode() for n, i in enumerate(ids))

    @pytest.mark.parametrize("title", ["id", "order_id", "orderId", "ORDERID", "Order ID", "uuid", "iata", "sku"])
    def test_a_unique_column_named_like_an_id(self, title: str, tmp_path: Path) -> None:
        found = one(self.rows(title, list(range(20))), tmp_path)
        assert len(found.only.key.columns) == 1
        spec = found.config.datasets[found.only.name]
        assert spec.primary_key == found.only.key.columns
        assert "unique over 20 sampled rows" in found.text

    @pytest.mark.parametrize(
        ("title", "ids", "why"),
        [
            ("amount", list(range(20)), "no column is named like an id"),
            ("paid", list(range(20)), "no column is named like an id"),
            ("id", [1, 1, *range(2, 20)], "id is not unique over the sample"),
            ("id", ["", *range(1, 20)], "always filled"),
            ("id", [1, 2, 3], "3 rows are too few to tell whether id identifies one"),
            ("id", [i + 0.5 for i in range(20)], "no column is named like an id"),
        ],
    )
    def test_otherwise_rows_are_compared_whole(self, title: str, ids: list[object], why: str, tmp_path: Path) -> None:
        data = f"{title},x\n".encode() + b"".join(f"{i},{n}\n".encode() for n, i in enumerate(ids))
        found = one(data, tmp_path)
        spec = found.config.datasets[found.only.name]
        assert (spec.primary_key, spec.dedupe.keys) == ((), "all")
        assert why in found.text

    def test_two_ids_together(self, tmp_path: Path) -> None:
        data = b"item_id,county_id\n" + b"".join(b"%d,%d\n" % (i // 5, i % 5) for i in range(25))
        assert one(data, tmp_path).only.key.columns == ("item_id", "county_id")

    def test_whole_rows_that_come_again_do_not_count_against_a_key(self, tmp_path: Path) -> None:
        data = b"id,v\n" + b"".join(b"%d,a\n" % (i % 20) for i in range(22))
        found = one(data, tmp_path)
        assert found.only.key.columns == ("id",)
        assert "2 whole rows that come again aside" in found.text

    def test_a_column_that_says_what_is_newer(self, tmp_path: Path) -> None:
        data = b"id,updated_at\n" + b"".join(b"%d,2024-01-%02dT10:00:00Z\n" % (i, i + 1) for i in range(20))
        assert one(data, tmp_path).config.datasets["file"].revision == "updated_at"


class TestRoutes:
    @pytest.mark.parametrize(
        ("groups", "route"),
        [
            ({"a": ["a.csv"]}, {"a*.csv": "a"}),
            ({"orders": ["orders-2024-01.csv", "orders-2024-02.csv"]}, {"orders*.csv": "orders"}),
            ({"a": ["a.csv", "a.csv.gz"]}, {"a*.csv": "a", "a*.csv.gz": "a"}),
            ({"zip": ["zip.csv"], "zipcodes": ["zipcodes.csv"]}, {"zipcodes*.csv": "zipcodes", "zip*.csv": "zip"}),
            ({"x": ["x/part-1.csv"], "y": ["y/part-1.csv"]}, {"x/*.csv": "x", "y/*.csv": "y"}),
            ({"x": ["x/dt=1/p-1.csv", "x/dt=2/p-1.csv"], "y": ["y/p-1.csv"]}, {"x/*.csv": "x", "y/*.csv": "y"}),
            ({"c": ["2024-01.csv", "2024-02.csv"]}, {"*.csv": "c"}),
            (
                {"x": ["1111.csv"], "y": ["1.csv", "a/1111.csv"]},
                {"a/1111.csv": "y", "1.csv": "y", "*.csv": "x"},
            ),
            ({"a": ["q[1].csv"]}, {"q[[]1]*.csv": "a"}),
        ],
    )
    def test_patterns(self, groups: dict[str, list[str]], route: dict[str, str]) -> None:
        assert routes_of(groups) == route

    def test_files_that_only_their_names_tell_apart(self) -> None:
        route = routes_of({"a": ["report-1.csv"], "b": ["report-2.csv"]})
        assert sorted(route.values()) == ["a", "b"]
        assert "report-1.csv" in route or "report-2.csv" in route

    @given(
        st.dictionaries(
            st.from_regex(r"(?:[ab]/){0,2}[a-c1-3-]{1,4}\.csv(?:\.gz)?", fullmatch=True),
            st.sampled_from("xyz"),
            min_size=1,
            max_size=8,
        )
    )
    def test_every_file_reaches_its_dataset(self, wanted: dict[str, str]) -> None:
        from ingestcore.datasets.spec import S3Source, SourceSpec

        groups: dict[str, list[str]] = {}
        for name, dataset in wanted.items():
            groups.setdefault(dataset, []).append(name)
        source = SourceSpec(s3=S3Source(bucket="any", prefix="in/"), route=routes_of(groups))
        assert {name: source.dataset_of(f"in/{name}", "s") for name in wanted} == wanted


def test_names_become_fit_for_a_table_and_keep_their_titles(tmp_path: Path) -> None:
    data = b"Cost Total $,_row,ID,id,,100%,a:b\n" + b"1,2,3,4,5,6,7\n" * 5
    found = one(data, tmp_path)
    fields = found.config.datasets["file"].named
    assert {name: field.from_ for name, field in fields.items()} == {
        "cost_total": "Cost Total $", "row": "_row", "ID": None, "id_2": "id", "column_5": None,
        "column_100_percent": "100%", "a_b": "a:b",
    }  # fmt: skip


def test_the_configuration_for_scripts_says_the_same_as_the_yaml(tmp_path: Path) -> None:
    found = Inferred({"a.csv": lines(), "b.csv": lines(header=False), "c.csv": lines("\t")}, tmp_path)
    path = tmp_path / "config.json"
    path.write_bytes(orjson.dumps(found.document.value(found.datasets)))
    config = load([path])
    assert (config.sources, config.datasets, config.sinks) == (
        found.config.sources,
        found.config.datasets,
        found.config.sinks,
    )


cells = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=True).map(str),
    st.dates(datetime.date(1, 1, 1)).map(str),
    st.sampled_from(["", "true", "no", "007", "NA", "NULL", "\\N", "1/2/2024", "2024-01-31T10:00:00", "+1", "1e5"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)


@example([["0", "+1"], ["0.0", "0"], ["0\t", "0.5"]], ",", "\n")
@given(
    st.integers(1, 5).flatmap(lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), max_size=12)),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_table_gives_a_configuration_that_is_valid_and_takes_its_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str, end: str
) -> None:
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    Inferred({"a.csv": text.getvalue().encode()} if rows else {}, tmp_path_factory.mktemp("any"))
