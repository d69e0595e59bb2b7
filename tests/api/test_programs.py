"""What programs call goes past what is for browsers, and past nothing else."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.test import Client

from deliveries.api.deadlines import LOOK_SECONDS, Deadlines
from tests.api.calls import Api, problem


def test_an_answer_to_a_program_has_its_length_and_nothing_of_a_session(api: Api) -> None:
    answer = api.get("messages")
    assert int(answer["Content-Length"]) == len(answer.content)
    assert not answer.cookies
    assert "Cookie" not in answer.get("Vary", "")
    assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/api/v1/messages", "/receipts/00000000-0000-4000-8000-000000000000", "/health/live"])
def test_a_host_that_is_none_of_ours_is_refused(db: None, settings: Any, path: str) -> None:
    settings.ALLOWED_HOSTS = ["chaski.example"]
    problem(Client(headers={"host": "evil.example"}).get(path), 400, "malformed")


def test_a_view_that_breaks_is_a_problem_with_the_id_of_the_request(
    db: None, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("deliveries.api.verifiers.verifiers.find", breaks)
    problem(
        client.post("/receipts/00000000-0000-4000-8000-000000000000", b"", content_type="text/plain"), 500, "internal"
    )


def test_a_page_has_its_session_and_its_policy(db: None, client: Client) -> None:
    answer = client.get("/admin/login/")
    assert answer["X-Frame-Options"] == "DENY"
    assert "csrftoken" in answer.cookies


def test_what_takes_too_long_is_ended_once_and_what_is_over_is_not() -> None:
    deadlines, ended = Deadlines(), threading.Semaphore(0)
    with deadlines.within(0.2, lambda: pytest.fail("it was over in time")):
        pass
    for _ in range(2):  # the second after a rest
        begun = time.monotonic()
        with deadlines.within(0.1, ended.release):
            assert ended.acquire(timeout=10)
            assert 0.1 <= time.monotonic() - begun < 0.1 + LOOK_SECONDS + 2
        time.sleep(2.5 * LOOK_SECONDS)  # it must come to rest, which nothing tells
        assert deadlines._resting
    assert not ended.acquire(timeout=0)
