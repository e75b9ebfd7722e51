"""`ingest infer`, `preview` and `explain` on local files: what they print, and how they end."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from ingestcore.reasons import ANY_STAGE, MEANING, Reason
from ingestcore.testing.memory_store import MemoryStore


class Ran(Protocol):
    code: int
    out: str
    err: str


Ingest = Callable[..., Ran]

ZIPS = b"zip_code,city,area\n" + b"".join(b"%05d,City %d,%d.5\n" % (501 + i, i, i) for i in range(40))
BAD = ZIPS + b"99999,Nowhere,large\n99998,Short\n00501,City 0,0.5\n"


class TestInfer:
    @pytest.fixture(autouse=True)
    def files(self, ingest: Ingest) -> None:
        Path("zips.csv").write_bytes(ZIPS)

    def test_what_is_written_is_valid_and_previews_without_a_refusal(self, ingest: Ingest) -> None:
        Path("sizes-1.csv.gz").write_bytes(gzip.compress(b"n;size\n" + b"1;2\n" * 9))
        ran = ingest("infer", "zips.csv", "sizes-1.csv.gz", "-o", "made.yaml")
        assert (ran.code, ran.out) == (0, "")
        assert "2 files, 2 looked at" in ran.err and "49 rows sampled, 2 datasets" in ran.err
        assert "zips.zip_code: leading zeros ('00501'): a code, no number" in ran.err
        assert ingest("validate", "made.yaml").code == 0
        told = json.loads(ingest("preview", "zips.csv", "--config", "made.yaml", "--json").out)
        assert (told["dataset"], told["totals"]["published"], told["refused"]) == ("zips", 40, [])
        told = json.loads(ingest("preview", "sizes-1.csv.gz", "--config", "made.yaml", "--json").out)
        assert (told["totals"]["published"], told["totals"]["repeats"]) == (1, 8)

    def test_without_o_the_configuration_alone_goes_to_stdout(self, ingest: Ingest) -> None:
        ran = ingest("infer", "zips.csv", "--uri", "s3://lake/raw/", "--sink", "s3://out/")
        assert "s3: {bucket: lake, prefix: raw/}" in ran.out
        assert '"zips*.csv": zips' in ran.out
        assert 'uri: "s3://out/"' in ran.out
        assert "sampled" in ran.err and "looked at" not in ran.out

    def test_without_uri_the_bucket_is_a_placeholder_that_says_so(self, ingest: Ingest) -> None:
        assert "put your bucket here" in ingest("infer", "zips.csv").out

    def test_json_for_scripts(self, ingest: Ingest) -> None:
        Path("empty.csv").write_bytes(b"")
        told = json.loads(ingest("infer", "zips.csv", "empty.csv", "--json").out)
        assert (told["files"], told["looked_at"]) == (2, 2)
        assert told["left_out"] == [{"file": "empty.csv", "why": "empty"}]
        (dataset,) = told["datasets"]
        assert (dataset["name"], dataset["primary_key"], dataset["rows"]) == ("zips", ["zip_code"], 40)
        assert [column["type"] for column in dataset["columns"]] == ["string", "string", "float"]
        assert told["config"]["datasets"]["zips"]["fields"]["area"] == {"type": "float"}
        assert told["yaml"].startswith("# Inferred from 40 sampled rows")

    def test_a_file_is_not_written_over_unless_told(self, ingest: Ingest) -> None:
        Path("made.yaml").write_text("mine")
        ran = ingest("infer", "zips.csv", "-o", "made.yaml")
        assert (ran.code, Path("made.yaml").read_text()) == (2, "mine")
        assert "--force" in ran.err
        assert ingest("infer", "zips.csv", "-o", "made.yaml", "--force").code == 0

    def test_a_folder_stands_for_its_files_and_only_so_many_are_looked_at(self, ingest: Ingest) -> None:
        Path("in").mkdir()
        for number in range(12):
            Path(f"in/zips-{number:02}.csv").write_bytes(ZIPS)
        ran = ingest("infer", "in", "--files", "3")
        assert "12 files, 3 looked at" in ran.err
        assert "files not looked at" in ran.err
        assert '"zips*.csv": zips' in ran.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["missing.csv"], "missing.csv: No such file or directory"),
            (["empty.csv"], "no CSV file to learn from in empty.csv"),
            (["zips.csv", "--sample", "many"], "--sample: 'many' is no size"),
            (["zips.csv", "--uri", "s3://lake/raw/", "--sink", "s3://lake/"], "it would read what the sink writes"),
            (["s3://x"], "s3://x is no S3 address"),
            (["s3://lake/a", "zips.csv"], "one bucket at a time"),
        ],
    )
    def test_what_can_not_be_done_is_one_message(self, ingest: Ingest, arguments: list[str], message: str) -> None:
        Path("empty.csv").write_bytes(b"")
        ran = ingest("infer", *arguments)
        assert ran.code in (1, 2)
        assert message in ran.err and "Traceback" not in ran.err


class TestObjects:
    """Addresses in S3; a store in memory stands for it, the real one is in tests/e2e."""

    @pytest.fixture(autouse=True)
    def store(self, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
        store = MemoryStore("lake")
        for key in ("raw/", "raw/a/zips-1.csv", "raw/a/zips-2.csv", "raw/b/sizes.csv"):
            store.put("lake", key, b"" if key == "raw/" else ZIPS if "zips" in key else b"n,size\n" + b"1,2\n" * 9)
        for module in ("inputs", "config.infer"):
            monkeypatch.setattr(f"ingestcore.cli.{module}.open_s3", lambda folder, place=None: store)
        return store

    def test_a_prefix_is_the_source_s_and_every_key_is_routed(self, ingest: Ingest) -> None:
        told = json.loads(ingest("infer", "s3://lake/raw/", "--json").out)
        (source,) = told["config"]["sources"].values()
        assert source == {
            "s3": {"bucket": "lake", "prefix": "raw/"},
            "route": {"zips*.csv": "zips", "sizes*.csv": "sizes"},
        }
        assert (told["files"], told["left_out"]) == (3, [])

    @pytest.mark.parametrize("given", ["s3://lake/raw/a/zips", "s3://lake/raw/a/zips-1.csv"])
    def test_a_prefix_within_a_name_or_an_object_gives_its_folder(self, ingest: Ingest, given: str) -> None:
        told = json.loads(ingest("infer", given, "--json").out)
        (source,) = told["config"]["sources"].values()
        assert source == {"s3": {"bucket": "lake", "prefix": "raw/a/"}, "route": {"zips*.csv": "zips"}}

    def test_a_prefix_with_nothing_in_it(self, ingest: Ingest) -> None:
        ran = ingest("infer", "s3://lake/none/")
        assert ran.code == 2
        assert "no CSV file to learn from in s3://lake/none/" in ran.err

    def test_an_object_is_previewed_as_its_source_routes_it(self, ingest: Ingest) -> None:
        ingest("infer", "s3://lake/raw/", "-o", "made.yaml")
        told = json.loads(ingest("preview", "s3://lake/raw/a/zips-2.csv", "--config", "made.yaml", "--json").out)
        assert (told["file"], told["dataset"]) == ("s3://lake/raw/a/zips-2.csv", "zips")
        assert told["totals"]["published"] == 40

    def test_an_object_that_is_not_there_names_its_neighbours(self, ingest: Ingest) -> None:
        ran = ingest("preview", "s3://lake/raw/a/zips")
        assert ran.code == 2
        assert "no such object; below it are s3://lake/raw/a/zips-1.csv, s3://lake/raw/a/zips-2.csv" in ran.err


class TestPreview:
    CONFIG = (
        "sources: {s: {s3: {bucket: lake, prefix: raw/}, route: {'zips*': zips, 'plain*': plain}}}\n"
        "datasets: {zips: {dedupe: {keys: all}, fields: {zip_code: string, area: float, '*': string}}, other: {}}\n"
    )

    @pytest.fixture(autouse=True)
    def files(self, ingest: Ingest) -> None:
        Path("zips.csv").write_bytes(BAD)
        Path("config.yaml").write_text(self.CONFIG)

    def test_rows_refusals_repeats_and_totals(self, ingest: Ingest) -> None:
        ran = ingest("preview", "zips.csv", "--config", "config.yaml", "--rows", "2")
        assert ran.code == 0
        lines = [re.sub(" +", " ", line).strip() for line in ran.out.splitlines()]
        assert "row zip_code area city" in lines
        assert "string float string" in lines
        assert "1 00501 0.5 City 0" in lines
        assert "41 VALIDATION_FAIL area area is not a finite decimal number, not 'large' 99999,Nowhere,large" in lines
        assert "42 VALIDATION_FAIL 3 columns are expected and 2 were found 99998,Short" in lines
        assert "43 1 00501,City 0,0.5" in lines
        assert "43 rows, 40 published, 1 repeats, 2 refused; key: all columns" in lines

    def test_json_for_scripts(self, ingest: Ingest) -> None:
        told = json.loads(ingest("preview", "zips.csv", "--config", "config.yaml", "--json").out)
        assert told["rows"][0] == {"_row": 1, "zip_code": "00501", "area": 0.5, "city": "City 0"}
        assert told["columns"][1] == {"name": "area", "type": "float"}
        assert told["refused"][0] == {
            "row": 41, "reason": "VALIDATION_FAIL", "column": "area", "value": "large",
            "message": "area is not a finite decimal number", "raw": "99999,Nowhere,large\n",
            "raw_base64": "OTk5OTksTm93aGVyZSxsYXJnZQo=",
        }  # fmt: skip
        assert told["repeats"] == [{"row": 43, "of": 1, "raw": "00501,City 0,0.5\n"}]
        assert told["totals"]["reasons"] == {"VALIDATION_FAIL": 2}

    def test_without_a_configuration_every_column_is_a_string(self, ingest: Ingest) -> None:
        ran = ingest("preview", "zips.csv")
        assert "no spec: every column as a string" in ran.out
        assert "43 rows, 42 published, 0 repeats, 1 refused; key: a row's place in its file" in ran.out

    def test_a_file_that_is_refused_whole_ends_with_1(self, ingest: Ingest) -> None:
        Path("zips.csv").write_bytes(b"a,b\n1,2\n")
        ran = ingest("preview", "zips.csv", "--config", "config.yaml")
        assert ran.code == 1
        assert "SCHEMA_DRIFT" in ran.out and "required column missing: 'zip_code', 'area'" in ran.out

    def test_a_route_to_a_dataset_nobody_declares_reads_strings(self, ingest: Ingest) -> None:
        Path("plain.csv").write_bytes(ZIPS)
        told = json.loads(ingest("preview", "plain.csv", "--config", "config.yaml", "--json").out)
        assert (told["dataset"], told["totals"]["published"]) == ("plain", 40)

    def test_only_the_first_bytes_of_a_large_file(self, ingest: Ingest) -> None:
        told = json.loads(ingest("preview", "zips.csv", "--bytes", "100", "--json").out)
        assert (told["whole"], told["bytes"]) == (False, 100)
        assert "Only the first 100 bytes were read" in ingest("preview", "zips.csv", "--bytes", "100").out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["missing.csv"], "missing.csv: No such file or directory"),
            (["zips.csv", "--dataset", "zips"], "--dataset zips needs the configuration it is in"),
            (["zips.csv", "--config", "config.yaml", "--dataset", "zip"], "no dataset zip: zips?"),
            (["config.yaml", "--config", "config.yaml"], "no route leads it to one: --dataset NAME"),
            (["zips.csv", "--config", "none.yaml"], "none.yaml: can't be read"),
            (["zips.csv", "--bytes", "x"], "--bytes: 'x' is no size"),
        ],
    )
    def test_what_can_not_be_done_is_one_message(self, ingest: Ingest, arguments: list[str], message: str) -> None:
        ran = ingest("preview", *arguments)
        assert ran.code in (1, 2)
        assert message in ran.err and "Traceback" not in ran.err


class TestExplain:
    def test_all_of_them(self, ingest: Ingest) -> None:
        ran = ingest("explain")
        assert ran.code == 0
        assert [line.split()[0] for line in ran.out.splitlines()[1:]] == [reason.value for reason in Reason]

    @pytest.mark.parametrize("reason", list(Reason))
    def test_one_says_what_why_whether_and_where(self, ingest: Ingest, reason: Reason) -> None:
        ran = ingest("explain", reason.value.lower())
        meaning = MEANING[reason]
        assert (ran.code, ran.err) == (0, "")
        for text in (meaning.summary, meaning.cause, meaning.advice, meaning.bytes_at):
            assert text in ran.out
        assert ("it may" if meaning.retryable else "no: the same bytes") in ran.out

    def test_json(self, ingest: Ingest) -> None:
        told = json.loads(ingest("explain", "--json").out)["reasons"]
        assert [one["reason"] for one in told] == [reason.value for reason in Reason]
        one = json.loads(ingest("explain", "OBJECT_CHANGED", "--json").out)
        assert (one["retryable"], one["given_by"]) == (True, ["chunk-downloader"])

    @pytest.mark.parametrize(
        ("written", "meant"),
        [("SCHEMA-DRFT", "SCHEMA_DRIFT"), ("validation", "VALIDATION_FAIL"), ("corrupt", "OBJECT_CORRUPT")],
    )
    def test_an_unknown_reason_is_taken_for_the_closest_and_fails(
        self, ingest: Ingest, written: str, meant: str
    ) -> None:
        ran = ingest("explain", written)
        assert ran.code == 2
        assert f"the closest is {meant}" in ran.err
        assert ran.out.startswith(meant)

    def test_a_reason_like_no_other_lists_all(self, ingest: Ingest) -> None:
        ran = ingest("explain", "zzz")
        assert ran.code == 2
        assert all(reason.value in ran.err for reason in Reason)

    def test_services_give_the_reasons_that_are_said_to_be_theirs(self) -> None:
        """A service's own folder names every reason it gives."""
        services = Path(__file__).parents[3] / "services"
        given = {
            folder.name.replace("_", "-"): {
                name for file in folder.glob("*.py") for name in re.findall(r"Reason\.([A-Z_]+)", file.read_text())
            }
            for folder in services.iterdir()
            if folder.is_dir()
        }
        said = {
            service: {reason.name for reason, meaning in MEANING.items() if service in meaning.stages}
            for service in given
        }
        assert said == given
        assert MEANING[Reason.INTERNAL_ERROR].stages == (ANY_STAGE,)
