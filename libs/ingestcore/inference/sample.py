"""Files as inference sees them: their first bytes, how they are written, and which of them belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ingestcore.inference.encoding import Encoding, encoding_of, other_format
from ingestcore.inference.names import stem_of
from ingestcore.inference.shape import Shape, shape_of

_EMPTY: Final = "empty"


@dataclass(frozen=True, slots=True)
class Sample:
    """The start of a file. name: key below the prefix, or path; data: inflated; whole: that is all of it."""

    name: str
    data: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Look:
    """A file that can be read. data: its start, as UTF-8 where its encoding is not read."""

    name: str
    data: bytes
    whole: bool
    encoding: Encoding
    shape: Shape

    @property
    def family(self) -> tuple[object, ...]:
        """Equal for files that one dataset reads: same dialect, same columns in any order. Without a header nothing
        names the columns: same number of them, and names of files that begin alike."""
        shape = self.shape
        if shape.dialect.header:
            return (shape.dialect, self.encoding.is_read, frozenset(shape.titles))
        return (shape.dialect, self.encoding.is_read, shape.titles, stem_of(self.name))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file left out, and why."""

    name: str
    why: str


def look(sample: Sample) -> Look | Skipped:
    """-> what kind of file it is."""
    if not sample.data:
        return Skipped(sample.name, _EMPTY)
    if other := other_format(sample.data):
        return Skipped(sample.name, f"not CSV but {other}")
    encoding = encoding_of(sample.data)
    text = encoding.to_utf8(sample.data)
    shape = shape_of(text, whole=sample.whole)
    if shape is None:
        return Skipped(sample.name, "no record in it" if sample.whole else "no record ends in its first bytes")
    if not encoding.is_read:
        return Look(sample.name, text, sample.whole, encoding, shape)
    shape = replace(shape, dialect=shape.dialect.model_copy(update={"encoding": encoding.name}))
    return Look(sample.name, sample.data, sample.whole, encoding, shape)


@dataclass(frozen=True, slots=True)
class Group:
    """Files of one dataset. titles: of all columns, in the order of the first file with the most of them."""

    looks: tuple[Look, ...]
    titles: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(look.name for look in self.looks)

    def missing_from(self, title: str) -> int:
        """-> files without that column."""
        return sum(title not in look.shape.titles for look in self.looks)


def groups_of(looks: Iterable[Look]) -> list[Group]:
    """-> files by header, in the order of their first file.

    A header with further columns joins the group whose columns it has, where the files' names begin alike: a report
    that has grown by a column is the same report.
    """
    families: dict[tuple[object, ...], list[Look]] = {}
    for found in looks:
        families.setdefault(found.family, []).append(found)
    groups: list[list[Look]] = []
    for family in sorted(families.values(), key=lambda family: -len(family[0].shape.titles)):
        home = next((group for group in groups if _grown(family, group)), None)
        if home is None:
            groups.append(list(family))
        else:
            home.extend(family)
    order = {name: place for place, name in enumerate(look.name for family in families.values() for look in family)}
    made = [Group(tuple(sorted(group, key=lambda f: order[f.name])), group[0].shape.titles) for group in groups]
    return sorted(made, key=lambda group: order[group.looks[0].name])


def _grown(smaller: Sequence[Look], group: Sequence[Look]) -> bool:
    small, large = smaller[0], group[0]
    return (
        small.shape.dialect == large.shape.dialect
        and small.shape.dialect.header
        and small.encoding.is_read == large.encoding.is_read
        and set(small.shape.titles) < set(large.shape.titles)
        and {stem_of(found.name) for found in smaller} <= {stem_of(found.name) for found in group}
    )
