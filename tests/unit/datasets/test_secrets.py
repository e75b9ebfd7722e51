"""References to secrets: resolved only on demand, never printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestcore.datasets.secrets import MASK, SecretMissing, Unusable, redact, resolve, resolve_spec
from ingestcore.datasets.spec import SinkSpec, SourceSpec

ENVIRON = {"A": "one", "EMPTY": "", "TRICKY": "${A}"}


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("plain", "plain"),
        ("${A}", "one"),
        ("x-${A}-${A}.y", "x-one-one.y"),
        ("${B:-two}", "two"),
        ("${A:-two}", "one"),
        ("${EMPTY}", ""),
        ("${EMPTY:-two}", "two"),
        ("${B:-}", ""),
        ("${B:-a:-b}", "a:-b"),
        ("$A $ {A} $$", "$A $ {A} $$"),
        ("$${A}", "${A}"),
        ("${TRICKY}", "${A}"),
    ],
)
def test_references_are_replaced_once(text: str, resolved: str) -> None:
    assert resolve(text, ENVIRON) == resolved


@pytest.mark.parametrize("content", ["s3cret", "s3cret\n", "s3cret\r\n"])
def test_a_file_gives_its_text_without_the_last_newline(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content.encode())
    assert resolve(f"<${{file:{path}}}>", {}) == "<s3cret>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${B}", "environment variable B is not set: set it, or write ${B:-default}"),
        ("${a b}", "${a b} is no reference"),
        ("${}", "${} is no reference"),
        ("${B", "without `}`"),
        ("${file:/missing/key}", "${file:/missing/key} can't be read: No such file or directory"),
    ],
)
def test_what_can_not_be_resolved_is_told_by_name(text: str, message: str) -> None:
    with pytest.raises(SecretMissing) as told:
        resolve(text, ENVIRON)
    assert message in str(told.value)
    assert "one" not in str(told.value)


def test_a_whole_spec_is_resolved_and_stays_what_it_was() -> None:
    spec = SourceSpec.model_validate({"s3": {"bucket": "${A}s", "access_key_id": "${A}"}, "route": {"*": "d"}})
    resolved = resolve_spec(spec, ENVIRON)
    assert (resolved.s3.bucket, resolved.s3.access_key_id, resolved.route) == ("ones", "one", {"*": "d"})
    assert spec.s3.bucket == "${A}s"


def test_what_references_give_is_judged_and_told_without_it() -> None:
    sink = SinkSpec.model_validate({"postgres": {"dsn": "${PG}"}})
    hidden = "postgresql://me:p@ss/word@host/db"
    with pytest.raises(Unusable, match=r"postgres.dsn: .*%40.*\$\{PG\} gives here") as told:
        resolve_spec(sink, {"PG": hidden})
    assert "ss/word" not in str(told.value)
    source = SourceSpec.model_validate({"http": {"auth": {"scheme": "stripe", "secrets": ["${NOT_HERE:-}"]}}})
    with pytest.raises(Unusable, match=r"http.auth: stripe needs its secrets.*\$\{NOT_HERE:-\} gives here"):
        resolve_spec(source, {})


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ({"secret_access_key": "x"}, {"secret_access_key": MASK}),
        ({"accessKeyId": "x", "AWS_SECRET_ACCESS_KEY": "x"}, {"accessKeyId": MASK, "AWS_SECRET_ACCESS_KEY": MASK}),
        ({"password": "${P}", "token": "${file:/run/t}"}, {"password": "${P}", "token": "${file:/run/t}"}),
        ({"password": "${P:-fallback}", "token": "x${P}"}, {"password": MASK, "token": MASK}),
        ({"password": 1234, "token": None}, {"password": MASK, "token": None}),
        ({"a": {"b": [{"api_key": "x"}]}}, {"a": {"b": [{"api_key": MASK}]}}),
        ({"tokens": ["x", "y"]}, {"tokens": [MASK, MASK]}),
        ({"sasl.password": "x"}, {"sasl.password": MASK}),
        ({"url": "redis://user:pw@host/0"}, {"url": f"redis://user:{MASK}@host/0"}),
        ({"url": "redis://host:6379/0"}, {"url": "redis://host:6379/0"}),
        ({"primary_key": ["id"], "key": "raw/a.csv"}, {"primary_key": ["id"], "key": "raw/a.csv"}),
    ],
)
def test_printing_masks_what_is_named_like_a_secret(given: object, printed: object) -> None:
    assert redact(given) == printed
