"""Key patterns that send each file to its dataset, tried on every file that was seen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from ingestcore.datasets.spec import S3Source, SourceSpec
from ingestcore.inference.names import common_start, extension_of, folder_of, stem_of

_MAX_STEMS: Final = 8
"""More beginnings than this are no beginnings: then the folder, or what they share, makes the pattern."""

_START, _FOLDER, _BOTH, _NAMES = range(4)
"""What patterns say: how names start, the folder, both, or the whole names."""


def routes_of(groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """-> ordered patterns by which every file reaches its own dataset; the loosest that do.

    groups  by dataset: its files, as keys below the prefix
    """
    wanted = {name: dataset for dataset, names in groups.items() for name in names}
    level = dict.fromkeys(groups, _START)
    while True:
        route = _ordered({dataset: _patterns(names, level[dataset]) for dataset, names in groups.items()})
        wrong = _wrong(route, wanted)
        # Both say their folder; then the one that takes too much asks for less; where it can't, the other says more.
        tighter = {dataset for pair in wrong for dataset in pair if level[dataset] < _FOLDER}
        tighter = tighter or {dataset for dataset, _ in wrong if level[dataset] < _NAMES}
        tighter = tighter or {dataset for _, dataset in wrong if level[dataset] < _NAMES}
        if not tighter:
            return route
        for dataset in tighter:
            level[dataset] += 1


def _wrong(route: Mapping[str, str], wanted: Mapping[str, str]) -> set[tuple[str, str]]:
    """-> (dataset that gets a file, dataset it is of) where they differ."""
    # The bucket plays no part in routing.
    source = SourceSpec(s3=S3Source(bucket="any"), route=dict(route))
    reached = {name: source.dataset_of(name, "any") for name in wanted}
    return {(got, wanted[name]) for name, got in reached.items() if got is not None and got != wanted[name]}


def _patterns(names: Sequence[str], level: int) -> list[str]:
    """-> patterns that match all the names; the higher the level, the less they match besides."""
    extensions = sorted({extension_of(name) for name in names})
    stems = sorted({stem_of(name) for name in names})
    if len(stems) > _MAX_STEMS:
        stems = [re.sub(r"\d+$", "", common_start(stems))]
    folder = folder_of(names)
    if level == _START or (level == _FOLDER and not folder):
        return [f"{_literal(stem)}*{_literal(extension)}" for stem in stems for extension in extensions]
    if level == _FOLDER:
        return [f"{_literal(folder)}*{_literal(extension)}" for extension in extensions]
    if level == _BOTH:
        deep = "" if all(name.rpartition("/")[0] + "/" == folder for name in names) or not folder else "*"
        return [
            f"{_literal(folder)}{deep}{_literal(s)}*{_literal(extension)}" for s in stems for extension in extensions
        ]
    return [_literal(name) for name in sorted(names)]


def _ordered(patterns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The first match wins: a pattern with more letters that must be there comes before one with fewer."""
    pairs = [(pattern, dataset) for dataset, made in patterns.items() for pattern in made]
    order = list(patterns)
    pairs.sort(key=lambda pair: (-_literals(pair[0]), order.index(pair[1])))
    # Groups stay together where that changes nothing: an operator reads them by dataset.
    route = dict(pairs)
    by_dataset = {pattern: dataset for dataset in order for pattern, d in route.items() if d == dataset}
    return by_dataset if _disjoint(list(by_dataset.items())) else route


def _disjoint(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether no key can match patterns of two datasets, as far as the first letters of its last part tell."""
    heads = [(pattern.rpartition("/")[2].partition("*")[0], dataset) for pattern, dataset in pairs]
    return not any(
        dataset != another and (head.startswith(other) or other.startswith(head))
        for (head, dataset), (other, another) in combinations(heads, 2)
    )


def _literals(pattern: str) -> int:
    return len(pattern.replace("*", ""))


def _literal(text: str) -> str:
    """-> a pattern that matches just this text."""
    return re.sub(r"([*?[])", r"[\1]", text)
