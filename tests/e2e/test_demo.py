"""`ingest demo` on servers of its own: both ways come out as its generators know, and its figures are printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingestcore.testing.own_servers import own_servers

FOREIGN = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "of another account",
    "AWS_SESSION_TOKEN": "temporary",
}
"""Whoever tries the demo may be at work in AWS."""

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_the_demo_ends_right_and_says_so_in_figures(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "ingestcore.cli.main", "demo", "--megabytes", "2", "--dir", str(tmp_path / "demo"))
    with own_servers():
        done = subprocess.run(
            [*command, "--json"],
            env={**os.environ, **FOREIGN},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["right"] and figures["csv"]["rows"] > 10_000
    webhooks = figures["webhooks"]
    assert (webhooks["rows"], webhooks["accepted"]) == (2_000, 2_020)
    assert sum(webhooks["answers"].values()) == webhooks["posts"] and webhooks["answers"]["repeat"] > 0
    assert 0 < webhooks["accept_to_row"]["p50_ms"] <= webhooks["accept_to_row"]["p95_ms"]
    assert "Nothing lost, nothing doubled." in done.stderr
