"""The demo's producers: some clients that post a burst side by side, as a producer does, with its retries."""

from __future__ import annotations

import json
import secrets
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ingestcore.cli.demo.events import REPEAT, TAKEN, Burst, Post
from ingestcore.cli.errors import OperatorError
from ingestcore.datasets.http_source import Auth
from ingestcore.testing import producers

CLIENTS: Final = 8
_PATIENCE_SECONDS: Final = 30.0
"""For one post that is not answered, or whose answer says to come again."""
_BURST_SECONDS: Final = 120.0


@dataclass
class Answers:
    """count: posts by answer. taken: when an event was first answered with 202, monotonic seconds, by id. seconds: of
    the whole burst."""

    count: Counter[str] = field(default_factory=Counter)
    taken: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def take(self, expected: Mapping[str, str], post: producers.Post, reply: producers.Reply) -> None:
        """Note the last answer to a post. expected: by event id, see events.Post."""
        now, told = time.monotonic(), json.loads(reply.body or b"{}")
        became = str(told.get("type", "")).rpartition(":")[2] if reply.status >= 300 else TAKEN
        if became == TAKEN:
            self.taken.setdefault(post.id, now)
        self.count[REPEAT if became == TAKEN and told.get("duplicate") else became] += 1
        if became != expected[post.id] or (became == TAKEN and told.get("event_id") != post.id):
            self.wrong.append(f"{post.id}: {reply.status} {told}, {expected[post.id]} expected")


def new_secret(path: Path) -> None:
    """Write a secret for Standard Webhooks into a file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_text(f"whsec_{b64encode(secrets.token_bytes(24)).decode()}\n")


def deliver(url: str, secret: str, burst: Burst) -> Answers:
    """Post all of it. url: of the source; secret: as in its file. Raises OperatorError: the gateway does not answer."""
    place, answers, began = urlsplit(url), Answers(), time.monotonic()
    path = place.path.removeprefix("/v1/webhooks/")
    auths = _auth(secret), _auth("whsec_" + b64encode(b"another secret").decode())
    for posts in (burst.posts, burst.late):
        _side_by_side(
            place.port or 80,
            [producers.Post(path, auths[post.forged], post.id, post.body) for post in posts],
            posts,
            answers,
        )
    answers.seconds = time.monotonic() - began
    return answers


def _side_by_side(port: int, signed: Sequence[producers.Post], posts: Sequence[Post], answers: Answers) -> None:
    answered = partial(answers.take, {post.id: post.answer for post in posts})
    crowd = producers.Producers(port, signed, clients=CLIENTS, patience_seconds=_PATIENCE_SECONDS, answered=answered)
    silent = OperatorError(f"the gateway at port {port} does not answer: `ingest status` shows it")
    try:
        with crowd:
            told = crowd.finish(_BURST_SECONDS)
    except TimeoutError:
        raise silent from None
    if any(reply.status == 0 for _, reply in told.final):
        raise silent


def _auth(secret: str) -> Auth:
    return Auth.model_validate({"scheme": "standard-webhooks", "secrets": [secret]})
