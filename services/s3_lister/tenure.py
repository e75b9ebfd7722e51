"""Holding a source: its lease, renewed beside the work, and the word on whether it may still act."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from ingestcore.stage import Retriable
from ingestcore.stores.leases import Grant, Leases, Outcome
from ingestcore.stores.objects import Refused

log = structlog.get_logger(__name__)

RENEWALS: Final = 3
"""In the time of one lease: two may fail before it runs out."""


class Tenure:
    """One replica's hold on one source. Thread-safe.

    A lease is counted from before it was asked for, so this side never believes in it longer than Redis does. A frozen
    process that wakes finds it run out.
    """

    def __init__(
        self,
        leases: Leases,
        name: str,
        holder: str,
        seconds: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        renew_beside: bool = True,
    ) -> None:
        self._leases, self.name, self._holder, self._seconds = leases, name, holder, seconds
        self._monotonic, self._renew_beside = monotonic, renew_beside
        self._lock = threading.Lock()
        self._grant: Grant | None = None
        self._until = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.other = ""
        """Who holds it instead, as last seen."""

    @property
    def grant(self) -> Grant | None:
        """None: not ours, or another holder has taken it since. A grant alone does not mean `valid`."""
        return self._grant

    def valid(self) -> bool:
        with self._lock:
            return self._grant is not None and self._monotonic() < self._until

    def take(self, above: int) -> bool:
        """Hold it if nobody else does. -> ours? Raises Retriable: the lease store is away; Refused."""
        if self.valid():
            return True
        asked = self._monotonic()
        lease = self._leases.acquire(self.name, self._holder, self._seconds, above)
        with self._lock:
            ours = lease.holder == self._holder
            self._grant, self._until = (lease, asked + self._seconds) if ours else (None, 0.0)
            self.other = "" if ours else lease.holder
        if ours and self._renew_beside and self._thread is None:
            self._thread = threading.Thread(target=self._keep, name=f"lease {self.name}", daemon=True)
            self._thread.start()
        return ours

    def renew(self) -> None:
        """Ask for more time. Another holder: `grant` is None from now on. Store away: the time runs on."""
        grant, asked = self._grant, self._monotonic()
        if grant is None:
            return
        try:
            ours = self._leases.renew(grant, self._seconds)
        except (Retriable, Refused) as error:
            log.debug("lease not renewed", source=self.name, error=str(error))
            return
        self._settle(grant, asked, ours)

    def replace(self, expected: str, new: str) -> Outcome:
        """Move the checkpoint under this lease. Raises Retriable."""
        grant, asked = self._grant, self._monotonic()
        if grant is None:
            return Outcome.FENCED
        outcome = self._leases.replace(grant, expected, new, self._seconds)
        self._settle(grant, asked, outcome is not Outcome.FENCED)
        return outcome

    def read(self) -> str:
        """-> the checkpoint. Raises Retriable, NotText."""
        return self._leases.read(self.name)

    def close(self) -> None:
        """Give it up, so that another replica need not wait until it runs out."""
        self._ended.set()
        with self._lock:
            grant, self._grant = self._grant, None
        if grant is not None:
            try:
                self._leases.release(grant)
            except (Retriable, Refused) as error:
                log.debug("lease not released, it runs out by itself", source=self.name, error=str(error))

    def _settle(self, grant: Grant, asked: float, ours: bool) -> None:
        with self._lock:
            if self._grant is not grant:
                return
            if ours:
                self._until = asked + self._seconds
            else:
                self._grant = None
        if not ours:
            log.warning("another replica has taken this source over", source=self.name, fence=grant.fence)

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / RENEWALS):
            self.renew()
