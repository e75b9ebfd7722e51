"""Dead letters of events and of their rows: in their topic, else in the lake of dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.lake import LETTERS_TABLE
from ingestcore.stage import Input
from ingestcore.tabular.texts import shown
from ingestcore.topics import topic_name
from ingestcore.trace.lake import MOST_FILES, Found, Search
from ingestcore.trace.reads import Reads, Subject
from ingestcore.trace.story import Accepted, Fate, Raw, Story

_SAME: Final = ("id", "stage", "message", "raw", "topic", "partition", "offset", "first_seen", "audience")
"""What a DeadLetter and a row of the lake call by the same name."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, wherever it is kept. Of its fields see DeadLetter.

    place    where it is kept, for JSON; moment_ms: when it came there, the broker's; None: of one in the lake
    dataset  `name@version`; uri, origin: of the object or day of a source
    """

    id: str
    reason: str
    stage: str
    message: str
    raw: bytes
    facts: Mapping[str, str]
    topic: str
    partition: int
    offset: int
    first_seen: str
    audience: str
    origin: str
    uri: str
    tenant: str
    source: str
    dataset: str
    place: Mapping[str, Any]
    moment_ms: int | None = None

    def told(self) -> dict[str, Any]:
        """-> for a story."""
        return {"id": self.id, "reason": self.reason, "stage": self.stage, "message": self.message, **self.place}


def find(reads: Reads, at: Subject, since_ms: int, *, lake: bool) -> None:
    """Letters of an event, and of its row at any sink. lake: whether to look there for what retention has removed from
    the topic. Raises Retriable, Refused."""
    topic, event, key = topic_name(reads.platform.topic_prefix, "events"), at.story.event, at.key.hex()
    spot = (topic, event.partition, event.offset) if event else None
    searches = []
    if spot:
        searches.append(Search(dict(zip(("topic", "partition", "offset"), spot, strict=True))))
    if key:
        searches.append(Search({"object_id": at.trail.id}, _saying("event", key)))

    def fits(letter: Letter) -> bool:
        of_row = key and letter.origin == at.trail.id and letter.facts.get("event") == key
        return bool(of_row) or (letter.topic, letter.partition, letter.offset) == spot

    found = {letter.id: letter for letter in _in_topic(reads, since_ms) if fits(letter)}
    if lake and not found:
        kept, whole = _in_lake(reads, at.story.tenant, searches)
        found = {letter.id: letter for letter in kept if fits(letter)}
        if not whole:
            at.story.note(_unseen())
    at.story.letters = [letter.told() for letter in found.values()]
    for letter in found.values():
        if letter.moment_ms is not None:
            at.story.moments.setdefault("dead letter", letter.moment_ms)


def of_forgotten(reads: Reads, name: str) -> list[Story]:
    """name: id of an event, or the key of its row; retention has removed both -> what their dead letters tell; none:
    there is no letter. Raises Retriable, Refused."""
    event_id, key = shown(name.encode()), name.lower()
    whole = True

    def fits(letter: Letter) -> bool:
        return event_id == letter.facts.get("event_id") or key == letter.facts.get("event")

    found = [letter for letter in _in_topic(reads, 0) if fits(letter)]
    if not found:
        wanted = [Search({}, _saying("event_id", event_id)), Search({}, _saying("event", key))]
        kept, whole = _in_lake(reads, "", wanted)
        found = [letter for letter in kept if fits(letter)]
    by_event: dict[tuple[str, str], dict[str, Letter]] = {}
    for letter in found:
        by_event.setdefault((letter.origin, letter.facts["event"]), {}).setdefault(letter.id, letter)
    stories = [_story(list(letters.values())) for letters in by_event.values()]
    for story in stories:
        if not whole:
            story.note(_unseen())
    return stories


def _story(letters: list[Letter]) -> Story:
    """-> what letters of one event tell. The one of its parser holds the event itself."""
    first = letters[0]
    story = Story(first.uri, first.offset, first.origin, first.dataset, first.source, first.tenant)
    story.letters = [letter.told() for letter in letters]
    for letter in letters:
        if "event_id" in letter.facts:
            facts, at = letter.facts, (letter.partition, letter.offset)
            client = orjson.loads(facts.get("headers", "{}")).get("client", "")
            story.event = Accepted(facts["event_id"], facts["event_type"], letter.first_seen, client, *at)
            story.raw = Raw(0, len(letter.raw), letter.raw, "its dead letter")
            story.fate, story.why = Fate.DEAD_LETTER, letter.reason
    if story.event is None:
        story.key = first.facts["event"]
        story.fate, story.why = Fate.PUBLISHED, f"and refused by sink {first.audience}"
    story.note("retention has removed the event and its row from their topics: this is what its dead letters tell")
    return story


def _in_topic(reads: Reads, since_ms: int) -> Iterator[Letter]:
    for input in reads.since("dlq", since_ms) if since_ms else reads.all_of("dlq"):
        yield _of_record(input)


def _in_lake(reads: Reads, tenant: str, searches: Iterable[Search]) -> tuple[list[Letter], bool]:
    """-> letters, and whether all files were looked at."""
    if not reads.has_lost("dlq"):
        return [], True
    found, whole = [], True
    for files in reads.sinks("dlq"):
        for search in searches:
            some, all_of_them = files.letters(LETTERS_TABLE, tenant, search)
            found += [_of_row(one) for one in some]
            whole = whole and all_of_them
    return found, whole


def _of_record(input: Input) -> Letter:
    letter = DeadLetter.of(input.value, input.headers)
    about = letter.object
    taken: dict[str, Any] = {name: getattr(letter, name) for name in ("facts", "origin", *_SAME)}
    return Letter(
        **taken,
        reason=letter.reason.value,
        uri=about.uri if about else "",
        tenant=about.tenant if about else "",
        source=about.source if about else "",
        dataset=about.dataset if about else "",
        place={"partition": input.at.partition, "offset": input.at.offset},
        moment_ms=input.timestamp_ms,
    )


def _of_row(found: Found) -> Letter:
    row = {name: "" if value is None else value for name, value in found.row.items()}
    version = f"@{row['dataset_version']}" if row["dataset_version"] else ""
    taken: dict[str, Any] = {name: row[name] for name in _SAME}
    return Letter(
        **taken,
        reason=row["reason"],
        facts=orjson.loads(row["facts"]),
        origin=row["object_id"],
        uri=row["object_uri"],
        tenant=row["tenant"],
        source=row["source"],
        dataset=row["dataset"] + version,
        place={"file": found.held.file},
    )


def _saying(name: str, text: str) -> str:
    """-> how a fact stands in the column of all facts."""
    return orjson.dumps({name: text})[1:-1].decode()


def _unseen() -> str:
    return f"the first {MOST_FILES} files of dead letters were looked at, there are more"
