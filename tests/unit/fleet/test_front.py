"""One port for many processes: what is merged, what a silent process costs, and that drain reaches all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingestcore.fleet import merging
from ingestcore.fleet.calls import call
from ingestcore.fleet.front import Front, open_front
from ingestcore.fleet.merging import Said
from ingestcore.fleet.record import Phase, Row
from ingestcore.observe import admin
from ingestcore.observe.health import Health
from ingestcore.observe.metrics import Metrics

LAG = {"stage": "lake", "tenant": "acme", "source": "s3-main", "dataset": "orders"}


def row(service: str, port: int = 0, *, sink: str = "", replica: str = "0", state: Phase = Phase.READY) -> Row:
    return Row(service, sink, replica, 100 + port, state, 0.0, 0, "", port)


class Process:
    """The admin port of one service, in this process."""

    def __init__(self, service: str, token: str | None = None) -> None:
        self.health, self.metrics = Health(), Metrics()
        self.health.ready()
        self.server = admin.serve("127.0.0.1", 0, admin.OneService(self.health, self.metrics, "csv-parser"), token)
        self.row = row(service, self.server.server_port)


@pytest.fixture
def processes() -> Iterator[Callable[..., list[Process]]]:
    made: list[Process] = []

    def make(*services: str, token: str | None = None) -> list[Process]:
        made.extend(Process(service, token) for service in services)
        return made

    yield make
    for process in made:
        process.server.shutdown()
        process.server.server_close()


@pytest.fixture
def silent() -> Iterator[Row]:
    """-> a process that accepts and never answers, like a frozen one."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield row("normalizer", listening.getsockname()[1])


def front(rows: Sequence[Row], token: str | None = None) -> tuple[Front, list[bool]]:
    begun: list[bool] = []
    return Front(lambda: rows, begun.append, token), begun


# -- health


def said(told: Row, adapters: dict[str, dict[str, object]], state: str = "normal", drained: bool = False) -> Said:
    return Said(told, {"adapters": adapters, "backpressure": {"state": state, "in_flight": 2, "drained": drained}})


def test_an_adapter_has_the_largest_lag_of_any_service_and_what_its_lister_says() -> None:
    lister = {"lag_seconds": 3.0, "standing_by": False, "objects_listed": 7}
    standby = {"lag_seconds": 1.0, "standing_by": True, "objects_listed": 0}
    found = merging.health(
        [
            said(row("s3-lister", replica="1"), {"s3-main": standby}),
            said(row("s3-lister"), {"s3-main": lister}),
            said(row("parquet-sink", sink="lake"), {"s3-main": {"lag_seconds": 75.5}, "late": {"lag_seconds": 1.0}}),
        ]
    )["adapters"]
    assert found["s3-main"]["lag_seconds"] == 75.5
    assert found["s3-main"]["objects_listed"] == 7
    assert found["s3-main"]["lag_by_service"] == {"s3-lister-1": 1.0, "s3-lister-0": 3.0, "lake-0": 75.5}
    assert found["late"] == {"lag_seconds": 1.0, "lag_by_service": {"lake-0": 1.0}}


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        ((), "normal"),
        (("normal", "normal"), "normal"),
        (("normal", "throttled"), "throttled"),
        (("drain", "throttled"), "drain"),
        (("paused", "drain"), "paused"),
    ],
)
def test_the_fleet_is_in_the_worst_state_of_any_process(states: tuple[str, ...], worst: str) -> None:
    known = [said(row(f"s{number}"), {}, state) for number, state in enumerate(states)]
    assert merging.backpressure(known)["state"] == worst


def test_it_is_drained_when_all_are() -> None:
    one, other = said(row("a"), {}, "drain", True), said(row("b"), {}, "drain", False)
    assert [merging.backpressure(known)["drained"] for known in ([one], [one, other], [])] == [True, False, False]
    assert merging.backpressure([one, other])["in_flight"] == 4


def test_a_process_that_does_not_answer_is_still_told(processes: Callable[..., list[Process]], silent: Row) -> None:
    (parser,) = processes("csv-parser")
    detailed = front([parser.row, silent])[0].detailed()
    assert [(one["service"], one["health"] is None) for one in detailed["services"]] == [
        ("csv-parser", False),
        ("normalizer", True),
    ]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ((Phase.READY, Phase.STOPPED), 200),
        ((Phase.READY, Phase.WAITING), 503),
        ((Phase.READY, Phase.RESTARTING), 503),
    ],
)
def test_ready_when_all_are_that_should_run(states: tuple[Phase, ...], status: int) -> None:
    rows = [row(f"s{number}", state=state) for number, state in enumerate(states)]
    assert front(rows)[0].ready().status == status


# -- metrics


def test_metrics_are_merged_under_their_own_names_and_types(
    processes: Callable[..., list[Process]], silent: Row
) -> None:
    known = processes("csv-parser", "lake")
    for number, process in enumerate(known, 1):
        process.metrics.count("ingest_bytes_total", number * 10, stage=process.row.service)
        process.metrics.observe("ingest_lag_seconds", 7.0, number, **LAG)
    text = front([*(process.row for process in known), silent])[0].metrics().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert text.count("# TYPE ingest_bytes_total counter") == 1
    assert text.count("# TYPE ingest_lag_seconds histogram") == 1
    samples = {
        (sample.name, sample.labels["service"], sample.labels.get("le", "")): sample.value
        for family in families.values()
        for sample in family.samples
        if sample.labels["replica"] == "0"
    }
    assert samples["ingest_bytes_total", "lake", ""] == 20
    assert samples["ingest_lag_seconds_bucket", "lake", "5.0"] == 0
    assert samples["ingest_lag_seconds_bucket", "lake", "10.0"] == 2
    assert samples["ingest_lag_seconds_count", "csv-parser", ""] == 1
    up = {service: samples["ingest_service_up", service, ""] for service in ("csv-parser", "lake", "normalizer")}
    assert up == {"csv-parser": 1, "lake": 1, "normalizer": 0}


# -- drain and resume


def test_drain_and_resume_reach_all_with_the_token(processes: Callable[..., list[Process]]) -> None:
    known = processes("csv-parser", "lake", token="secret")
    fleet, begun = front([process.row for process in known], "secret")
    assert fleet.drain().status == 200
    assert [process.health.asked_to_drain for process in known] == [True, True]
    assert fleet.resume().status == 200
    assert [process.health.asked_to_drain for process in known] == [False, False]
    assert begun == [True, False]


def test_a_process_that_drain_does_not_reach_is_named(processes: Callable[..., list[Process]], silent: Row) -> None:
    (parser,) = processes("csv-parser")
    status, told = front([parser.row, silent])[0].drain()
    assert (status, told["failed"]) == (502, {"normalizer-0": "no answer"})
    assert "call it again" in told["detail"]
    assert parser.health.asked_to_drain


def test_a_process_that_is_stopped_need_not_be_reached(processes: Callable[..., list[Process]]) -> None:
    (parser,) = processes("csv-parser")
    stopped = Row("normalizer", "", "0", 0, Phase.STOPPED, 0.0, 0)
    assert front([parser.row, stopped])[0].drain().status == 200


# -- the port


def test_where_the_port_is_taken_another_one_is_taken_and_said() -> None:
    told: list[str] = []
    fleet, _ = front([])
    first = open_front(fleet, "127.0.0.1", 0, None, told.append)
    second = open_front(fleet, "127.0.0.1", first.server_port, None, told.append)
    try:
        assert call(second.server_port, "/health/live", 5).status == 200
        assert len(told) == 1
        assert str(first.server_port) in told[0] and str(second.server_port) in told[0]
    finally:
        for server in (first, second):
            threading.Thread(target=server.shutdown).start()
            server.server_close()


def test_the_port_of_a_fleet_asks_for_the_token() -> None:
    fleet, begun = front([], "secret")
    server = open_front(fleet, "127.0.0.1", 0, "secret", print)
    try:
        assert call(server.server_port, "/admin/drain", 5, method="POST").status == 401
        assert begun == []
        assert call(server.server_port, "/admin/drain", 5, method="POST", token="secret").status == 200
    finally:
        server.shutdown()
        server.server_close()
