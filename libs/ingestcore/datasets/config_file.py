"""Configuration files -> `Config`, or every mistake in them at once.

Top level: `sources`, `datasets`, `sinks` (by name) and `services` (settings by service). Several files add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ingestcore.datasets import checks, http_block, s3csv_block
from ingestcore.datasets.explain import build
from ingestcore.datasets.names import NAME_RULE, as_name, is_name, snake
from ingestcore.datasets.postgres_sink import EMBEDDED_DSN
from ingestcore.datasets.problems import ConfigError, Finding, KeyPath, Level, Problem, nearest
from ingestcore.datasets.secrets import SecretMissing, has_reference, is_secret_name, redact, resolve
from ingestcore.datasets.service_settings import ServiceSettings, read_settings
from ingestcore.datasets.spec import DatasetSpec, SinkSpec, SourceSpec, Spec
from ingestcore.datasets.yaml_tree import Tree, parse

DEFAULT_PROVENANCE: Mapping[str, str] = {"purpose": "default", "ingestedBy": "ingest-platform"}

_NO_POSTGRES = (
    "environment variable POSTGRES_URL is not set: `ingest up` then starts a Postgres of its own; a sink that is run "
    "by itself needs it"
)
_SECTIONS: Mapping[str, type[Spec]] = {"sources": SourceSpec, "datasets": DatasetSpec, "sinks": SinkSpec}


@dataclass(frozen=True)
class Config:
    """What the files say, references unresolved.

    services            settings as text, by service and snake_case name
    default_batch_size  for the sink that is made when the files name none
    warnings            advice; nothing that keeps it from working
    """

    sources: Mapping[str, SourceSpec] = field(default_factory=dict)
    datasets: Mapping[str, DatasetSpec] = field(default_factory=dict)
    sinks: Mapping[str, SinkSpec] = field(default_factory=dict)
    services: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    default_batch_size: int | None = None
    warnings: tuple[Problem, ...] = ()

    def environment(self) -> dict[str, str]:
        """-> the `services` settings as the variables that services read: INGEST_<SERVICE>_<NAME>."""
        return {
            f"INGEST_{service}_{name}".upper().replace("-", "_"): value
            for service, settings in self.services.items()
            for name, value in settings.items()
        }


def load(paths: Iterable[Path], services: ServiceSettings | None = None) -> Config:
    """Raises ConfigError with every problem. Without `services` their settings' names are not checked."""
    reader = _Reader(services)
    for path in paths:
        reader.read_file(path)
    reader.check_together()
    found = reader.sorted_problems()
    if any(problem.level is Level.ERROR for problem in found):
        raise ConfigError(found)
    return reader.config(tuple(found))


def problems(
    paths: Iterable[Path], services: ServiceSettings | None = None, environ: Mapping[str, str] | None = None
) -> list[Problem]:
    """-> errors and warnings, by file and line. With `environ` also references that can't be resolved in it."""
    reader = _Reader(services)
    for path in paths:
        reader.read_file(path)
    reader.check_together()
    if environ is not None:
        reader.check_references(environ)
    return reader.sorted_problems()


class _Reader:
    """Gathers specs and findings over all files of one load."""

    def __init__(self, services: ServiceSettings | None) -> None:
        self._known_services = services
        self._specs: dict[str, dict[str, Spec]] = {section: {} for section in _SECTIONS}
        self._services: dict[str, dict[str, str]] = {}
        self._batch_size: int | None = None
        self._homes: dict[KeyPath, tuple[str, Tree]] = {}
        self._findings: list[tuple[str, Tree, Finding]] = []
        self._broken = False

    def read_file(self, path: Path) -> None:
        name, tree = str(path), Tree()
        try:
            tree = parse(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            self._add(name, tree, Finding((), f"can't be read: {error.strerror or error}"))
        except UnicodeDecodeError as error:
            self._add(name, tree, Finding((), f"is not UTF-8 (byte {error.start})", "save it as UTF-8"))
        except yaml.YAMLError as error:
            tree.lines[()] = _line_of(error)
            self._add(name, tree, Finding((), f"is not valid YAML or JSON: {_syntax(error)}", _syntax_advice(error)))
        else:
            for finding in tree.findings:
                self._add(name, tree, finding)
            self._read_top(name, tree)

    def _read_top(self, file: str, tree: Tree) -> None:
        top = {} if tree.value is None else tree.value
        if not isinstance(top, dict):
            self._add(file, tree, Finding((), "must be a mapping", f"{', '.join(_SECTIONS)} at the top"))
            return
        known = [*_SECTIONS, "services", s3csv_block.NAME, http_block.NAME]
        for key, value in top.items():
            if key in _SECTIONS:
                self._read_section(file, tree, key, value)
            elif key == "services":
                self._read_services(file, tree, value)
            elif key == s3csv_block.NAME:
                self._read_s3csv(file, tree, value)
            elif key == http_block.NAME:
                self._read_http(file, tree, value)
            else:
                meant = nearest(key, known) or f"one of: {', '.join(known)}"
                self._add(file, tree, Finding((key,), f"unknown key `{key}`", meant))

    def _read_section(self, file: str, tree: Tree, section: str, value: Any) -> None:
        if not isinstance(value, dict | None):
            self._add(file, tree, Finding((section,), "must be a mapping of names", f"{section}: {{name: ...}}"))
            return
        for name, given in (value or {}).items():
            at = (section, name)
            if not is_name(name):
                self._add(file, tree, Finding(at, f"{name!r} is no name here", f"{as_name(name)}: {NAME_RULE}"))
            spec, findings = build(_SECTIONS[section], given, tree, at)
            for finding in findings:
                self._add(file, tree, finding)
            self._place(file, tree, at, spec)
            if isinstance(spec, DatasetSpec):
                for finding in checks.dataset_findings(name, spec, {snake(key) for key in given or {}}):
                    self._add(file, tree, finding)
            elif isinstance(spec, SinkSpec):
                for finding in checks.sink_findings(name, spec):
                    self._add(file, tree, finding)

    def _place(self, file: str, tree: Tree, at: tuple[str, str], spec: Spec | None) -> None:
        if at in self._homes:
            earlier, other = self._homes[at]
            where = f"{earlier}:{other.lines.get(at, 0)}"
            self._add(file, tree, Finding(at, f"`{at[1]}` is declared already in {where}", "one place for one name"))
            return
        self._homes[at] = (file, tree)
        if spec is None:
            self._broken = True
        else:
            self._specs[at[0]][at[1]] = spec

    def _read_services(self, file: str, tree: Tree, value: Any) -> None:
        if not isinstance(value, dict | None):
            self._add(file, tree, Finding(("services",), "must be a mapping", "services: {chunk-downloader: {...}}"))
            return
        for written, given in (value or {}).items():
            settings, findings = read_settings(written, given, tree, self._known_services)
            for finding in findings:
                self._add(file, tree, finding)
            self._services.setdefault(written.replace("_", "-"), {}).update(settings)

    def _read_s3csv(self, file: str, tree: Tree, value: Any) -> None:
        at = (s3csv_block.NAME,)
        block, findings = build(s3csv_block.S3CsvBlock, value, tree, at)
        for finding in findings:
            self._add(file, tree, finding)
        if block is None:
            self._broken = True
            return
        for section in ("sources", "datasets"):
            tree.lines.setdefault((section, s3csv_block.NAME), tree.lines[at])
        self._place(file, tree, ("sources", s3csv_block.NAME), SourceSpec.model_validate(block.source()))
        self._place(file, tree, ("datasets", s3csv_block.NAME), DatasetSpec.model_validate(block.dataset()))
        self._batch_size = block.batch_size
        for service, settings in block.services().items():
            self._services.setdefault(service, {}).update(settings)

    def _read_http(self, file: str, tree: Tree, value: Any) -> None:
        at = (http_block.NAME,)
        block, findings = build(http_block.HttpBlock, value, tree, at)
        for finding in findings:
            self._add(file, tree, finding)
        if block is None:
            self._broken = True
            return
        if not block.enabled:
            return
        if block.auth is None:
            self._add(file, tree, Finding(at, *http_block.NO_AUTH, Level.WARNING))
        for section in ("sources", "datasets"):
            tree.lines.setdefault((section, http_block.NAME), tree.lines[at])
        self._place(file, tree, ("sources", http_block.NAME), SourceSpec.model_validate(block.source()))
        self._place(file, tree, ("datasets", http_block.NAME), DatasetSpec())
        for service, settings in block.services().items():
            self._services.setdefault(service, {}).update(settings)

    def check_together(self) -> None:
        """Rules between specs, whichever files they are in."""
        config = self.config(())
        found = [*checks.route_findings(config.sources), *checks.conflict_findings(config.sources, config.sinks)]
        found += checks.revision_findings(config.sources, config.datasets)
        found += checks.path_findings(config.sources, config.datasets)
        if not self._broken:
            found += checks.unused_findings(config.sources, config.datasets, config.sinks)
        for service in self._known_services or ():
            if service in config.sinks:
                message = f"`{service}` is a service's name: sink and service would share a consumer group"
                found.append(Finding(("sinks", service), message, f"another name, e.g. {service}-1"))
        for section in ("sources", "sinks"):
            for name, spec in self._specs[section].items():
                found += _clear_text_secrets((section, name), spec.model_dump(exclude_none=True))
        self._add_at_home(found)

    def check_references(self, environ: Mapping[str, str]) -> None:
        for section in ("sources", "sinks"):
            for name, spec in self._specs[section].items():
                self._add_at_home(_unresolved((section, name), spec.model_dump(exclude_none=True), environ))

    def _add_at_home(self, found: Iterable[Finding]) -> None:
        for finding in found:
            file, tree = self._homes[finding.path[:2]]
            self._add(file, tree, finding)

    def _add(self, file: str, tree: Tree, finding: Finding) -> None:
        self._findings.append((file, tree, finding))

    def sorted_problems(self) -> list[Problem]:
        files = list(dict.fromkeys(file for file, _, _ in self._findings))
        found = dict.fromkeys(finding.at(file, tree.lines) for file, tree, finding in self._findings)
        return sorted(found, key=lambda problem: (files.index(problem.file), problem.line))

    def config(self, warnings: tuple[Problem, ...]) -> Config:
        sources = {n: s for n, s in self._specs["sources"].items() if isinstance(s, SourceSpec)}
        sinks = {n: s for n, s in self._specs["sinks"].items() if isinstance(s, SinkSpec)}
        return Config(
            {name: with_provenance(source) for name, source in sources.items()},
            {n: s for n, s in self._specs["datasets"].items() if isinstance(s, DatasetSpec)},
            {name: _with_batch_size(sink, self._batch_size) for name, sink in sinks.items()},
            self._services,
            self._batch_size,
            warnings,
        )


def with_provenance(source: SourceSpec) -> SourceSpec:
    """-> the source with purpose and ingestedBy, which every row's provenance must have."""
    return source.model_copy(update={"provenance": {**DEFAULT_PROVENANCE, **source.provenance}})


def _with_batch_size(sink: SinkSpec, rows: int | None) -> SinkSpec:
    if rows is None or sink.parquet is None or "batch_size" in sink.parquet.model_fields_set:
        return sink
    return sink.model_copy(update={"parquet": sink.parquet.model_copy(update={"batch_size": rows})})


def _clear_text_secrets(at: KeyPath, value: Any) -> Iterable[Finding]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _clear_text_secrets((*at, str(key)), item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _clear_text_secrets(at, item)
    elif isinstance(value, str) and _in_clear(str(at[-1]), value):
        variable = str(at[-1]).upper().removesuffix("S")
        yield Finding(at, "a secret in clear text", f"${{{variable}}} or ${{file:/path}}", Level.WARNING)


def _in_clear(name: str, value: str) -> bool:
    """A secret's own field, or an address with a password in it."""
    return bool(value) and not has_reference(value) and (is_secret_name(name) or redact(value) != value)


def _unresolved(at: KeyPath, value: Any, environ: Mapping[str, str]) -> Iterable[Finding]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _unresolved((*at, str(key)), item, environ)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _unresolved(at, item, environ)
    elif isinstance(value, str):
        try:
            resolve(value, environ)
        except SecretMissing as error:
            yield Finding(at, _NO_POSTGRES if value == EMBEDDED_DSN else str(error), "", Level.WARNING)


def _line_of(error: yaml.YAMLError) -> int:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return mark.line + 1 if mark else 0


def _syntax(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return " ".join(filter(None, (error.problem, error.context and f"({error.context})")))
    return str(error).splitlines()[0]


def _syntax_advice(error: yaml.YAMLError) -> str:
    text = _syntax(error)
    if "\\t" in text:
        return "indent with spaces, not with tabs"
    if "got '{'" in text or "found unhashable" in text:
        return 'quotes around a reference inside braces: {key: "${NAME}"}'
    if "alias" in text and "endless" not in text:
        return 'quotes around a pattern that begins with *: "*.csv"'
    return ""
