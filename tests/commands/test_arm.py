"""`arm` shows what a restored database would send again, and lets it go by a decision with a reason; all say that it is held."""

from __future__ import annotations

import pytest
from django.core.management import load_command_class
from django.db import connection
from django.test import Client

from deliveries import restoring
from deliveries.lineage import Guard
from deliveries.management.commands import arm
from deliveries.models import Audit, Lineage, Message
from tests.api.calls import Api
from tests.commands.shell import refused, run, same_shape

pytestmark = pytest.mark.django_db
EXAMPLE = load_command_class("deliveries", "arm").examples[""]  # type: ignore[attr-defined]


@pytest.fixture
def held(api: Api) -> str:
    """A restored database with one message; its id."""
    message_id: str = api.send()["id"]
    with connection.cursor() as cursor:
        Guard(()).advance(cursor)
        Lineage.objects.update(identity="elsewhere/1")
        assert Guard(()).look(cursor).held
    return message_id


def test_without_a_decision_it_only_shows(held: str) -> None:
    said = run("arm", "--json")
    assert (said.code, said.json["held"], said.json["decided"]) == (0, True, None)
    assert same_shape(EXAMPLE, said.json)
    assert "sms of shop: 1 messages from before, 0:00:00 before the backup to" in said.err
    assert "HELD: the database was made elsewhere (elsewhere/1" in said.err
    assert "arm --before expire --reason" in said.err
    assert run("arm", "--json").json["held"]


@pytest.mark.parametrize(("verdict", "status"), [("send", "queued"), ("hold", "in_doubt"), ("expire", "expired")])
def test_a_decision_with_its_reason_lets_it_go(held: str, verdict: str, status: str) -> None:
    said = run("arm", "--before", verdict, "--reason", "the backup of the night", "--json")
    assert (said.code, said.json["held"], said.json["decided"]) == (0, False, int(verdict != "send"))
    assert Message.objects.get(pk=held).status == status
    armed = Audit.objects.get(action="arm")
    assert (armed.actor.partition(":")[0], armed.reason) == ("shell", "the backup of the night")
    assert "is not held" in run("arm").err
    refused(run("arm", "--before", verdict, "--reason", "again"), "is not held")


@pytest.mark.parametrize("flags", [["--before", "send"], ["--reason", "x"], ["--before", "send", "--reason", " "]])
def test_a_decision_without_a_reason_is_refused_and_the_other_way_round(held: str, flags: list[str]) -> None:
    refused(run("arm", *flags), "--before and --reason go together")
    assert Lineage.objects.get().held_at


def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "GROUPS", "SELECT pg_sleep(3) WHERE %(held_at)s IS NOT NULL")
    monkeypatch.setattr(arm, "PICTURE_SECONDS", 0.2)


def test_a_picture_that_cannot_be_drawn_stops_nobody_who_has_decided(
    held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_picture(monkeypatch)
    said = run("arm", "--before", "expire", "--reason", "too many", "--json")
    assert (said.code, said.json["decided"], said.json["unfinished"]) == (0, 1, None)
    assert "could not be counted: canceling statement due to statement timeout" in said.err
    assert Message.objects.get(pk=held).status == "expired"


def test_a_picture_that_cannot_be_drawn_is_an_error_for_who_only_wants_to_see_it(
    held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "GROUPS", "SELECT 1/0 WHERE %(held_at)s IS NOT NULL")
    refused(run("arm", "--json"), "Arming works without it: give --before and --reason")
    assert Lineage.objects.get().held_at


def test_where_nothing_is_held_it_says_so(api: Api) -> None:
    said = run("arm", "--json")
    assert (said.code, said.json["held"], said.json["unfinished"]) == (0, False, [])
    assert "is not held" in said.err


def test_doctor_health_metrics_and_trace_say_that_it_is_held_and_acceptance_goes_on(held: str, api: Api) -> None:
    found = [f for f in run("doctor", "--json").json["findings"] if f["check"] == "restored"]
    assert [(f["level"], "manage.py arm" in f["fix"]) for f in found] == [("degraded", True)]
    ready = Client().get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "elsewhere/1" in ready.json()["reason"]
    assert b"chaski_held 1.0" in Client().get("/metrics").content
    assert api.get(f"messages/{held}").json()["waiting_for"] == "paused"
    assert api.send()["status"] == "queued"


def test_the_admins_start_page_says_it_to_those_who_may_see_pauses(held: str, admin_client: Client) -> None:
    html = admin_client.get("/admin/").content.decode()
    assert "Nothing is sent: the database was made elsewhere (elsewhere/1" in html
    assert "manage.py arm" in html
