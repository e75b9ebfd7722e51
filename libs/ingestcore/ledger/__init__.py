"""The completeness audit: what the facts of `ingest.ledger` say about every object. Pure."""

from ingestcore.ledger.audit import Audit, audit
from ingestcore.ledger.verdict import Hop, ObjectAudit, SinkTally, State, Totals

__all__ = ["Audit", "Hop", "ObjectAudit", "SinkTally", "State", "Totals", "audit"]
