"""The port of a service: who may look, who may act, and what is answered to mistakes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator

import pytest

from ingestcore.observe import admin
from ingestcore.observe.health import Health
from ingestcore.observe.metrics import Metrics

TOKEN = "s3cret-tökén"


class Port:
    """A served port and a client of it."""

    def __init__(self, token: str | None) -> None:
        self.health, self.metrics = Health(), Metrics()
        self.server = admin.serve("127.0.0.1", 0, admin.OneService(self.health, self.metrics, "csv-parser"), token)

    def __call__(self, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=5)
        try:
            connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read().decode()
        finally:
            connection.close()

    def pressure(self) -> dict[str, object]:
        told: dict[str, object] = json.loads(self("GET", "/health/detailed")[2])["backpressure"]
        return told


@pytest.fixture
def serve() -> Iterator[Callable[..., Port]]:
    ports: list[Port] = []

    def make(token: str | None = None) -> Port:
        ports.append(Port(token))
        return ports[-1]

    yield make
    for port in ports:
        port.server.shutdown()
        port.server.server_close()


def test_drain_and_resume_may_be_called_twice_and_are_seen_in_health_and_metric(serve: Callable[..., Port]) -> None:
    port = serve()
    port.health.ready()
    assert port.pressure() == {"state": "normal", "in_flight": 0, "drained": False}
    for _ in range(2):
        status, _, body = port("POST", "/admin/drain")
        assert (status, json.loads(body)["backpressure"]["state"]) == (200, "drain")
    assert 'ingest_backpressure_state{state="drain"} 1.0' in port("GET", "/metrics")[2]
    assert port("GET", "/health/ready")[0] == 200, "it is alive and can be reached to be resumed"
    port.health.in_flight(0, drained=True)
    assert port.pressure()["drained"] is True
    port("POST", "/admin/resume")
    port("POST", "/admin/drain")
    assert port.pressure()["drained"] is False, "another drain begins anew"
    for _ in range(2):
        status, _, body = port("POST", "/admin/resume")
        assert (status, json.loads(body)["backpressure"]["state"]) == (200, "normal")
    assert 'ingest_backpressure_state{state="drain"} 0.0' in port("GET", "/metrics")[2]


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({}, "no token was sent"),
        ({"Authorization": "Bearer wrong"}, "the token is another one"),
        ({"Authorization": "Bearer"}, "no token was sent"),
        ({"Authorization": f"Basic {'x' * 12}"}, "another one"),
    ],
)
def test_without_the_token_nothing_is_done(serve: Callable[..., Port], sent: dict[str, str], says: str) -> None:
    port = serve("secret")
    for path in admin.ACT:
        status, headers, body = port("POST", path, **sent)
        assert (status, headers["Content-Type"]) == (401, "application/problem+json")
        assert headers["WWW-Authenticate"].startswith("Bearer")
        assert says in json.loads(body)["detail"] and "secret" not in body
    assert not port.health.asked_to_drain


def test_with_the_token_it_is_done_and_looking_needs_none(serve: Callable[..., Port]) -> None:
    port = serve(TOKEN)
    sent = f"Bearer {TOKEN}".encode().decode("latin-1")
    assert port("POST", "/admin/drain", Authorization=sent)[0] == 200
    assert port.health.asked_to_drain
    assert [port("GET", path)[0] for path in ("/metrics", "/health/live", "/health/detailed")] == [200] * 3


def test_a_page_of_another_site_may_not_act(serve: Callable[..., Port]) -> None:
    port = serve()
    assert port("POST", "/admin/drain", Origin="https://elsewhere.example")[0] == 403
    assert not port.health.asked_to_drain
    assert port("POST", "/admin/drain", Origin=f"http://127.0.0.1:{port.server.server_port}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/admin/drain", 405, "POST"),
        ("POST", "/metrics", 405, "GET"),
        ("GET", "/heatlh", 404, "/health/detailed"),
        ("POST", "/admin/drian", 404, "/admin/drain"),
        ("POST", "/admin/brownout?rate=0.1", 501, "sheds no rows"),
    ],
)
def test_mistakes_are_answered_with_what_to_write(
    serve: Callable[..., Port], method: str, path: str, status: int, says: str
) -> None:
    found, _, body = serve()(method, path)
    assert found == status
    assert says in json.loads(body)["detail"]


def test_a_service_that_waits_says_so(serve: Callable[..., Port]) -> None:
    port = serve()
    assert port("GET", "/health/ready")[0] == 503
    port.health.waiting("no Kafka broker answers")
    assert port("GET", "/health/ready")[0] == 503
    told = json.loads(port("GET", "/health/detailed")[2])
    assert told["backpressure"]["state"] == "paused"
    assert told["backpressure"]["waiting_for"] == told["reason"] == "no Kafka broker answers"
    assert told["adapters"] == {}
