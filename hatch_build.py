"""Builds what is worth machine code while the project is installed; where that fails, it is installed without."""

import runpy
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCES = "libs/ingestcore/machine_code"


class NativeLibrary(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        building = runpy.run_path(f"{self.root}/{_SOURCES}/building.py")
        missing = building["build"](building["BUILT"])
        if missing is not None:
            self.app.display_warning(
                f"rows are found and their keys made without machine code, which costs more CPU: {missing}"
            )
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append(f"{_SOURCES}/*.so")
