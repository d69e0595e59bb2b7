"""/health/live, /health/ready and /metrics: open to probes, true about the queue, private about its content."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from tests.api.calls import Api, lease


def test_a_living_process_says_so_without_the_database() -> None:
    answer = Client().get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_a_ready_process_says_so(db: None) -> None:
    answer = Client().get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_a_database_that_takes_no_writes_makes_it_unready(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL transaction_read_only = on")
    answer = Client().get("/health/ready")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unready", "reason": "the database is read-only"}
    assert answer["Retry-After"] == "2"


def samples(name: str) -> dict[tuple[str, ...], float]:
    answer = Client().get("/metrics")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.content.decode())}
    return {tuple(sample.labels.values()): sample.value for sample in families[name].samples}


def test_the_metrics_are_those_of_the_queue(api: Api) -> None:
    for _ in range(3):
        sent = api.send()
    api.send(priority="urgent")
    lease(sent["id"])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pending SET due_at = due_at - %s WHERE lane = 1", [timedelta(seconds=100)])
        cursor.execute("INSERT INTO heartbeat (name, kind, seen_at) VALUES ('w1', 'worker', chaski_now())")
    assert samples("chaski_waiting_messages") == {("sms", "normal"): 2, ("sms", "urgent"): 1}
    assert samples("chaski_in_flight_messages") == {("sms", "normal"): 1, ("sms", "urgent"): 0}
    assert 100 <= samples("chaski_oldest_due_seconds")["sms", "normal"] < 110
    assert samples("chaski_processes") == {("worker",): 1}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_an_empty_system_answers_too(db: None, path: str) -> None:
    assert Client().get(path).status_code == 200
