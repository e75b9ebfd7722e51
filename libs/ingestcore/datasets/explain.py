"""pydantic's verdict on a spec -> findings in an operator's words, at the place as it was written."""

from __future__ import annotations

import copy
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ingestcore.datasets.names import NAME_RULE, as_name, snake
from ingestcore.datasets.problems import Finding, KeyPath, nearest
from ingestcore.datasets.secrets import redact
from ingestcore.datasets.yaml_tree import Tree

ModelT = TypeVar("ModelT", bound=BaseModel)

_MEANT = {
    "str": "string", "text": "string", "varchar": "string", "char": "string",
    "int": "integer", "long": "integer", "bigint": "integer", "smallint": "integer", "int64": "integer",
    "double": "float", "number": "float", "real": "float", "numeric": "decimal", "money": "decimal",
    "jsonb": "json", "object": "json", "struct": "json", "variant": "json",
    "bool": "boolean", "datetime": "timestamp", "time": "timestamp",
    "error": "freeze", "strict": "freeze", "ignore": "discard_value", "drop": "discard_value",
    "dead_letters": "dlq", "dead-letters": "dlq", "deadletter": "dlq",
}  # fmt: skip
"""What other tools call our values."""

_DIGITS = {"decimal": "decimal(10,2)"}
"""Values that are written with more than their name."""

_INSTEAD = {
    "uri": "s3://bucket/prefix/",
    "bucket": "the bucket's name alone, 3 characters or more, without s3:// or a path",
    "delimiter": 'one character in double quotes, e.g. ";" or "\\t" for a tab',
    "quote": "one character, or null for files without quotes",
    "escape": 'one character, e.g. "\\\\", or leave it out',
    "comment": 'one character, e.g. "#"',
    "error_rate": "a share between 0 and 1, e.g. 0.01",
    "s3": "{bucket: name, prefix: folder/}",
    "auth": "{scheme: standard-webhooks, secrets: ['${NAME}']}",
    "parquet": "{uri: s3://bucket/prefix/}",
    "postgres": '{dsn: "${POSTGRES_URL}"}',
    "dsn": "postgresql://user:password@host:5432/database",
    "keys": "all, or a list of columns, e.g. [id, updated_at]",
}
_ROUNDS = 4
"""Taking numbers as written is one round, the fields another, the rules over the whole spec a third."""


def build(model: type[ModelT], value: Any, tree: Tree, at: KeyPath) -> tuple[ModelT | None, list[Finding]]:
    """Validate the value found at a path. -> the spec (None where it has errors) and what was wrong.

    A text may be written like a number (`enum: [1, 2]`): it is taken as written.
    """
    value = copy.deepcopy({} if value is None else value)
    findings: dict[tuple[KeyPath, str], Finding] = {}
    for _ in range(_ROUNDS):
        try:
            spec = model.model_validate(value)
        except ValidationError as error:
            details = error.errors()
            if _as_written(value, details, tree, at):
                continue
            # Rules over the whole spec are judged only where every field is sound: take out what is not, look again,
            # and hear only those rules then.
            heard = [d for d in details if _is_rule(d)] if findings else details
            for finding in _findings(model, value, heard, tree, at):
                findings.setdefault((finding.path, finding.message), finding)
            if not _without(value, details):
                return None, list(findings.values())
        else:
            return (None if findings else spec), list(findings.values())
    return None, list(findings.values())


def _is_rule(detail: ErrorDetails) -> bool:
    """Whether it speaks of the whole spec, and not of what may have been taken out because it was wrong."""
    said = str(detail.get("ctx", {}).get("error", ""))
    return detail["type"] == "value_error" and not detail["loc"] and " is missing" not in said


def _as_written(value: Any, details: Iterable[ErrorDetails], tree: Tree, at: KeyPath) -> bool:
    """Put the source text of numbers and booleans where text is wanted. -> changed anything?"""
    changed = False
    for detail in details:
        path = _place(value, detail["loc"])
        text = tree.written.get((*at, *path))
        in_list = bool(path) and isinstance(path[-1], int)
        if detail["type"] == "string_type" and path and text and (in_list or _get(value, path) is not None):
            _get(value, path[:-1])[path[-1]] = text
            changed = True
    return changed


def _without(value: Any, details: Iterable[ErrorDetails]) -> bool:
    """Remove what is wrong; a wrong mapping becomes an empty one, so that its name stays known. -> changed anything?"""
    changed = False
    for path in sorted({_place(value, d["loc"]) for d in details}, key=lambda p: [str(x) for x in p], reverse=True):
        parent = _get(value, path[:-1]) if path else None
        if isinstance(parent, dict) and path[-1] in parent:
            if len(path) > 1 and path[-2] == "fields" and not isinstance(parent[path[-1]], dict):
                parent[path[-1]] = {}
            else:
                del parent[path[-1]]
            changed = True
    return changed


def _findings(
    model: type[BaseModel], value: Any, details: list[ErrorDetails], tree: Tree, at: KeyPath
) -> Iterable[Finding]:
    """One finding per place: the branches of a union are one mistake."""
    by_place: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in details:
        by_place.setdefault(_place(value, detail["loc"]), []).append(detail)
    for path, group in by_place.items():
        outer = all(d["type"] == "literal_error" or d["type"].endswith("_type") for d in group)
        if outer and any(len(other) > len(path) and other[: len(path)] == path for other in by_place):
            continue  # an item inside says it better
        detail = next((d for d in group if d["type"] in ("extra_forbidden", "value_error")), group[0])
        yield _finding(model, value, path, detail, tree, at)


def _finding(
    model: type[BaseModel], value: Any, path: KeyPath, detail: ErrorDetails, tree: Tree, at: KeyPath
) -> Finding:
    kind, context = detail["type"], detail.get("ctx", {})
    last = snake(str(path[-1])) if path else ""
    given = redact(_get(value, path), last)
    full = (*at, *path)
    if kind == "extra_forbidden":
        return _unknown_key(_model_at(model, path[:-1]), value, path, full)
    if kind == "missing":
        missing = snake(str(detail["loc"][-1]))
        hint = _INSTEAD.get(missing, f"{missing}: ...")
        return Finding(full, f"`{missing}` is missing", hint if hint.startswith(missing) else f"{missing}: {hint}")
    if kind == "value_error":
        return _told_by_spec(str(context.get("error", detail["msg"])), value, path, at)
    if kind in ("enum", "literal_error"):
        return _not_one_of(str(given), str(context["expected"]), full, last)
    if kind == "string_pattern_mismatch":
        if last == "uri":
            return Finding(full, f"{given!r} is no S3 address", _INSTEAD["uri"])
        return Finding(full, f"{given!r} is no name here", f"{as_name(str(given))}: {NAME_RULE}")
    if kind in ("tuple_type", "list_type") and not isinstance(given, dict | list):
        return Finding(full, f"must be a list, not {_called(given)}", f"[{_text(given, full, tree)}]")
    if kind == "model_type" and len(path) > 1 and path[-2] == "fields":
        return Finding(full, f"must be a type or a mapping, not {_called(given)}", "string, or {type: string, ...}")
    return Finding(full, _wrong_value(kind, given, context), _INSTEAD.get(last, ""))


def _wrong_value(kind: str, given: Any, context: Mapping[str, Any]) -> str:
    bounds = {
        "greater_than": "more than {gt}", "greater_than_equal": "{ge} or more",
        "less_than": "less than {lt}", "less_than_equal": "{le} or less",
        "string_too_short": "at least {min_length} character(s) long",
        "string_too_long": "at most {max_length} character(s) long",
    }  # fmt: skip
    if kind in bounds:
        return f"{given!r} must be {bounds[kind].format(**context)}"
    wanted = {
        "int": "a whole number", "float": "a number", "bool": "true or false", "string": "text",
        "tuple": "a list", "list": "a list", "dict": "a mapping of names to values", "model": "a mapping",
    }  # fmt: skip
    return f"must be {wanted.get(kind.split('_')[0], kind.replace('_', ' '))}, not {_called(given)}"


def _unknown_key(model: type[BaseModel] | None, value: Any, path: KeyPath, full: KeyPath) -> Finding:
    key = str(path[-1])
    known = names_of(model) if model else []
    siblings = _get(value, path[:-1])
    if snake(key) in known and any(snake(str(k)) == snake(key) and k != key for k in siblings):
        return Finding(full, f"`{key}` is written twice, in snake_case and in camelCase", "one of the two")
    inside = next((name for name in known if model and snake(key) in _names_inside(model, name)), "")
    meant = f"{inside}: {{{snake(key)}: ...}}" if inside else nearest(snake(key), known)
    return Finding(full, f"unknown key `{key}`", meant or f"one of: {', '.join(known)}")


def _not_one_of(given: str, expected: str, full: KeyPath, last: str) -> Finding:
    allowed = re.findall(r"'([^']*)'", expected)
    if last == "keys":
        return Finding(full, f"{given!r} is neither `all` nor a list of columns", f"all, or [{given}]")
    meant = _MEANT.get(given.lower(), "") if _MEANT.get(given.lower()) in allowed else nearest(given, allowed)
    meant, *allowed = (_DIGITS.get(word, word) for word in (meant, *allowed))
    choice = f"one of: {', '.join(allowed)}"
    return Finding(full, f"{given!r} is not known here", f"{meant} ({choice})" if meant else choice)


def _told_by_spec(message: str, value: Any, path: KeyPath, at: KeyPath) -> Finding:
    """The specs' own rules say `problem: advice`; put them where the words they speak of were written."""
    problem, _, known = message.partition("; known: ")
    advice = f"one of: {known}" if known else ""
    if message.startswith("field "):
        problem = message.partition(": ")[2]
    elif not known and ": " in message:
        problem, _, advice = message.rpartition(": ")
    home: KeyPath = path
    if not path:
        home = next((place for place in _homes(message) if _get(value, place) is not None), path)
    return Finding((*at, *home), problem, advice)


def _homes(message: str) -> Iterable[KeyPath]:
    if message.startswith("dedupe.keys"):
        yield ("dedupe", "keys")
    if found := re.match(r"field (.+): names", message):
        yield ("fields", found[1])
    if message.startswith("no such field"):
        yield from (("primary_key",), ("primaryKey",), ("dedupe", "keys"), ("revision",))


def _place(value: Any, loc: Iterable[int | str]) -> KeyPath:
    """-> the part of pydantic's location that exists in the value, spelt as written; union tags are left out."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(value, dict):
            key = next((k for k in value if k == part or snake(str(k)) == snake(str(part))), None)
            if key is not None:
                path.append(key)
                value = value[key]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            path.append(part)
            value = value[part]
    return tuple(path)


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """-> the model that judges the mapping at a path."""
    kind: Any = model
    for part in path:
        if _is_model(kind):
            field = kind.model_fields.get(_field_name(kind, str(part)))
            kind = inner_of(field.annotation) if field else None
        else:
            kind = inner_of(typing.get_args(kind)[-1]) if typing.get_args(kind) else None
    return kind if _is_model(kind) else None


def _names_inside(model: type[BaseModel], name: str) -> list[str]:
    inner = _model_at(model, (name,))
    return names_of(inner) if inner else []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def names_of(model: type[BaseModel]) -> list[str]:
    """-> keys of a model as operators write them (`from`, not `from_`)."""
    return [name.rstrip("_") for name in model.model_fields]


def _field_name(model: type[BaseModel], key: str) -> str:
    return next((name for name in model.model_fields if name.rstrip("_") == snake(key)), "")


def inner_of(annotation: Any) -> Any:
    """-> the model or dict inside Annotated and `| None`."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return inner_of(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return inner_of(next(part for part in typing.get_args(annotation) if part is not type(None)))
    return annotation


def _get(value: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _called(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value) if not isinstance(value, bool) else str(value).lower()


def _text(value: Any, full: KeyPath, tree: Tree) -> str:
    return tree.written.get(full, str(value))
