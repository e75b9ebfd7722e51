"""One column of a dataset: its type, its rules, what it is called in the file."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import AliasChoices, Field, field_serializer, field_validator, model_validator

from ingestcore.datasets.decimal_digits import MAX_PRECISION, decimal_digits
from ingestcore.datasets.spec_values import Spec


class Type(StrEnum):
    """Types of a field. Timestamps are microseconds in UTC. A decimal is written with its digits: `decimal(10,2)`."""

    STRING = "string"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    DECIMAL = "decimal"
    JSON = "json"


class FieldSpec(Spec):
    """One column."""

    type: Type = Type.STRING
    """What is read, see the types above; alone it may be written as `name: type`"""

    precision: int | None = Field(default=None, ge=1, le=MAX_PRECISION, exclude=True)
    """Digits of a decimal, all together; written with the type: `decimal(10,2)`"""

    scale: int | None = Field(default=None, ge=0, exclude=True)
    """Digits of a decimal after the point; written with the type"""

    from_: str | None = Field(default=None, validation_alias=AliasChoices("from", "from_"), serialization_alias="from")
    """Its name in the file, where it differs; of events where it is in the body, see Events"""

    nullable: bool = True
    """`false`: a null is a bad row"""

    required: bool = True
    """`false`: the column may be missing from the file, or the member from an event; it is null then"""

    min: float | int | str | None = None
    """Smallest value of numbers, decimals, dates and timestamps (ISO text), inclusive. A bound of a decimal with more
    than 15 digits needs quotes"""

    max: float | int | str | None = None
    """Largest value, inclusive"""

    length: int | None = Field(default=None, ge=0)
    """Exact number of characters of a string"""

    min_length: int | None = Field(default=None, ge=0)
    """Fewest characters"""

    max_length: int | None = Field(default=None, ge=0)
    """Most characters"""

    regex: str | None = None
    """The whole value must match (RE2)"""

    enum: tuple[str, ...] | None = None
    """Allowed values, as written in the file; not of `json`"""

    format: str | None = None
    """strptime format of a date or timestamp, where it is not ISO 8601"""

    timezone: str | None = None
    """Zone of timestamps written without one, where it is not UTC"""

    true: tuple[str, ...] | None = None
    """Words that are true, where they are not true, t, yes, y, 1 in any case"""

    false: tuple[str, ...] | None = None
    """Words that are false, where they are not false, f, no, n, 0 in any case"""

    pii: bool = False
    """Marks personal data"""

    trim: bool = False
    """Spaces around a string do not count in keys; the column stays as written"""

    casefold: bool = False
    """Case of a string does not count in keys; the column stays as written"""

    @property
    def digits(self) -> tuple[int, int]:
        """Precision and scale of a decimal."""
        assert self.precision is not None and self.scale is not None
        return self.precision, self.scale

    @property
    def written_type(self) -> str:
        """The type as operators write it."""
        return "decimal({},{})".format(*self.digits) if self.type is Type.DECIMAL else self.type.value

    @property
    def key_type(self) -> str:
        """The type as keys see it: more digits before the point leave a decimal's keys as they are."""
        return f"decimal:{self.scale}" if self.type is Type.DECIMAL else self.type.value

    @model_validator(mode="before")
    @classmethod
    def _split_digits(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("type"), str) and "(" in value["type"]:
            try:
                precision, scale = decimal_digits(value["type"])
            except ValueError:
                return value  # told below, at the type itself
            return value | {"type": Type.DECIMAL, "precision": precision, "scale": scale}
        return value

    @field_validator("type", mode="before")
    @classmethod
    def _sound_digits(cls, value: Any) -> Any:
        if isinstance(value, str) and "(" in value:
            decimal_digits(value)
        return value

    @field_validator("min", "max")
    @classmethod
    def _fits_json(cls, value: float | int | str | None) -> float | int | str | None:
        return str(value) if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64 else value

    @model_validator(mode="after")
    def _digits_where_due(self) -> FieldSpec:
        given = (self.precision, self.scale)
        if self.type is Type.DECIMAL and None in given:
            raise ValueError("decimal needs its digits: decimal(10,2), 10 in all, 2 of them after the point")
        if self.type is not Type.DECIMAL and given != (None, None):
            raise ValueError("precision and scale are those of a decimal: decimal(10,2)")
        return self

    @field_serializer("type")
    def _type_as_written(self, value: Type) -> str:
        return self.written_type


def short_field(value: Any) -> Any:
    """`name: type` -> the mapping it is short for."""
    return {"type": value} if isinstance(value, str) else value
