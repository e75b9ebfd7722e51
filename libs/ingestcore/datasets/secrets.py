"""`${VAR}`, `${VAR:-default}` and `${file:path}` in texts, and keeping secrets out of everything that is printed.

References stay as written in files and in `ingest.config`; they are resolved only where a client is built.
`$${` stands for a literal `${`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ingestcore.datasets.names import snake
from ingestcore.stage import OperatorNeeded

MASK = "***"

_LITERAL = "`$${` for a literal `${`"
_REFERENCE = re.compile(r"\$(\$\{)|\$\{([^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(
    r"secret|passw|token|credential|private|api_?key|access_?key|key_?id|sasl\.?(jaas|password)|signature", re.I
)
_USER_INFO = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)(?=@)")

SpecT = TypeVar("SpecT", bound=BaseModel)


class SecretMissing(OperatorNeeded):
    """A reference can't be resolved here. The message names the variable or file, never a value."""


class Unusable(OperatorNeeded):
    """What the references of a spec give here makes no spec. The message names fields and references, never a value."""


def resolve(text: str, environ: Mapping[str, str]) -> str:
    """-> the text with every reference replaced. Raises SecretMissing."""

    def value(found: re.Match[str]) -> str:
        if found[1]:
            return "${"
        if found[2] is None:
            raise SecretMissing(f"`${{` without `}}`: write ${{NAME}}, or {_LITERAL}")
        return _lookup(found[2], environ)

    return _REFERENCE.sub(value, text)


def _lookup(reference: str, environ: Mapping[str, str]) -> str:
    if reference.startswith("file:"):
        path = Path(reference.removeprefix("file:"))
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise SecretMissing(f"${{file:{path}}} can't be read: {reason}") from None
    name, has_default, default = reference.partition(":-")
    if not _NAME.fullmatch(name):
        raise SecretMissing(
            f"${{{name}}} is no reference: write ${{NAME}}, ${{NAME:-default}} or ${{file:/path}}, or {_LITERAL}"
        )
    if environ.get(name) or (name in environ and not has_default):
        return environ[name]
    if has_default:
        return default
    raise SecretMissing(f"environment variable {name} is not set: set it, or write ${{{name}:-default}}")


def resolve_spec(spec: SpecT, environ: Mapping[str, str]) -> SpecT:
    """-> a copy with every text resolved, validated again. Raises SecretMissing, Unusable."""
    applied = spec.model_dump(by_alias=False)
    given = _walk(applied, environ)
    try:
        return type(spec).model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(_wrong(detail, applied) for detail in error.errors(include_input=False))
    raise Unusable(wrong)


def _wrong(detail: ErrorDetails, applied: Any) -> str:
    """-> which field is wrong, why, and what it refers to. Messages of our rules hold no values."""
    at = applied
    for name in detail["loc"]:
        if isinstance(at, dict):
            at = at.get(str(name), at.get(snake(str(name)), at))
    said = str(detail.get("ctx", {}).get("error", detail["msg"]))
    names = ", ".join(dict.fromkeys(_references(at))) or "a reference"
    return f"{'.'.join(map(str, detail['loc']))}: {said}: that is what {names} gives here"


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from (found[0] for found in _REFERENCE.finditer(value) if found[2] is not None)
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)


def _walk(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return resolve(value, environ)
    if isinstance(value, dict):
        return {key: _walk(item, environ) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(item, environ) for item in value]
    return value


def has_reference(text: str) -> bool:
    return any(found[2] is not None for found in _REFERENCE.finditer(text))


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds something that must not be printed."""
    return bool(_SECRET_NAME.search(name))


def redact(value: Any, name: str = "") -> Any:
    """-> a copy fit for printing: fields named like secrets are masked, unless they only refer to one; so are
    passwords inside URLs."""
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, name) for item in value]
    if isinstance(value, str):
        if is_secret_name(name):
            return value if _only_a_reference(value) else MASK
        return _USER_INFO.sub(lambda found: f"{found[1]}:{MASK}", value)
    return MASK if value is not None and not isinstance(value, bool) and is_secret_name(name) else value


def _only_a_reference(text: str) -> bool:
    """A default stands in clear text, so a reference with one is not safe to show."""
    return bool(re.fullmatch(r"\$\{[^}]*\}", text)) and ":-" not in text
