"""What listing and ledger say about objects: who they are, and which inputs of which stage held their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ingestcore.kafka.sweep import bounds, sweep
from ingestcore.ledger.facts import Account
from ingestcore.messages.ledger import LedgerRecord
from ingestcore.messages.objects import ObjectRef
from ingestcore.settings import Platform
from ingestcore.stage import Origin


@dataclass
class Trail:
    """One object (one ETag of one key). ref: as listed; None: the listing is older than the topic.

    accounts  by `name@version` of the dataset it was read as
    """

    id: str
    uri: str
    ref: ObjectRef | None = None
    accounts: dict[str, Account] = field(default_factory=dict)
    seen_ms: int = 0

    @property
    def account(self) -> Account | None:
        """-> of the dataset version that read it last; one that never got a version only if there is no other."""
        known = sorted(self.accounts.values(), key=lambda a: ("@" in a.origin.dataset, a.updated_ms))
        return known[-1] if known else None

    @property
    def origin(self) -> Origin | None:
        account, ref = self.account, self.ref
        if account is not None:
            return account.origin
        return Origin(ref.id, ref.tenant, ref.source, ref.dataset, ref.uri) if ref else None


@dataclass(frozen=True)
class Trails:
    """whole: neither topic has lost its beginning."""

    found: Sequence[Trail]
    whole: bool


def read_trails(platform: Platform, wanted: Callable[[str, str], bool]) -> Trails:
    """-> the objects whose (id, URI) is wanted. Raises Retriable: Kafka is away."""
    within = bounds(platform, "ledger", "objects")
    trails: dict[str, Trail] = {}
    arrival = 0
    for input in sweep(platform, within):
        if input.at.topic == "objects":
            ref = ObjectRef.decode(input.value)
            if wanted(ref.id, ref.uri):
                trail = trails.setdefault(ref.id, Trail(ref.id, ref.uri))
                trail.ref, trail.seen_ms = ref, max(trail.seen_ms, input.timestamp_ms)
            continue
        record = LedgerRecord.decode(input.value)
        origin = record.origin
        if not origin.uri or not wanted(origin.id, origin.uri):
            continue
        trail = trails.setdefault(origin.id, Trail(origin.id, origin.uri))
        account = trail.accounts.setdefault(origin.dataset, Account(origin))
        account.updated_ms = trail.seen_ms = max(trail.seen_ms, input.timestamp_ms)
        for entry in record.entries:
            arrival += 1
            account.take(record.instance, entry, arrival)
    return Trails(tuple(trails.values()), all(b.start == 0 for b in within.values()))


class Ambiguous(ValueError):
    """More than one object is meant. The message lists some of them."""


def choose(trails: Iterable[Trail], pattern: str) -> tuple[Trail | None, list[Trail]]:
    """-> the object that is meant, and its other versions (ETags, or other sources of the same key): of these the one
    seen last is meant. Pure. Raises Ambiguous: the pattern fits several URIs."""
    found = list(trails)
    exact = [trail for trail in found if pattern in (trail.uri, trail.id)]
    named = exact or [trail for trail in found if trail.uri.rpartition("/")[2] == pattern] or found
    uris = sorted({trail.uri for trail in named})
    if len(uris) > 1:
        some = ", ".join(uris[:5]) + (f" and {len(uris) - 5} more" if len(uris) > 5 else "")
        raise Ambiguous(f"{pattern!r} fits {len(uris)} objects: {some}; give more of the address")
    by_age = sorted(named, key=lambda trail: trail.seen_ms)
    return (by_age[-1], by_age[:-1]) if by_age else (None, [])
