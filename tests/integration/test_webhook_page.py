"""docs/webhooks.md does what it says: its code for producers is run as it stands there, against a real gateway."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestcore.datasets.config_file import load
from ingestcore.testing.gateway_world import SECRET, STANDARD, GatewayWorld, own_platform

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
ROOT = "http://127.0.0.1:3001"
"""Where the page's producers post to."""
PROGRAMS = {
    "sh": (["bash", "-euo", "pipefail"], ["curl", "openssl", "base64", "od"]),
    "python": ([sys.executable], []),
    "js": (["node", "--input-type=module", "-"], []),
}
"""Language of a fence -> what runs it from its standard input, and what it calls."""
TOLD = re.compile(r"""["']?event_id["']?: *["'](msg_[^"']+)["']""")
"""The id in an answer as JSON, Python or Node print it."""


def section(title: str) -> str:
    """-> text of one section of the page."""
    found = re.search(rf"^###? {title}\n(.*?)(?=^###? |\Z)", PAGE, re.M | re.S)
    assert found, f"docs/webhooks.md has no section {title!r}"
    return found[1]


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture(scope="module")
def world(endpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayWorld]:
    folder = tmp_path_factory.mktemp("gateway")
    world = GatewayWorld(own_platform(folder), folder, {"shop": {"http": {"auth": STANDARD}}})
    world.start()
    yield world
    world.stop()


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_producers_code_posts_an_event_that_is_taken(world: GatewayWorld, language: str) -> None:
    (code,) = fences(section("One event"), language)
    assert code.count(ROOT) == code.count(SECRET) == 1, "the test puts its gateway in the place of the page's"
    command, calls = PROGRAMS[language]
    absent = [name for name in (command[0], *calls) if shutil.which(name) is None]
    if absent:
        pytest.skip(f"NOT CHECKED: the {language} code of docs/webhooks.md needs {', '.join(absent)} on the PATH")
    before = {event.id for event in world.events()}
    done = subprocess.run(
        command, input=code.replace(ROOT, world.root), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    told = TOLD.search(done.stdout)
    assert told, f"no event id in {done.stdout!r}"
    (event,) = [event for event in world.events() if event.id not in before]
    assert (event.id, event.type, event.object.source) == (told[1], "order.created", "shop")
    assert json.loads(event.body)["type"] == "order.created"


def test_the_answer_to_a_batch_is_as_shown(world: GatewayWorld) -> None:
    (shown,) = fences(section("Many events"), "json")
    reply = world.send("shop", b'[{"type": "order.created"}, 7]', "msg_1", "/batch")
    assert (reply.status, reply.told) == (207, json.loads(shown))


def test_what_operators_are_shown_is_a_valid_configuration(tmp_path: Path) -> None:
    file = tmp_path / "ingest.yaml"
    source, challenges = fences(section("For operators"), "yaml")
    file.write_text(source)
    assert list(load([file]).sources) == ["shop"]
    lines = challenges.splitlines()
    assert len(lines) == 2
    for line in lines:
        file.write_text(source.replace("    http:\n", f"    http:\n      {line}\n"))
        http = load([file]).sources["shop"].http
        assert http is not None and http.challenge is not None
