"""What every spec is made of: its manners, sizes, durations, names."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "kb": 1000, "mb": 10**6, "gb": 10**9}
_SIZES = _UNITS | {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(value: Any) -> Any:
    """`16MiB`, `64k`, `1048576` -> bytes. Raises ValueError with what to write."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value)
    if not found or found[2].lower() not in _SIZES:
        raise ValueError(f"{value!r} is no size: write 16MiB, 64KiB or a number of bytes")
    return int(float(found[1]) * _SIZES[found[2].lower()])


def parse_seconds(value: Any) -> Any:
    """`30s`, `5m`, `7d`, `250ms`, `30` -> seconds. Raises ValueError with what to write."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value)
    if not found or found[2] not in _SECONDS:
        raise ValueError(f"{value!r} is no duration: write 30s, 5m, 2h, 7d or a number of seconds")
    return float(found[1]) * _SECONDS[found[2]]


Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Spec(BaseModel):
    """Shared manners: frozen, strict about unknown keys, snake_case and camelCase. The text below a field is its
    description, from which `docs/configuration.md` is drawn."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        alias_generator=to_camel,
        use_enum_values=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    def canonical(self) -> bytes:
        """-> JSON with defaults left out, fields and routes in their written order: equal for equal specs."""
        return orjson.dumps(self.model_dump(mode="json", exclude_defaults=True, by_alias=False))

    def fingerprint(self) -> str:
        """-> 16 hex digits of the canonical form's SHA-256."""
        return hashlib.sha256(self.canonical()).hexdigest()[:16]
