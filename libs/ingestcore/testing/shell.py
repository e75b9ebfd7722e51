"""Types the runbooks' command lines: in a real shell, with the real curl and jq where the machine has them.

Where it has not, stand-ins of a few lines answer for them, with the same arguments for the few flags and filters that
the runbooks use.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SECONDS: Final = 60.0

_CURL: Final = """
import sys, urllib.error, urllib.request
method, headers, url, words = "GET", {}, "", sys.argv[1:]
while words:
    word = words.pop(0)
    if word == "-X": method = words.pop(0)
    elif word == "-H": name, _, value = words.pop(0).partition(":"); headers[name] = value.strip()
    elif word != "-s": url = word
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers), timeout=30)
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.write(answer.read().decode())
"""
_JQ: Final = """
import json, sys
given, filter = json.load(sys.stdin), (sys.argv[1:] or ["."])[0]
slow = lambda v: [{"key": k, "value": a} for k, a in v["adapters"].items() if a["lag_seconds"] > 60]
known = {
    ".": lambda v: [v],
    ".adapters": lambda v: [v["adapters"]],
    '.adapters["s3-main"]': lambda v: [v["adapters"].get("s3-main")],
    ".backpressure": lambda v: [v["backpressure"]],
    ".adapters | to_entries | .[] | select(.value.lag_seconds > 60)": slow,
}
for value in known[filter](given):
    print(json.dumps(value, indent=2))
"""


class Shell:
    """Runs command lines as an operator's shell would.

    tools    folder with redis-cli and Kafka's tools
    environ  variables of the shell
    folder   for the stand-ins, if any are needed
    """

    def __init__(self, tools: Path, environ: Mapping[str, str], folder: Path) -> None:
        self.stand_ins = [name for name in ("curl", "jq") if shutil.which(name) is None]
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.stand_ins:
            script = folder / name
            script.write_text(f"#!{sys.executable}{_CURL if name == 'curl' else _JQ}")
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
        self._environ = {**environ, "PATH": f"{tools}:{folder}:{os.environ['PATH']}"}

    def type(self, line: str) -> str:
        """-> stdout. Raises AssertionError: a command of the line failed."""
        done = subprocess.run(
            ["sh", "-c", line], env=self._environ, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        assert done.returncode == 0, f"{line}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout
