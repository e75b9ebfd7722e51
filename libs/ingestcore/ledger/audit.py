"""The completeness audit: what became of every row of every object, from the facts of `ingest.ledger`.

Adding up all entries is wrong as soon as anything is read twice: a reset shows as rows from nowhere. So entries are
facts keyed by (input, delivery, sequence), and the audit asks per object: what did the pass that read it see, what
was ever published, and does every hop pass on what it was given? What is left over are duplicates; a negative rest
is an alarm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ingestcore.ledger.facts import Account
from ingestcore.ledger.verdict import Hop, ObjectAudit, State, judge
from ingestcore.messages.events import URI_SCHEME, day_begins_ms
from ingestcore.messages.ledger import LedgerRecord
from ingestcore.messages.objects import ObjectRef
from ingestcore.stage import Origin

_HOP_TOPICS = frozenset({"objects", "blocks", "events", "typed", "normalized"})
"""Inputs that carry rows of objects and events; a source's own steps and the letters of the dead-letter lake do not."""


class Audit:
    """Gathers facts in the order the ledger has them, then judges. Memory grows with objects and their messages,
    not with rows."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str], Account] = {}
        self._listed: dict[str, ObjectRef] = {}
        self._listed_ms: dict[str, int] = {}
        self._sinks: set[str] = set()
        self._arrivals = 0
        self._oldest_ms = 0

    def take(self, record: LedgerRecord, timestamp_ms: int = 0) -> None:
        """Take one ledger record. timestamp_ms: the broker's, as far as it is wanted again in the verdict."""
        origin = record.origin
        self._oldest_ms = min(self._oldest_ms or timestamp_ms, timestamp_ms)
        for entry in record.entries:
            if entry.topic not in _HOP_TOPICS:
                continue
            key = (origin.id, origin.dataset)
            account = self._accounts.get(key)
            if account is None:
                account = self._accounts[key] = Account(origin)
            self._arrivals += 1
            account.updated_ms = max(account.updated_ms, timestamp_ms)
            account.take(record.instance, entry, self._arrivals)
            if entry.topic == "normalized":
                self._sinks.add(record.instance)

    def listed(self, ref: ObjectRef, timestamp_ms: int = 0) -> None:
        """Take one listed object; the same one again changes nothing. timestamp_ms: the broker's."""
        if ref.id not in self._listed:
            self._listed[ref.id], self._listed_ms[ref.id] = ref, timestamp_ms

    def objects(
        self, *, sinks: Collection[str] | None = None, idle: bool = False, whole_ledger: bool = True
    ) -> Iterator[ObjectAudit]:
        """-> one verdict per object and dataset version, ordered by URI.

        sinks         those that must have every published row; None: all that the ledger speaks of
        idle          every consumer group has read its topic to the end (before the ledger was read, and nothing has
                      been added since): rows still missing are then lost, not late
        whole_ledger  False: retention has removed the oldest facts; objects without their beginning are EXPIRED
        """
        wanted = self._sinks if sinks is None else frozenset(sinks)
        newest = self._newest_readings()
        self._find_beginnings()
        known = {object_id for object_id, _ in self._accounts}
        versioned = {object_id for object_id, dataset in self._accounts if "@" in dataset}
        found = [
            judge(
                account,
                size=self._listed[account.origin.id].size if account.origin.id in self._listed else None,
                sinks=wanted,
                idle=idle,
                whole_ledger=whole_ledger,
                superseded=newest.get(account.origin.id, account) is not account,
            )
            for account in self._accounts.values()
            # Refused before a dataset version was chosen, then read under one: the latter says it all.
            if "@" in account.origin.dataset or account.origin.id not in versioned
        ]
        found += [_pending(ref, self._listed_ms[id], idle) for id, ref in self._listed.items() if id not in known]
        yield from sorted(found, key=lambda a: (a.origin.uri, a.origin.tenant, a.origin.dataset, a.origin.id))

    def _find_beginnings(self) -> None:
        """A day that began before the ledger's oldest record may lack its first facts."""
        for account in self._accounts.values():
            if account.origin.uri.startswith(URI_SCHEME):
                account.headless = day_begins_ms(account.origin.uri) < self._oldest_ms

    def _newest_readings(self) -> dict[str, Account]:
        """-> by object id, the account with the latest finished pass."""
        newest: dict[str, tuple[int, Account]] = {}
        for account in self._accounts.values():
            finished = max((d.newest for d in account.passes() if d.last), default=None)
            if finished is not None and finished > newest.get(account.origin.id, (-1, account))[0]:
                newest[account.origin.id] = (finished, account)
        return {object_id: account for object_id, (_, account) in newest.items()}


def audit(
    records: Iterable[LedgerRecord],
    objects: Iterable[ObjectRef] = (),
    *,
    sinks: Collection[str] | None = None,
    idle: bool = False,
    whole_ledger: bool = True,
) -> list[ObjectAudit]:
    """The audit in one call; see `Audit`. `objects`: listed ones, so that those not yet opened show as pending."""
    gathered = Audit()
    for record in records:
        gathered.take(record)
    for ref in objects:
        gathered.listed(ref)
    return list(gathered.objects(sinks=sinks, idle=idle, whole_ledger=whole_ledger))


def _pending(ref: ObjectRef, updated_ms: int, idle: bool) -> ObjectAudit:
    origin = Origin(ref.id, ref.tenant, ref.source, ref.dataset, ref.uri)
    if idle:
        note = "listed and never opened, though nothing is waiting to be read"
        return ObjectAudit(origin, State.UNBALANCED, Hop.DOWNLOAD, note, size=ref.size, updated_ms=updated_ms)
    return ObjectAudit(origin, State.PENDING, Hop.DOWNLOAD, "not opened yet", size=ref.size, updated_ms=updated_ms)
