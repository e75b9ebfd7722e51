"""What every service keeps, wherever it comes from: found by folder or by entry point, never listed here."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from ingestcore.datasets.names import snake
from ingestcore.runtime.service import Service, discover, own_services
from ingestcore.stage import OperatorNeeded
from ingestcore.testing.installed import installed
from ingestcore.topics import TOPICS

CHECKOUT = Path(__file__).parents[2]
EXTRAS = CHECKOUT / "examples" / "extending"


def with_extras(monkeypatch: pytest.MonkeyPatch, folder: Path, package: Path = EXTRAS) -> dict[str, Service]:
    for place in installed(package, folder):
        monkeypatch.syspath_prepend(place)
    return discover()


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Service]:
    return with_extras(monkeypatch, tmp_path)


def test_services_of_installed_packages_stand_beside_the_platforms_own(services: dict[str, Service]) -> None:
    assert set(services) == set(own_services()) | {"jsonl-sink", "manifest-source"}


def test_names_topics_and_settings_of_every_service(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), "kebab-case"
        assert service.summary
        assert {*service.produces, *filter(None, [service.consumes])} <= set(TOPICS), f"{name}: topics of the registry"
        assert service.per in ("", "sink")
        assert not (service.sources and service.consumes), f"{name}: who has an input is no source"
        config = service.settings.model_config
        assert config.get("env_prefix") == f"INGEST_{snake(name).replace('-', '_').upper()}_"
        assert config.get("frozen"), f"{name}: settings are read once"
        silent = [field for field, facts in service.settings.model_fields.items() if not facts.description]
        assert silent == [], f"{name}: write a text below the field"


def test_a_folder_is_called_like_its_service() -> None:
    folders = {path.parent.name for path in (CHECKOUT / "services").glob("*/__init__.py")}
    assert folders == {name.replace("-", "_") for name in own_services()}


def test_the_checked_layers_name_every_service() -> None:
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    folders = {name.replace("-", "_") for name in own_services()}
    independent = next(c for c in contracts if c["type"] == "independence")
    assert set(independent["modules"]) == {f"services.{folder}" for folder in folders}
    pure = next(c for c in contracts if c["name"] == "Stages are pure")
    assert set(pure["source_modules"]) == {f"services.{folder}.stage" for folder in folders}
    for folder in folders:
        importlib.import_module(f"services.{folder}.stage")


@pytest.mark.parametrize(
    ("module", "place", "says"),
    [
        ("raise RuntimeError('no')", "broken:SERVICE", "RuntimeError('no')"),
        ("SERVICE = 1", "broken:SERVICE", "is no Service"),
        ("from services.csv_parser import SERVICE", "broken:SERVICE", "csv-parser, which is there already"),
        ("", "broken:SERVICE", "has no attribute 'SERVICE'"),
    ],
)
def test_a_package_that_does_not_fit_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, place: str, says: str
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "broken.py").write_text(module)
    (package / "pyproject.toml").write_text(
        f'[project]\nname = "bad-extras"\nversion = "1"\n[project.entry-points."ingest.services"]\nx = "{place}"\n'
    )
    monkeypatch.delitem(__import__("sys").modules, "broken", raising=False)
    with pytest.raises(OperatorNeeded, match="bad-extras") as raised:
        with_extras(monkeypatch, tmp_path / "site", package)
    assert says in str(raised.value)
