"""Spec of a Postgres sink."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import AliasChoices, Field, field_validator

from ingestcore.datasets.spec_values import Seconds, Spec

_IDENTIFIER_BYTES = 63
"""Postgres cuts longer names off without a word."""


EMBEDDED_DSN: Final = "${POSTGRES_URL}"
"""Where this is not set, `ingest up` starts a Postgres."""


class PostgresSink(Spec):
    """Tables of a Postgres database."""

    dsn: str = EMBEDDED_DSN
    """`postgresql://user:password@host:5432/database`; write a reference, see Secrets"""

    schema_: str = Field(
        default="public", validation_alias=AliasChoices("schema", "schema_"), serialization_alias="schema"
    )
    """The tables' schema; it must be there"""

    table: str | None = None
    """Of a sink with one dataset; left out: the dataset's name"""

    create: bool = True
    """Make a table that is not there; `false`: say so and wait"""

    alter: Literal["additive", "none"] = "additive"
    """Columns the table lacks: `additive` adds them, `none` says so and waits. Nothing else is ever altered"""

    on_outage: Literal["pause", "dead_letter"] = "pause"
    """While the database is away: `pause` and go on where it was left, or `dead_letter` the rows once the circuit
    breaker is open"""

    batch_size: int = Field(default=10_000, gt=0, le=1_000_000)
    """Rows written in one transaction at most"""

    connect_timeout: Seconds = Field(default=5.0, ge=1)
    """How long to wait for a connection"""

    statement_timeout: Seconds = Field(default=15.0, gt=0)
    """How long one statement may take"""

    open_after: int = Field(default=5, gt=0)
    """Failures in a row that open the circuit breaker"""

    half_open_after: Seconds = Field(default=30.0, gt=0)
    """How long the open breaker leaves the database alone before it tries once"""

    @field_validator("dsn")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if "${" not in value and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("this is no address of Postgres: postgresql://user:password@host:5432/database")
        # Its client would take a part of the password for the host, and tell it.
        before_host, _, _ = value.partition("://")[2].partition("?")[0].rpartition("@")
        if "${" not in value and ("@" in before_host or "/" in before_host):
            raise ValueError("user and password hold characters that end them: write @ as %40, / as %2F, : as %3A")
        return value

    @field_validator("schema_", "table")
    @classmethod
    def _is_identifier(cls, value: str | None) -> str | None:
        if value is not None and (not value or "\0" in value or len(value.encode()) > _IDENTIFIER_BYTES):
            raise ValueError(f"{value!r} is no name of Postgres: 1 to {_IDENTIFIER_BYTES} bytes")
        return value
