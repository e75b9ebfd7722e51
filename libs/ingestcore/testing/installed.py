"""A package's services as if it were installed: what an installer leaves behind, without the installer."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ingestcore.runtime.service import PLUGINS


def installed(package: Path, into: Path) -> list[Path]:
    """-> folders for the module search path, in which importlib finds the package's entry points.

    package  folder with a pyproject.toml and its modules
    """
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    facts = into / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    entries = "\n".join(f"{name} = {place}" for name, place in project["entry-points"][PLUGINS].items())
    (facts / "entry_points.txt").write_text(f"[{PLUGINS}]\n{entries}\n", encoding="utf-8")
    return [into, package]
