"""Rules of a field as vectorised masks: nullable, min/max, length, regex, enum. A null breaks only `nullable`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ingestcore.datasets.decimal_digits import decimal_text
from ingestcore.datasets.spec import FieldSpec, Type
from ingestcore.tabular.formats import compile_format
from ingestcore.tabular.texts import Mask, arrow_type, as_mask, boolean_words, literal, localised

_ORDERED = (Type.INTEGER, Type.FLOAT, Type.DECIMAL, Type.DATE, Type.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Rule:
    """`broken`: typed values -> mask of rows that break it. `wanted` ends a sentence: "… but must be at least 0"."""

    broken: Callable[[pa.Array], Mask]
    wanted: str


def rules_of(name: str, field: FieldSpec) -> tuple[Rule, ...]:
    """-> the field's rules. Raises ValueError: a rule does not fit the type, with advice."""
    try:
        _check_reading(field)
        return tuple(_rules(field))
    except (ValueError, pa.ArrowInvalid) as error:
        raise ValueError(f"field {name}: {error}") from error


def _check_reading(field: FieldSpec) -> None:
    if field.format is not None:
        if field.type not in (Type.DATE, Type.TIMESTAMP):
            raise ValueError("`format` is for dates and timestamps")
        compile_format(field.format)
    if field.timezone is not None:
        if field.type is not Type.TIMESTAMP:
            raise ValueError("`timezone` is for timestamps")
        localised(pa.array([0], pa.timestamp("us")), field.timezone)
    if field.type is Type.BOOLEAN:
        boolean_words(field)
    elif field.true is not None or field.false is not None:
        raise ValueError("`true` and `false` are for booleans")


def _rules(field: FieldSpec) -> list[Rule]:
    rules = [] if field.nullable else [Rule(lambda values: as_mask(values.is_null()), "not be null")]
    for bound, compare, words in ((field.min, pc.less, "at least"), (field.max, pc.greater, "at most")):
        if bound is not None:
            rules.append(_bound(_edge(bound, field), compare, f"be {words} {bound}"))
    lengths = ((field.length, pc.not_equal, "exactly"), (field.min_length, pc.less, "at least"))
    for length, compare, words in (*lengths, (field.max_length, pc.greater, "at most")):
        if length is not None:
            _only_strings(field, "lengths are")
            rules.append(_length(length, compare, f"have {words} {length} characters"))
    if field.regex is not None:
        _only_strings(field, "`regex` is")
        rules.append(_regex(field.regex))
    if field.enum is not None:
        if field.type is Type.JSON:
            raise ValueError("`enum` can't be used with json: one value can be written in many ways")
        allowed = pa.array([literal(text, field) for text in field.enum], arrow_type(field))
        rules.append(_enum(allowed, field.enum))
    return rules


def _edge(bound: float | str, field: FieldSpec) -> pa.Scalar:
    if field.type not in _ORDERED:
        raise ValueError(f"`min` and `max` are for numbers, dates and timestamps, not for {field.type.value}")
    if field.type in (Type.INTEGER, Type.FLOAT) and not isinstance(bound, str):
        return pa.scalar(bound)
    if field.type is Type.DECIMAL:
        return literal(decimal_text(bound), field)
    # Bounds are ISO texts whatever the format in the file.
    return literal(str(bound), field.model_copy(update={"format": None}))


def _only_strings(field: FieldSpec, what: str) -> None:
    if field.type is not Type.STRING:
        raise ValueError(f"{what} for strings; use `min`, `max` or `enum` for {field.type.value}")


def _bound(edge: pa.Scalar, compare: Callable[..., pa.Array], wanted: str) -> Rule:
    return Rule(lambda values: as_mask(compare(values, edge)), wanted)


def _length(length: int, compare: Callable[..., pa.Array], wanted: str) -> Rule:
    return Rule(lambda values: as_mask(compare(pc.utf8_length(values), length)), wanted)


def _regex(pattern: str) -> Rule:
    whole = rf"\A(?:{pattern})\z"
    pc.match_substring_regex(pa.array([""]), whole)
    return Rule(lambda values: as_mask(pc.invert(pc.match_substring_regex(values, whole))), f"match {pattern}")


def _enum(allowed: pa.Array, words: tuple[str, ...]) -> Rule:
    listed = ", ".join(words[:12]) + (" …" if len(words) > 12 else "")

    def broken(values: pa.Array) -> Mask:
        return as_mask(pc.and_not(values.is_valid(), pc.is_in(values, value_set=allowed)))

    return Rule(broken, f"be one of {listed}")
