"""The list of messages as people see it, and the acts on many at once."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from deliveries.models import Audit, Message, Service
from tests.admin import rows
from tests.admin.conftest import Enter
from tests.factories import Caller

LIST = "/admin/deliveries/message/"
#: Session and user (2), the permissions of the person and of the groups (2).
OF_THE_PERSON = 4
#: Services, accounts, the ids of the page, its messages, their queue rows, the clock, the pauses.
OF_THE_LIST = 7


def page(client: Client, query: str = "") -> str:
    answer = client.get(f"{LIST}{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def ids(html: str) -> list[str]:
    return re.findall(r"/message/([0-9a-f-]{36})/change/", html)


def act(client: Client, action: str, messages: list[Message], **fields: Any) -> Any:
    data = {"action": action, "_selected_action": [str(message.pk) for message in messages], **fields}
    return client.post(LIST, data, follow=True)


def test_the_number_of_queries_does_not_grow_with_the_rows(enter: Enter, service: Service, other: Caller) -> None:
    viewer = enter("viewer")
    for message in rows.accept_many(service, 30)[:10]:
        rows.failed(message)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert len(ids(page(viewer))) == 30
    assert len(queries) == OF_THE_PERSON + OF_THE_LIST, [query["sql"][:120] for query in queries]
    sql = " ".join(query["sql"] for query in queries)
    assert "COUNT(" not in sql.upper()
    assert '"content"' not in sql
    assert "OFFSET" not in sql.upper()


def test_a_search_costs_no_query_more(enter: Enter, service: Service) -> None:
    viewer = enter("viewer")
    rows.accept_many(service, 30, reference="one-order")
    with CaptureQueriesContext(connection) as queries:
        assert len(ids(page(viewer, "?q=one-order"))) == 30
    assert len(queries) == OF_THE_PERSON + OF_THE_LIST


def test_pages_are_linked_by_the_last_id(boss: Client, service: Service) -> None:
    accepted = [str(message.pk) for message in rows.accept_many(service, 120)]
    seen, query = [], ""
    for _ in range(3):
        html = page(boss, query)
        seen += ids(html)
        older = re.search(r'href="([^"]*)" rel="next"', html)
        query = older.group(1).replace("&amp;", "&") if older else ""
    assert not query
    assert seen == accepted[::-1]
    assert "Newest" in html


def test_the_links_of_the_filters_begin_at_the_newest_page(boss: Client, service: Service) -> None:
    rows.accept_many(service, 60)
    older = re.search(r'href="(\?[^"]*)" rel="next"', page(boss))
    assert older is not None
    html = page(boss, older.group(1))
    links = re.findall(r'href="(\?[^"]*status=[^"]*)"', html)
    assert links
    assert not any("after" in link for link in links)


@pytest.mark.parametrize("query", ["?after=x", "?status=nonsense", "?service=x", "?since=x", "?p=7", "?o=3", "?q=%00"])
def test_a_query_string_that_somebody_made_up_breaks_nothing(boss: Client, service: Service, query: str) -> None:
    rows.accept(service)
    assert boss.get(LIST + query, follow=True).status_code == 200


def test_filters_choose_among_small_sets(boss: Client, service: Service, other: Caller) -> None:
    mine = rows.accept(service)
    rows.failed(rows.accept(other.service))
    mail = rows.accept(service, channel="email", to="a@example.org", subject="x")
    assert ids(page(boss, f"?service={service.pk}")) == [str(mail.pk), str(mine.pk)]
    assert ids(page(boss, f"?service={service.pk}&channel=sms")) == [str(mine.pk)]
    assert ids(page(boss, f"?service={service.pk}&status=failed")) == []


def test_the_list_says_that_it_looks_at_seven_days_and_a_search_at_any_time(boss: Client, service: Service) -> None:
    assert "accepted <strong>in the last 7 days</strong>" in page(boss)
    assert "accepted <strong>at any time</strong>" in page(boss, "?q=x")
    assert "accepted <strong>in the last hour</strong>" in page(boss, "?q=x&since=1h")


def test_a_message_under_lease_is_shown_as_sending(boss: Client, service: Service) -> None:
    rows.lease(rows.accept(service))
    assert '<span class="chaski-badge chaski-info">sending</span>' in page(boss)


def test_messages_can_neither_be_added_nor_edited_nor_deleted(boss: Client, service: Service) -> None:
    message = rows.accept(service)
    assert boss.get(LIST + "add/").status_code == 403
    assert boss.get(reverse("admin:deliveries_message_delete", args=[message.pk])).status_code == 403
    change = reverse("admin:deliveries_message_change", args=[message.pk])
    assert boss.post(change, {"status": "sent"}).status_code in (200, 403)
    answer = act(boss, "delete_selected", [message], post="yes")
    assert Message.objects.filter(pk=message.pk, status="queued").exists()
    assert "delete_selected" not in answer.content.decode()


def test_many_are_redelivered_after_a_reason_was_given(enter: Enter, service: Service) -> None:
    operator = enter("operator", name="ana")
    failed = [rows.failed(message) for message in rows.accept_many(service, 3)]
    asked = act(operator, "redeliver_selected", failed)
    assert "Why?" in asked.content.decode()
    assert Message.objects.filter(status="failed").count() == 3
    done = act(operator, "redeliver_selected", failed, reason="the provider is back")
    assert "3 messages are queued again." in done.content.decode()
    assert Message.objects.filter(status="queued").count() == 3
    acts = Audit.objects.filter(action="redeliver", actor="admin:ana", reason="the provider is back")
    assert {audit.target for audit in acts} == {str(message.pk) for message in failed}


def test_what_cannot_be_canceled_is_left_and_said(enter: Enter, service: Service) -> None:
    waiting, gone = rows.accept_many(service, 2)
    rows.sent(gone)
    said = act(enter("operator"), "cancel_selected", [waiting, gone], reason="wrong list").content.decode()
    assert "1 message is canceled." in said
    assert "1 left as it was: it is sent; only a message that still waits can be canceled." in said


def test_a_blank_reason_is_no_reason(enter: Enter, service: Service) -> None:
    failed = rows.failed(rows.accept(service))
    assert "Why?" in act(enter("operator"), "redeliver_selected", [failed], reason="  ").content.decode()
    assert not Audit.objects.filter(action="redeliver").exists()


def test_acting_on_all_pages_at_once_is_refused(enter: Enter, service: Service) -> None:
    messages = rows.accept_many(service, 2)
    said = act(enter("operator"), "cancel_selected", messages[:1], reason="x", select_across="1").content.decode()
    assert "choose at most 50" in said
    assert not Message.objects.filter(status="canceled").exists()


def test_a_viewer_is_offered_no_action_and_given_none(enter: Enter, service: Service) -> None:
    viewer = enter("viewer")
    message = rows.accept(service)
    assert "cancel_selected" not in page(viewer)
    act(viewer, "cancel_selected", [message], reason="x")
    message.refresh_from_db()
    assert message.status == "queued"


def test_whoever_is_in_no_group_sees_nothing(enter: Enter, service: Service) -> None:
    message = rows.accept(service)
    nobody = enter()
    assert nobody.get(LIST).status_code == 403
    assert nobody.get(reverse("admin:deliveries_message_change", args=[message.pk])).status_code == 403
