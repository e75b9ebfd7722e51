"""The `services:` part of a configuration: settings by service, checked against the services' own settings classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from ingestcore.datasets.explain import names_of
from ingestcore.datasets.names import snake
from ingestcore.datasets.problems import Finding, nearest
from ingestcore.datasets.yaml_tree import Tree

ServiceSettings = Mapping[str, type[BaseModel]]
"""Settings classes by service name."""


def read_settings(
    written: str, given: Any, tree: Tree, known: ServiceSettings | None
) -> tuple[dict[str, str], list[Finding]]:
    """-> settings of one service as environment variables carry them, by snake_case name, and what is wrong.

    Without `known` names and values are taken as they are.
    """
    service, at = written.replace("_", "-"), ("services", written)
    if known is not None and service not in known:
        return {}, [Finding(at, f"unknown service `{written}`", nearest(service, known) or _one_of(known))]
    if not isinstance(given, dict):
        return {}, [Finding(at, "must be a mapping of settings", "{chunk_size: 8MiB}")]
    findings = [] if known is None else list(_faults(service, known[service], given, written))
    texts = {snake(key): _text(value, tree.written.get((*at, key))) for key, value in given.items()}
    return texts, findings


def _faults(service: str, model: type[BaseModel], given: Mapping[str, Any], written: str) -> Iterator[Finding]:
    at = ("services", written)
    names = {snake(key): key for key in given}
    for name, key in names.items():
        if name not in model.model_fields:
            instead = nearest(name, names_of(model)) or _one_of(names_of(model))
            yield Finding((*at, key), f"unknown setting `{key}` of {service}", instead)
    values = {name: given[key] for name, key in names.items() if name in model.model_fields}
    try:
        # The constructor of a settings class reads the environment: only what is written is judged here.
        model.__pydantic_validator__.validate_python(values, self_instance=model.__new__(model))
    except ValidationError as error:
        for detail in error.errors():
            message = str(detail.get("ctx", {}).get("error", detail["msg"]))
            wrong = names.get(str(detail["loc"][0])) if detail["loc"] else None
            yield Finding((*at, wrong) if wrong else at, message)


def _text(value: Any, source: str | None) -> str:
    if isinstance(value, str):
        return value
    return source if source is not None else orjson.dumps(value).decode()


def _one_of(names: Iterable[str]) -> str:
    return f"one of: {', '.join(sorted(names)) or 'it has none'}"
