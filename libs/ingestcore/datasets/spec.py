"""Specs of sources, datasets and sinks: what operators write and `ingest.config` carries.

Names are snake_case; the camelCase of JSON configurations is accepted too. Unknown keys are refused.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from enum import StrEnum
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from ingestcore.datasets.decimal_digits import MAX_PRECISION, decimal_digits
from ingestcore.datasets.encodings import UTF_8, encoding_named
from ingestcore.datasets.http_source import HttpSource
from ingestcore.datasets.names import DEFAULT_TENANT
from ingestcore.datasets.postgres_sink import PostgresSink
from ingestcore.datasets.spec_values import Name as Name
from ingestcore.datasets.spec_values import Seconds as Seconds
from ingestcore.datasets.spec_values import Size as Size
from ingestcore.datasets.spec_values import Spec as Spec
from ingestcore.datasets.spec_values import parse_seconds as parse_seconds
from ingestcore.datasets.spec_values import parse_size as parse_size


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


def _short_field(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class OnExtra(StrEnum):
    """What to do with columns the spec does not name. `freeze`: the object is SCHEMA_DRIFT."""

    FREEZE = "freeze"
    DISCARD_VALUE = "discard_value"


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


class DedupeSpec(Spec):
    """What makes two rows the same."""

    keys: tuple[str, ...] | Literal["all"] | None = None
    """Columns, or `all` (the content), that make two rows the same; a list must contain the primary key. Left out:
    `all` with a primary key, else the row's place in its object, so that only reading again is deduplicated; of events,
    with a primary key or without, the event itself"""

    window: Seconds | None = Field(default=None, gt=0)
    """How long a key is remembered after it was published: within it exactly one row of a key is published, after it
    (an eighth of it later at most) one may be again; left out: for ever, of events `7d`"""

    capacity: int = Field(default=10_000_000, gt=0)
    """Keys the Bloom filter is made for; the check behind it is exact"""

    error_rate: float = Field(default=0.01, gt=0, lt=1)
    """Share of new keys that need the exact check"""


class DatasetSpec(Spec):
    """One dataset: fields, keys, rules. Empty: every column of the header, as strings."""

    primary_key: tuple[str, ...] = ()
    """Columns that say which thing a row is about"""

    revision: str | None = None
    """Column that says which version of the thing is newer"""

    dedupe: DedupeSpec = DedupeSpec()
    """What makes two rows the same"""

    fields: dict[str, Annotated[FieldSpec, BeforeValidator(_short_field)]] = Field(default_factory=dict)
    """By output name: a type, or a mapping (below); `"*"`: type of the rest. Left out: every column, as a string"""

    on_extra: OnExtra = OnExtra.FREEZE
    """Columns, or members of an event, not named: `freeze`: the object, or the event, is dead-lettered (SCHEMA_DRIFT);
    `discard_value`: they are left out"""

    csv: Dialect = Dialect()
    """How the file is written (below)"""

    description: str = ""
    """For people"""

    @property
    def named(self) -> dict[str, FieldSpec]:
        """Fields with a name of their own, in order."""
        return {name: spec for name, spec in self.fields.items() if name != "*"}

    @property
    def rest(self) -> FieldSpec | None:
        """Type of columns not named: of `"*"`, or string where the dataset declares no fields at all."""
        if "*" in self.fields:
            return self.fields["*"]
        return None if self.fields else FieldSpec()

    def key_columns(self) -> tuple[str, ...] | Literal["all"] | None:
        """What `_key` is made of: columns, `all`, or None for the row's coordinate."""
        if self.dedupe.keys is not None:
            return self.dedupe.keys
        return "all" if self.primary_key else None

    def key_version(self) -> str:
        """-> 8 hex digits that change only with key columns, their types or the canonical form."""
        keys = self.key_columns()
        used = self.named if keys == "all" else {n: self.named.get(n) for n in (*self.primary_key, *(keys or ()))}
        parts: dict[str, Any] = {"keys": keys, "primary_key": self.primary_key, "canonical": 2}
        parts["types"] = {n: (f.key_type, f.trim, f.casefold) if f else "rest" for n, f in sorted(used.items())}
        if keys == "all" and self.rest:
            parts["rest"] = self.rest.key_type
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]

    @model_validator(mode="after")
    def _names_exist(self) -> DatasetSpec:
        keys = self.dedupe.keys
        if isinstance(keys, tuple):
            missing = [name for name in self.primary_key if name not in keys]
            if missing:
                raise ValueError(f"dedupe.keys must contain the primary key: add {', '.join(missing)}")
        if self.fields and self.rest is None:
            wanted = (
                *self.primary_key,
                *(keys if isinstance(keys, tuple) else ()),
                *filter(None, (self.revision,)),
            )
            unknown = [name for name in wanted if name not in self.named]
            if unknown:
                raise ValueError(f"no such field: {', '.join(unknown)}; known: {', '.join(self.named)}")
        for name in self.fields:
            if name != "*" and name.startswith("_"):
                raise ValueError(f"field {name}: names that start with _ are the platform's")
        return self


class S3Access(Spec):
    """Which S3 server, and as whom."""

    region: str | None = None
    """Region; left out: the SDK's"""

    endpoint_url: str | None = None
    """Where the server is; left out: `S3_ENDPOINT_URL`, else AWS"""

    path_style: bool | None = None
    """Bucket in the path instead of the host name; left out: yes with an endpoint"""

    access_key_id: str | None = None
    """Left out: the SDK's credential chain. Write a reference, see Secrets"""

    secret_access_key: str | None = None
    """Goes with it"""

    role_arn: str | None = None
    """A role that is assumed with those credentials, see A role in another account"""

    external_id: str | None = Field(default=None, min_length=2, max_length=1224)
    """What the role's owner asks for"""

    role_session_name: str | None = None
    """What the role's owner sees in their logs; left out: `ingest-` and the service's or sink's name"""

    @field_validator("role_arn")
    @classmethod
    def _is_role(cls, value: str | None) -> str | None:
        if value is not None and "${" not in value and not _ROLE_ARN.fullmatch(value):
            raise ValueError(f"{value!r} is no role: arn:aws:iam::123456789012:role/name")
        return value

    @field_validator("role_session_name")
    @classmethod
    def _is_session_name(cls, value: str | None) -> str | None:
        if value is not None and "${" not in value and not re.fullmatch(r"[\w+=,.@-]{2,64}", value, re.ASCII):
            raise ValueError(f"{value!r} is no session name: 2 to 64 letters, digits and + = , . @ - _")
        return value

    @model_validator(mode="after")
    def _of_a_role(self) -> S3Access:
        for name in ("external_id", "role_session_name"):
            if self.role_arn is None and getattr(self, name) is not None:
                raise ValueError(f"{name} is of a role: add role_arn, or leave it out")
        return self


_ROLE_ARN = re.compile(r"arn:[\w-]+:iam::\d*:?role/\S+")


class S3Source(S3Access):
    """Where objects are."""

    bucket: str = Field(min_length=3)
    """The bucket's name"""

    prefix: str = ""
    """Keys that begin so; left out: all"""

    poll_interval: Seconds = 10.0
    """Pause between two listings"""


class SourceSpec(Spec):
    """One source: `s3`, or `http`."""

    tenant: Name = DEFAULT_TENANT
    """Whose data it is; kept apart everywhere"""

    s3: S3Source | None = None
    """Objects in a bucket, and where they are"""

    http: HttpSource | None = None
    """Events that producers post, and how they prove who they are"""

    provenance: dict[str, str] = Field(default_factory=dict)
    """`purpose`, `classification`, `ingestedBy`, `parentId`, `batchId`, `observedAt`: on every row"""

    route: dict[str, Name] | None = None
    """Ordered: key pattern → dataset, the first match wins"""

    dataset: Name | None = None
    """Where there is no `route`: the dataset of all objects or events; left out: the source's name"""

    @property
    def objects(self) -> S3Source:
        """Where the objects of an `s3` source are. Raises ValueError: it is none."""
        if self.s3 is None:
            raise ValueError("this source has no objects: it is no `s3` source")
        return self.s3

    @model_validator(mode="after")
    def _of_one_kind(self) -> SourceSpec:
        if self.s3 is None and self.http is None:
            raise ValueError("`s3` is missing: s3 with its bucket, or http with its auth for webhooks")
        if self.s3 is not None and self.http is not None:
            raise ValueError("`s3` and `http` are two sources: give each a name of its own")
        if self.http is not None and self.route is not None:
            raise ValueError("`route` picks datasets by object keys: write `dataset` for a source of webhooks")
        return self

    @field_validator("provenance")
    @classmethod
    def _known_names(cls, value: dict[str, str]) -> dict[str, str]:
        known = ("purpose", "classification", "ingestedBy", "parentId", "batchId", "observedAt")
        named = {to_camel(name): text for name, text in value.items()}
        unknown = sorted(set(named) - set(known))
        if unknown:
            raise ValueError(f"unknown provenance: {', '.join(unknown)}; known: {', '.join(known)}")
        return named

    def dataset_of(self, key: str, source: str) -> str | None:
        """-> dataset of an object key; None: no pattern matches."""
        if self.route is None:
            return self.dataset or source
        relative = key.removeprefix(self.objects.prefix)
        last = relative.rpartition("/")[2]
        for pattern, dataset in self.route.items():
            if fnmatch.fnmatchcase(relative if "/" in pattern else last, pattern):
                return dataset
        return None


class ParquetSink(S3Access):
    """Parquet files on S3."""

    uri: str = Field(pattern=r"^s3://[^/]{3,}(/.*)?$")
    """`s3://bucket/prefix/`; files lie below `<prefix>/<dataset>/`"""

    max_age: Seconds = 30.0
    """A row is in a file at most this long after it was read"""

    max_bytes: Size = 64 << 20
    """Input of one partition that makes a file"""

    batch_size: int = Field(default=131_072, gt=0)
    """Rows per row group and batch"""


class SinkSpec(Spec):
    """One sink: exactly one of the places below."""

    parquet: ParquetSink | None = None
    """Where and how files are written"""

    postgres: PostgresSink | None = None
    """Which database, and how its tables are kept"""

    from_: Literal["normalized", "dlq"] = Field(
        default="normalized", validation_alias=AliasChoices("from", "from_"), serialization_alias="from"
    )
    """What it reads; `dlq` makes a lake of dead letters, with the original bytes"""

    datasets: tuple[Name, ...] | None = None
    """Which ones; left out: all"""

    @property
    def lake(self) -> ParquetSink:
        """Of a sink with `parquet:`."""
        assert self.parquet is not None
        return self.parquet

    @property
    def database(self) -> PostgresSink:
        """Of a sink with `postgres:`."""
        assert self.postgres is not None
        return self.postgres


PLACES = ("parquet", "postgres")
"""Keys of a sink that say where it writes; `<key>-sink` is the service that does."""
