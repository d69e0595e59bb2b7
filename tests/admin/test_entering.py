"""Who may enter and do what, and what every answer of the admin carries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import OperationalError, connection
from django.test import Client

from deliveries.admin import groups, navigation
from deliveries.admin.base import AdminBase
from deliveries.models import Heartbeat, Service
from tests.admin import rows
from tests.admin.conftest import Enter
from tests.admin.frames import Frames

LISTS = (
    "message", "batch", "receipt", "service", "apikey", "account", "route", "endpoint", "template", "suppression",
    "pause", "audit", "heartbeat",
)  # fmt: skip


@pytest.mark.parametrize("name", groups.GROUPS)
def test_each_group_has_all_its_permissions(db: None, name: str) -> None:
    have = set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))
    assert have == groups.GROUPS[name]


def test_a_group_that_somebody_changed_stays_as_it_is(db: None) -> None:
    viewer = Group.objects.get(name="viewer")
    viewer.permissions.clear()
    Group.objects.get(name="operator").delete()
    groups.make_groups(sender=apps.get_app_config("deliveries"))
    assert not viewer.permissions.exists()
    assert Group.objects.get(name="operator").permissions.exists()


def test_nobody_in_a_group_may_make_people_or_read_bodies_by_acting(db: None) -> None:
    for name, codenames in groups.GROUPS.items():
        assert not codenames & {"add_user", "change_user", "add_group", "change_group", "change_permission"}, name
        assert not {"act_on_message", "view_message_body"} <= codenames, name


SEES = {
    "viewer": set(LISTS) - {"apikey", "audit"},
    "operator": set(LISTS) - {"apikey"},
    "security": set(LISTS),
}


@pytest.mark.parametrize("name", SEES)
def test_each_group_sees_its_lists_and_only_links_to_them(enter: Enter, service: Service, name: str) -> None:
    rows.failed(rows.accept(service))
    person = enter(name)
    seen = {model for model in LISTS if person.get(f"/admin/deliveries/{model}/").status_code == 200}
    assert seen == SEES[name]
    start = person.get("/admin/").content.decode()
    assert {model for model in LISTS if f'href="/admin/deliveries/{model}/"' in start} == SEES[name]


def test_the_start_page_counts_the_saved_views_and_links_to_them(enter: Enter, service: Service) -> None:
    for message in rows.accept_many(service, 3):
        rows.failed(message)
    rows.in_doubt(rows.accept(service))
    person = enter("operator")
    html = person.get("/admin/").content.decode()
    counts = {view.title: view.href.replace("&", "&amp;") for view in navigation.VIEWS}
    assert f'href="{counts["Failed in the last hour"]}"><strong>3</strong>' in html
    assert f'href="{counts["In doubt"]}"><strong>1</strong>' in html
    assert f'href="{counts["Stuck: due, not taken"]}"><strong>0</strong>' in html
    for view in navigation.VIEWS:
        assert person.get(view.href).status_code == 200


def test_the_start_page_says_which_processes_run(enter: Enter, db: None) -> None:
    now = datetime.now(UTC)
    Heartbeat.objects.create(name="worker@a:1", kind="worker", seen_at=now)
    Heartbeat.objects.create(name="relay@a:2", kind="relay", seen_at=now - timedelta(minutes=5))
    html = enter("viewer").get("/admin/").content.decode()
    assert "1 worker running" in html
    assert "No relay is running; the last was seen 5 min ago" in html


def test_a_passer_by_is_asked_to_log_in(db: None, client: Client) -> None:
    for model in LISTS:
        answer = client.get(f"/admin/deliveries/{model}/")
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/")


def test_a_user_who_is_no_staff_does_not_enter(db: None, client: Client) -> None:
    client.force_login(User.objects.create_user("customer"))
    assert client.get("/admin/").status_code == 302


def test_every_answer_of_the_admin_forbids_inline_scripts(boss: Client, client: Client, service: Service) -> None:
    message = rows.failed(rows.accept(service))
    pages = [
        "/admin/",
        "/admin/auth/user/",
        "/admin/auth/user/add/",
        "/admin/auth/group/add/",
        "/admin/password_change/",
        "/admin/django_celery_results/taskresult/",
        "/admin/deliveries/account/add/",
        "/admin/deliveries/account/add/?provider=sms:twilio",
        "/admin/deliveries/pause/add/",
        f"/admin/deliveries/message/{message.pk}/change/",
        f"/admin/deliveries/service/{service.pk}/change/",
        f"/admin/deliveries/service/{service.pk}/history/",
        *(f"/admin/deliveries/{model}/" for model in LISTS),
    ]
    answers = [boss.get(page) for page in pages]
    answers += [client.get("/admin/login/"), boss.get("/admin/deliveries/service/999/change/", follow=True)]
    for answer in answers:
        path = answer.request["PATH_INFO"]
        assert answer.status_code == 200, path
        policy = dict(part.split(" ", 1) for part in answer["Content-Security-Policy"].split("; "))
        assert policy["script-src"] == "'self' 'unsafe-eval'"
        assert policy["default-src"] == "'none'"
        assert Frames(answer.content.decode()).runs == [], path


def test_the_policy_is_the_admins_alone(db: None, client: Client) -> None:
    assert "Content-Security-Policy" not in client.get("/health/live")
    assert "Content-Security-Policy" in client.get("/admin/nothing/here/")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("canceling statement due to statement timeout", "Choose a shorter time"),
        ("connection refused", "The database does not answer"),
    ],
)
def test_a_database_that_takes_too_long_gives_a_page_that_says_what_to_do(
    boss: Client, service: Service, monkeypatch: Any, error: str, sentence: str
) -> None:
    def broken(*_: Any) -> None:
        raise OperationalError(error)

    monkeypatch.setattr("deliveries.admin.message_list.find", broken)
    answer = boss.get("/admin/deliveries/message/")
    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert sentence in answer.content.decode()
    assert "Content-Security-Policy" in answer


def test_a_real_statement_timeout_is_told_as_one(boss: Client, service: Service, monkeypatch: Any) -> None:
    monkeypatch.setattr("deliveries.admin.finding._NEWEST", "SELECT pg_sleep(5), id FROM message m LIMIT %(limit)s")
    rows.accept(service)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '50ms'")
    answer = boss.get("/admin/deliveries/message/")
    assert answer.status_code == 503
    assert "This took too long" in answer.content.decode()


def test_the_base_is_one_class() -> None:
    ours = [page for model, page in admin.site._registry.items() if model._meta.app_label in ("deliveries", "auth")]
    assert ours
    assert all(isinstance(page, AdminBase) for page in ours)


def test_the_styles_and_the_icon_that_the_pages_name_are_served(boss: Client) -> None:
    html = boss.get("/admin/").content.decode()
    for path in ("/static/deliveries/admin.css", "/static/deliveries/favicon.svg"):
        assert f'href="{path}"' in html
        answer = boss.get(path)
        assert answer.status_code == 200
        assert b"".join(answer.streaming_content)  # type: ignore[attr-defined]
