"""Whatever goes wrong under /api is a problem (RFC 9457), whoever noticed it; and our own mistakes tell nothing private."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.db import InterfaceError, OperationalError
from django.test import Client

from deliveries import intake
from deliveries.api import messages
from tests.api.calls import SMS, Api, nothing_stored, problem
from tests.factories import Caller

CANARY = "canary-7f3a"


@pytest.mark.parametrize(
    "path",
    [
        "/api/",
        "/api/v1",
        "/api/v1/",
        "/api/v2/messages",
        "/api/v1/nothing",
        "/api/v1/messages/",
        "/api/v1/messages/not-an-id",
        "/api/v1/messages/00000000-0000-0000-0000-000000000000/resend",
        "/receipts/not-an-id",
        "/health/",
    ],
)
def test_an_unknown_url_is_a_problem(db: None, path: str) -> None:
    for method in ("get", "post"):
        problem(getattr(Client(), method)(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("put", "messages", "GET, POST"),
        ("delete", "messages", "GET, POST"),
        ("get", "batches", "POST"),
        ("post", "me", "GET"),
        ("get", "previews", "POST"),
        ("patch", "suppressions", "DELETE"),
    ],
)
def test_another_method_is_a_problem_that_names_the_right_one(api: Api, method: str, path: str, allowed: str) -> None:
    with nothing_stored():
        answer = getattr(api.client, method)(f"/api/v1/{path}", headers=api.caller.headers)
    problem(answer, 405, "method_not_allowed")
    assert allowed in answer["Allow"]


def test_another_method_of_a_receipts_url_is_a_problem_too(db: None) -> None:
    answer = Client().delete("/receipts/00000000-0000-4000-8000-000000000000")
    problem(answer, 405, "method_not_allowed")
    assert "POST" in answer["Allow"]


def test_who_wants_html_is_told_that_there_is_none(api: Api) -> None:
    answer = api.client.get("/api/v1/me", headers={**api.caller.headers, "Accept": "text/html"})
    problem(answer, 406, "not_acceptable")


def test_another_host_is_a_problem(api: Api) -> None:
    answer = Client(SERVER_NAME="evil.example").get("/api/v1/me", headers=api.caller.headers)
    problem(answer, 400, "malformed")


def test_a_mistake_of_ours_is_told_without_its_text_to_anybody(
    api: Api, monkeypatch: pytest.MonkeyPatch, logged: StringIO
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(messages, "shown_all", fails)
    answer = api.get("messages")
    found = problem(answer, 500, "internal")
    assert b"Traceback" not in answer.content
    assert CANARY not in answer.content.decode()
    assert CANARY not in logged.getvalue()
    for wanted in ("unexpected_error", "RuntimeError", "test_problems.py", found["request_id"]):
        assert wanted in logged.getvalue()


def test_a_row_that_the_database_refuses_is_logged_by_its_constraint_alone(
    api: Api, monkeypatch: pytest.MonkeyPatch, logged: StringIO
) -> None:
    """PostgreSQL quotes the whole row when a constraint fails."""
    real = intake.draft
    monkeypatch.setattr(intake, "draft", lambda *args, **options: replace(real(*args, **options), recipient=""))
    with nothing_stored():
        problem(api.post("messages", {**SMS, "text": CANARY}), 500, "internal")
    assert "message_has_a_recipient" in logged.getvalue()
    assert CANARY not in logged.getvalue()


@pytest.mark.parametrize("error", [OperationalError, InterfaceError, psycopg.OperationalError])
def test_a_database_that_goes_away_is_no_mistake_of_ours(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error("server closed the connection unexpectedly")

    monkeypatch.setattr("deliveries.intake.accept_one", fails)
    answer = api.post("messages", SMS, key="k")
    assert "same keys" in problem(answer, 503, "unavailable")["detail"]
    assert answer["Retry-After"] == "2"


def test_pages_for_people_stay_pages(db: None) -> None:
    answer = Client().get("/admin/nothing")
    assert "json" not in answer["Content-Type"]


@pytest.mark.parametrize("path", ["me", "messages", "suppressions", "reports/summary"])
def test_a_parameter_nobody_knows_has_no_silent_effect(api: Api, path: str) -> None:
    answer = api.get(path, chanel="sms")
    if path in ("me", "suppressions"):
        assert answer.status_code == 200  # these take none at all
    else:
        problem(answer, 422, "unknown_filter")


def test_a_problem_speaks_of_what_is_asked(shop: Caller) -> None:
    answer = Api(shop).get("reports/summary", since="2030-01-01")
    assert list(problem(answer, 422, "invalid_filter")["errors"]) == ["since"]
