"""JSON in keys: one form however a value is spaced and sorted, and never one form for two values."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ingestcore.tabular.json_texts import canonical_json, parse_json

DIGITS = st.integers(0, 10**25).map(str)
NUMBERS = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), st.integers(0, 10**9), DIGITS),
    st.builds("{}e{}".format, st.integers(1, 9), st.integers(-330, 300)),
)
LEAVES = st.one_of(st.none(), st.booleans(), st.text(max_size=20), NUMBERS.map(lambda text: ("number", text)))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=12,
)


def written(value: Any, chance: random.Random) -> str:
    """A value as some writer puts it, with white space and in an order of its own."""
    space = chance.choice(["", " ", "\n\t"])
    if isinstance(value, tuple):
        return space + value[1] + space
    if isinstance(value, list):
        return "[" + space + ",".join(written(item, chance) for item in value) + "]" + space
    if isinstance(value, dict):
        pairs = [f"{json.dumps(k)}{space}:{written(v, chance)}" for k, v in value.items()]
        chance.shuffle(pairs)
        return "{" + space + ",".join(pairs) + "}"
    return space + json.dumps(value, ensure_ascii=chance.random() < 0.5) + space


def meaning(value: Any) -> Any:
    """What makes two values two: also an integer and a number with a point are."""
    if isinstance(value, tuple):
        whole = value[1].lstrip("-").isdigit()
        return ("number", whole, Decimal(value[1]))
    if isinstance(value, list):
        return ("list", *map(meaning, value))
    if isinstance(value, dict):
        return ("object", frozenset((k, meaning(v)) for k, v in value.items()))
    return (type(value).__name__, value)


def form(text: str) -> str:
    canonical: list[str] = canonical_json(pa.array([text])).to_pylist()
    return canonical[0]


@given(VALUES, VALUES, st.integers())
def test_a_value_has_one_form_and_no_two_values_share_one(one: Any, other: Any, seed: int) -> None:
    chance = random.Random(seed)
    assert form(written(one, chance)) == form(written(one, chance))
    if form(written(one, chance)) == form(written(other, chance)):
        assert meaning(one) == meaning(other)


@given(VALUES, st.integers())
def test_a_long_number_beside_others_does_not_change_how_these_count(value: Any, seed: int) -> None:
    text = written(value, random.Random(seed))
    assert form(f"[{text}, {'1' * 30}]") == f"[{form(text)},{'1' * 30}]"


@given(st.lists(st.one_of(VALUES.map(lambda value: written(value, random.Random(1))), st.text(max_size=8)), max_size=8))
def test_a_verdict_is_the_same_alone_and_among_others(texts: list[str]) -> None:
    found = parse_json(pa.array([text.encode() for text in texts], pa.binary())).to_pylist()
    for text, value in zip(texts, found, strict=True):
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            assert value is None
        else:
            assert value == text
