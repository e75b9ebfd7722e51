"""Pages with drawn tables are as the code says, and every field they draw says what it means."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from ingestcore.datasets.spec import DatasetSpec, Dialect, FieldSpec, S3Source, Seconds, SinkSpec, Size, SourceSpec
from ingestcore.pages.drawn import DRAWN
from ingestcore.pages.fields import rows
from ingestcore.pages.regions import PageError, filled, table
from ingestcore.runtime.service import own_services
from ingestcore.settings import Platform

CHECKOUT = Path(__file__).parents[3]
MODELS: list[type[BaseModel]] = [
    Platform, SourceSpec, S3Source, SinkSpec, DatasetSpec, FieldSpec, Dialect,
    *(service.settings for service in own_services().values()),
]  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_a_file_is_as_the_code_says(name: str) -> None:
    page = (CHECKOUT / name).read_text(encoding="utf-8")
    assert DRAWN[name](page) == page, f"{name} is stale: run `make docs` and commit what it changes"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_says_what_it_means(model: type[BaseModel]) -> None:
    silent = [name for name, field in model.model_fields.items() if not field.description]
    assert silent == [], "write a text below the field"


class Sample(BaseModel):
    """A model with one field of each kind."""

    size: Size = Field(default=16 << 20, le=1 << 30, description="A size.")
    odd_size: Size = Field(default=1500, description="A size that is no multiple")
    wait: Seconds | None = Field(default=90.0, description="A time")
    much: int = Field(default=4, gt=0, le=64, description="A number")
    least: int = Field(default=2000, ge=1000, description="Another")
    from_: str = Field(description="Text\nover two lines | with a bar")
    words: tuple[str, ...] = Field(default=("a",), description="Words")
    made: list[int] = Field(default_factory=list, description="Made anew")
    hidden: int = Field(default=0, exclude=True, description="Never written by people")


def test_fields_are_written_as_operators_write_them() -> None:
    assert rows(Sample, prefix="x.") == [
        ("`x.size`", "`16MiB`", "A size (0 to 1GiB)"),
        ("`x.odd_size`", "`1500`", "A size that is no multiple"),
        ("`x.wait`", "`90s`", "A time"),
        ("`x.much`", "`4`", "A number (1 to 64)"),
        ("`x.least`", "`2000`", "Another (at least 1000)"),
        ("`x.from`", "required", "Text over two lines | with a bar"),
        ("`x.words`", '`["a"]`', "Words"),
        ("`x.made`", "", "Made anew"),
    ]
    assert "over two lines \\| with" in table(("a", "b", "c"), rows(Sample))


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    page = "before\n<!-- drawn: a -->\nold\n<!-- end -->\nafter <!-- end -->\n<!-- drawn: b -->\n<!-- end -->\n"
    drawn = {"a": "new\n", "b": "| b |"}
    once = filled(page, drawn)
    assert once == (
        "before\n<!-- drawn: a -->\nnew\n<!-- end -->\nafter <!-- end -->\n<!-- drawn: b -->\n| b |\n<!-- end -->\n"
    )
    assert filled(once, drawn) == once


@pytest.mark.parametrize(
    ("page", "drawn", "says"),
    [
        ("<!-- drawn: a -->\n<!-- end -->\n", {}, "nothing draws the region a"),
        ("", {"a": ""}, "region a stands 0 times"),
        ("<!-- drawn: a -->\n<!-- end -->\n" * 2, {"a": ""}, "region a stands 2 times"),
        ("<!-- drawn: a -->\n", {"a": ""}, "not closed"),
        ("<!-- drawn: a -->\n<!-- drawn: b -->\n<!-- end -->\n", {"a": "", "b": ""}, "not closed"),
    ],
)
def test_a_page_that_does_not_fit_what_is_drawn_is_refused(page: str, drawn: dict[str, str], says: str) -> None:
    with pytest.raises(PageError, match=says):
        filled(page, drawn)
