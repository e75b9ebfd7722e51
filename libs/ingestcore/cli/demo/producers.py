"""The demo's producers: some clients that post a burst side by side, as a producer does, with its retries."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ingestcore.cli.demo.events import REPEAT, TAKEN, Burst, Post
from ingestcore.cli.errors import OperatorError
from ingestcore.datasets.http_source import Auth
from ingestcore.datasets.webhook_signing import proof

CLIENTS: Final = 8
_TRIES: Final = 5
_ANSWER_SECONDS: Final = 30.0


@dataclass
class Answers:
    """count: posts by answer. taken: when an event was first answered with 202, monotonic seconds, by id. seconds: of
    the whole burst."""

    count: Counter[str] = field(default_factory=Counter)
    taken: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def new_secret(path: Path) -> None:
    """Write a secret for Standard Webhooks into a file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_text(f"whsec_{b64encode(secrets.token_bytes(24)).decode()}\n")


class Producers:
    """url: of the source; secret: as in its file."""

    def __init__(self, url: str, secret: str) -> None:
        self._place = urlsplit(url)
        self._auth, self._forger = _auth(secret), _auth("whsec_" + b64encode(b"another secret").decode())
        self._lock = threading.Lock()
        self.answers = Answers()

    def post(self, burst: Burst) -> Answers:
        """Post all of it. Raises OperatorError: the gateway does not answer."""
        began = time.monotonic()
        for posts in (burst.posts, burst.late):
            self._side_by_side(posts)
        self.answers.seconds = time.monotonic() - began
        return self.answers

    def _side_by_side(self, posts: Sequence[Post]) -> None:
        left, failed = iter(posts), list[BaseException]()

        def client() -> None:
            try:
                self._client(left)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=client, name=f"producer-{n}") for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise OperatorError(f"the gateway at {self._place.geturl()} does not answer: {failed[0]!r}")

    def _client(self, left: Iterator[Post]) -> None:
        assert self._place.hostname
        connection = http.client.HTTPConnection(self._place.hostname, self._place.port, timeout=_ANSWER_SECONDS)
        try:
            while True:
                with self._lock:
                    post = next(left, None)
                if post is None:
                    return
                self._take(post, *self._answer(connection, post))
        finally:
            connection.close()

    def _answer(self, connection: http.client.HTTPConnection, post: Post) -> tuple[int, dict[str, object]]:
        """Again where the answer says so, as docs/webhooks.md tells producers."""
        for _ in range(_TRIES):
            signed = proof(self._forger if post.forged else self._auth, post.body, id=post.id, now=time.time())
            connection.request("POST", self._place.path, post.body, {"Content-Type": "application/json", **signed})
            answer = connection.getresponse()
            told = json.loads(answer.read())
            if answer.status < 300 or not told["retry"]:
                break
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        return answer.status, told

    def _take(self, post: Post, status: int, told: dict[str, object]) -> None:
        now = time.monotonic()
        became = str(told.get("type", "")).rpartition(":")[2] if status >= 300 else TAKEN
        with self._lock:
            if became == TAKEN:
                self.answers.taken.setdefault(post.id, now)
            self.answers.count[REPEAT if became == TAKEN and told.get("duplicate") else became] += 1
            if became != post.answer or (became == TAKEN and told.get("event_id") != post.id):
                self.answers.wrong.append(f"{post.id}: {status} {told}, {post.answer} expected")


def _auth(secret: str) -> Auth:
    return Auth.model_validate({"scheme": "standard-webhooks", "secrets": [secret]})
