"""Fields of pydantic models as an operator reads them: key, default, range, meaning."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import annotated_types
import orjson
from pydantic import AliasChoices, BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from ingestcore.datasets.explain import inner_of, names_of
from ingestcore.datasets.spec import parse_seconds, parse_size

HEAD = ("key", "default", "meaning")
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_TIMES = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))

Row = tuple[str, ...]


def rows(model: type[BaseModel], *, prefix: str = "", opened: tuple[str, ...] = ()) -> list[Row]:
    """-> (key, default, meaning) of every field. `opened`: fields whose own fields stand in their place."""
    return list(_rows(model, prefix, opened))


def _rows(model: type[BaseModel], prefix: str, opened: tuple[str, ...]) -> Iterator[Row]:
    found = zip(names_of(model), model.model_fields.items(), strict=True)
    # A model's own fields say more about it than those it shares with others.
    for key, (name, field) in sorted(found, key=lambda entry: entry[1][0] not in model.__annotations__):
        if name in opened:
            inner = inner_of(field.annotation)
            assert isinstance(inner, type) and issubclass(inner, BaseModel)
            yield from _rows(inner, f"{prefix}{key}.", ())
        elif not field.exclude:
            yield f"`{prefix}{key}`", default_of(field), meaning_of(field)


def variables(model: type[BaseModel]) -> list[Row]:
    """-> (environment variables, default, meaning) of every field of a settings class."""
    start = str(model.model_config.get("env_prefix", ""))
    return [
        (" or ".join(f"`{text}`" for text in _names(start, name, field)), default_of(field), meaning_of(field))
        for name, field in model.model_fields.items()
    ]


def _names(start: str, name: str, field: FieldInfo) -> list[str]:
    """What operators type already comes first."""
    alias = field.validation_alias
    known = [str(text) for text in alias.choices] if isinstance(alias, AliasChoices) else [start + name.upper()]
    return sorted(known, key=lambda text: text.startswith(start))


def meaning_of(field: FieldInfo) -> str:
    """-> description and range."""
    text = " ".join((field.description or "").split()).removesuffix(".")
    limits = _limits(field)
    return f"{text} ({limits})" if limits else text


def default_of(field: FieldInfo) -> str:
    """-> as it would be written; blank where leaving it out is no value."""
    if field.is_required():
        return "required"
    value = None if field.default_factory else field.default
    if isinstance(value, BaseModel) or value in (None, "", ()):
        return ""
    return f"`{_written(value, field)}`"


def _written(value: Any, field: FieldInfo) -> str:
    if _is_read_by(field, parse_size):
        return next((f"{value // unit}{word}" for unit, word in _SIZES if value and value % unit == 0), str(value))
    if _is_read_by(field, parse_seconds):
        return next((f"{value / unit:g}{word}" for unit, word in _TIMES if value and value % unit == 0), f"{value:g}s")
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool | tuple):
        return orjson.dumps(value).decode()
    return str(value)


def _limits(field: FieldInfo) -> str:
    """Where only one end is given, "at least 1" and the like go without saying."""
    parts = field.metadata
    lows: list[Any] = [part.ge for part in parts if isinstance(part, annotated_types.Ge)]
    lows += [part.gt + 1 for part in parts if isinstance(part, annotated_types.Gt) and isinstance(part.gt, int)]
    highs: list[Any] = [part.le for part in parts if isinstance(part, annotated_types.Le)]
    low, high = max(lows, default=0), min(highs, default=None)
    if high is None:
        return f"at least {_written(low, field)}" if low > 1 else ""
    return f"{_written(low, field)} to {_written(high, field)}"


def _is_read_by(field: FieldInfo, reader: Callable[[Any], Any]) -> bool:
    """Whether texts of this field are read by a function, also inside `| None`."""
    inside = [getattr(part, "__metadata__", ()) for part in typing.get_args(field.annotation)]
    validators = [part for parts in ([*field.metadata], *inside) for part in parts]
    return any(isinstance(part, BeforeValidator) and part.func is reader for part in validators)
