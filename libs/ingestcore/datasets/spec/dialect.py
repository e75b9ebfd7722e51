"""How a CSV file is written."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from ingestcore.datasets.encodings import UTF_8, encoding_named
from ingestcore.datasets.spec_values import Spec


class Dialect(Spec):
    """How the CSV is written. Quotes open only at a field's start."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Between fields; a tab is `"\\t"` in double quotes"""

    quote: str | None = Field(default='"', min_length=1, max_length=1)
    """Around fields; `null` for none"""

    double_quote: bool = True
    """A doubled quote inside quotes is one quote"""

    escape: str | None = Field(default=None, min_length=1, max_length=1)
    """A character that takes the next one literally"""

    header: bool = True
    """The first record names the columns; `false`: `fields` name them, in order"""

    encoding: str = UTF_8
    """`utf-8`, or one with one byte a character such as `windows-1252`, see below"""

    null_values: tuple[str, ...] = ("",)
    """Unquoted texts that mean null"""

    comment: str | None = Field(default=None, min_length=1, max_length=1)
    """Records that begin with it are skipped and counted as blank"""

    skip_rows: int = Field(default=0, ge=0)
    """Lines before the header that are no data"""

    @field_validator("encoding")
    @classmethod
    def _readable(cls, value: str) -> str:
        return encoding_named(value)

    @model_validator(mode="after")
    def _characters_differ(self) -> Dialect:
        names = ("delimiter", "quote", "escape", "comment")
        given = {name: character for name in names if (character := getattr(self, name)) is not None}
        for name, character in given.items():
            if not character.isascii() or character in "\r\n\0":
                raise ValueError(f"{name} must be one ASCII character that is no line end, not {character!r}")
        if len(set(given.values())) < len(given):
            raise ValueError("delimiter, quote, escape and comment must differ; doubled quotes need no `escape`")
        return self
