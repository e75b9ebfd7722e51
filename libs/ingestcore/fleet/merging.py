"""What all processes of a fleet say, as one: health and metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ingestcore.fleet.record import Phase, Row
from ingestcore.observe.catalogue import CATALOGUE
from ingestcore.observe.health import Pressure

_MILDEST_FIRST: Final = [state.value for state in Pressure]
_UP: Final = CATALOGUE["ingest_service_up"]
_WORST_FIRST: Final = (
    Phase.FAILED,
    Phase.RESTARTING,
    Phase.WAITING,
    Phase.STOPPING,
    Phase.STARTING,
    Phase.STOPPED,
    Phase.READY,
)


@dataclass(frozen=True, slots=True)
class Said:
    """One process and its answer; None: it did not answer."""

    row: Row
    told: Mapping[str, Any] | None


def label_of(row: Row) -> str:
    """-> `csv-parser-0`, `lake-1`."""
    return f"{row.sink or row.service}-{row.replica}"


def health(said: Iterable[Said]) -> dict[str, Any]:
    """-> `/health/detailed` of a fleet: adapters by source, the worst backpressure, all services."""
    known = list(said)
    return {
        "state": worst_phase([one.row for one in known]).value,
        "adapters": adapters(known),
        "backpressure": backpressure(known),
        "services": [_service(one) for one in known],
    }


def worst_phase(rows: Iterable[Row]) -> Phase:
    """-> that of the process in most trouble; ready where there is none."""
    return min((row.state for row in rows), key=_WORST_FIRST.index, default=Phase.READY)


def adapters(said: Iterable[Said]) -> dict[str, dict[str, Any]]:
    """-> by source: what the service that lists it says, the largest lag of any service, and each one's lag."""
    merged: dict[str, dict[str, Any]] = {}
    for one in said:
        own = (one.told or {}).get("adapters")
        for name, told in (own if isinstance(own, Mapping) else {}).items():
            lag = float(told.get("lag_seconds") or 0.0)
            before = merged.setdefault(name, {"lag_seconds": 0.0, "lag_by_service": {}})
            before["lag_by_service"][label_of(one.row)] = lag
            # Of two replicas of a lister, the one that acts knows.
            if set(told) > {"lag_seconds"} and (not told.get("standing_by") or "standing_by" not in before):
                before |= {key: value for key, value in told.items() if key != "lag_seconds"}
            before["lag_seconds"] = max(before["lag_seconds"], lag)
    return merged


def backpressure(said: Iterable[Said]) -> dict[str, Any]:
    """-> the worst state of any process that answered, the inputs at work in all, and whether all are drained."""
    told = {label_of(one.row): one.told["backpressure"] for one in said if one.told and "backpressure" in one.told}
    states = {label: str(pressure["state"]) for label, pressure in told.items()}
    return {
        "state": max(states.values(), key=_MILDEST_FIRST.index, default=Pressure.NORMAL.value),
        "in_flight": sum(int(pressure["in_flight"]) for pressure in told.values()),
        "drained": bool(told) and all(pressure["drained"] for pressure in told.values()),
        "services": states,
    }


def _service(one: Said) -> dict[str, Any]:
    row = one.row
    return {
        "service": row.service,
        "sink": row.sink or None,
        "replica": row.replica,
        "pid": row.pid or None,
        "state": row.state.value,
        "reason": row.reason,
        "restarts": row.restarts,
        "admin_port": row.admin_port or None,
        "health": one.told,
    }


def metrics(scraped: Iterable[tuple[Row, str | None]]) -> bytes:
    """Texts of `/metrics` by process; None: it did not answer -> one text, each sample with the labels `service`
    and `replica`, every family once."""
    registry = CollectorRegistry()
    registry.register(_Merged(list(scraped)))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, scraped: list[tuple[Row, str | None]]) -> None:
        self._scraped = scraped

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(_UP.name, _UP.help, labels=_UP.labels)
        families: dict[str, Metric] = {}
        for row, text in self._scraped:
            up.add_metric((row.sink or row.service, row.replica), float(text is not None))
            who = {"service": row.sink or row.service, "replica": row.replica}
            for family in text_string_to_metric_families(text or ""):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.add_sample(sample.name, {**sample.labels, **who}, sample.value)
        yield up
        yield from families.values()
