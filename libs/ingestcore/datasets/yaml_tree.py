"""YAML or JSON text -> values that remember where and how they were written.

Scalars follow YAML 1.2: only `true` and `false` are booleans (`no` and `on` are text), dates are text, `010` is ten.
JSON is read by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ingestcore.datasets.problems import Finding, KeyPath

MAX_NODES = 100_000
"""Aliases can multiply a small file without end; no honest configuration comes near this."""

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """SafeLoader's grammar with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (as in the base class)


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    # The empty scalar is looked up under "", every other one under its first character.
    _Loader.add_implicit_resolver(
        _TAG + _name, re.compile(rf"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )


@dataclass
class Tree:
    """A document. Paths are keys and indices from the top.

    value     plain dict, list, str, int, float, bool, None; keys are always text
    lines     1-based line of each path (of its key, where it has one)
    written   source text of scalars that are not text to YAML (`010`, `true`, `null`)
    plain     paths of texts written without quotes
    findings  duplicate keys, odd keys
    """

    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    plain: set[KeyPath] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


def parse(text: str) -> Tree:
    """Raises yaml.MarkedYAMLError: not YAML at all; its mark says where."""
    tree = Tree(lines={(): 1})
    node = yaml.compose(_without_json_tabs(text), Loader=_Loader)
    if node is not None:
        _Reader(tree).read_top(node)
    return tree


def _without_json_tabs(text: str) -> str:
    """JSON may be indented with tabs, YAML may not. A tab inside a JSON string is not allowed raw, so none is lost."""
    return text.replace("\t", " ") if text.lstrip().startswith("{") else text


class _TooMany(yaml.MarkedYAMLError):
    pass


class _Reader:
    """Walks the nodes of one document into a tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._open: set[int] = set()
        self._left = MAX_NODES

    def read_top(self, node: Node) -> None:
        self._tree.value = self._read(node, ())

    def _read(self, node: Node, path: KeyPath) -> Any:
        self._left -= 1
        if self._left < 0 or id(node) in self._open:
            raise _TooMany(problem="aliases make this file endless", problem_mark=node.start_mark)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                return [self._item(child, (*path, index)) for index, child in enumerate(node.value)]
            assert isinstance(node, MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _item(self, node: Node, path: KeyPath) -> Any:
        self._tree.lines[path] = node.start_mark.line + 1
        return self._read(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in self._pairs(node, path):
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self._tree.findings.append(Finding(path, f"line {line}: a key must be text, not a list or mapping"))
                continue
            key = key_node.value
            if key in first_lines:
                self._tree.findings.append(
                    Finding(
                        path,
                        f"`{key}` is written twice, in lines {first_lines[key]} and {line}",
                        "one of the two: a later one would silently replace the first",
                    )
                )
                continue
            first_lines[key] = line
            self._tree.lines[(*path, key)] = line
            found[key] = self._read(value_node, (*path, key))
        return found

    def _pairs(self, node: MappingNode, path: KeyPath) -> Iterator[tuple[Node, Node]]:
        """The mapping's pairs; those merged in with `<<` come last and only where the mapping has none itself."""
        merged: list[tuple[Node, Node]] = []
        for key_node, value_node in node.value:
            if key_node.tag != _TAG + "merge":
                yield key_node, value_node
                continue
            parts = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            for part in parts:
                if isinstance(part, MappingNode):
                    merged += self._pairs(part, path)
                else:
                    self._tree.findings.append(Finding(path, "`<<` takes a mapping", "<<: *name of a mapping"))
        seen = {key.value for key, _ in node.value if isinstance(key, ScalarNode)}
        for key_node, value_node in merged:
            if isinstance(key_node, ScalarNode) and key_node.value not in seen:
                seen.add(key_node.value)
                yield key_node, value_node

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind not in ("null", "bool", "int", "float"):
            if node.style is None:
                self._tree.plain.add(path)
            return _joined_surrogates(text)
        self._tree.written[path] = text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        return int(text) if kind == "int" else float(text)


def _joined_surrogates(text: str) -> str:
    """JSON writes characters outside the basic plane as two escapes; YAML reads those as two halves."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
