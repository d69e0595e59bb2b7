"""The walks of the message list: what is found, in which order, and by which index."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection

from deliveries.admin import finding
from deliveries.admin.finding import OVERDUE, Wanted, find
from deliveries.models import Batch, Message, Pending, Service
from deliveries.models.messages import Origin
from tests.admin import rows
from tests.factories import Caller


@pytest.fixture
def wanted(service: Service, other: Caller) -> Wanted:
    """Everything of both services, on both channels."""
    return Wanted(services=(service.pk, other.service.pk), channels=("sms", "email"))


def texts(*messages: Message) -> list[UUID]:
    return sorted((message.pk for message in messages), reverse=True)


@pytest.mark.parametrize(
    "spelling",
    ["+56912345678", "56912345678", "+56 9 1234 5678", "56 9 1234-5678", "0056912345678", " +56912345678 "],
)
def test_a_phone_number_is_found_in_any_spelling(service: Service, wanted: Wanted, spelling: str) -> None:
    message = rows.accept(service, to="+56912345678")
    rows.accept(service, to="+56987654321")
    assert find(replace(wanted, text=spelling.strip()), 50) == [message.pk]


def test_an_e_mail_address_is_found_whatever_the_case_of_its_domain(service: Service, wanted: Wanted) -> None:
    message = rows.accept(service, channel="email", to="Ana@example.org", subject="Hello")
    assert find(replace(wanted, text="Ana@EXAMPLE.ORG"), 50) == [message.pk]


def test_a_message_is_found_by_id_batch_reference_key_and_provider_id(
    service: Service, other: Caller, wanted: Wanted
) -> None:
    from deliveries import intake

    batch = Batch.objects.create(service=service)
    fields = {"channel": "sms", "to": "+56912345678", "text": "x", "reference": "order-7", "key": "shipped:7"}
    answer = intake.accept([intake.draft(service, fields)], origin=Origin.BATCH, batch_id=batch.pk)[0]
    message = rows.sent(Message.objects.get(pk=answer.id), provider_message_id="SM123")
    rows.accept(other.service, to="+56987654321", reference="order-8")
    for text in (str(message.pk), message.pk.hex, str(batch.pk), "order-7", "shipped:7", "SM123"):
        assert find(replace(wanted, text=text), 50) == [message.pk], text


def test_a_reference_that_looks_like_an_id_is_found_too(service: Service, wanted: Wanted) -> None:
    order = str(uuid4())
    message = rows.accept(service, reference=order)
    assert find(replace(wanted, text=order), 50) == [message.pk]


def test_parts_of_words_find_nothing(service: Service, wanted: Wanted) -> None:
    rows.accept(service, reference="order-1001")
    for part in ("order", "1001", "%", "order-100_", "91234567"):
        assert find(replace(wanted, text=part), 50) == []


def test_a_search_keeps_to_the_filters_and_the_window(service: Service, other: Caller, wanted: Wanted) -> None:
    mine, theirs = (rows.accept(each, reference="order-1") for each in (service, other.service))
    rows.failed(theirs)
    assert find(replace(wanted, text="order-1"), 50) == texts(mine, theirs)
    assert find(replace(wanted, text="order-1", services=(service.pk,)), 50) == [mine.pk]
    assert find(replace(wanted, text="order-1", state="failed"), 50) == [theirs.pk]
    assert find(replace(wanted, text="order-1", channels=("email",)), 50) == []
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert find(replace(wanted, text="order-1", since=later), 50) == []


def test_every_state_finds_its_messages_and_no_others(service: Service, wanted: Wanted) -> None:
    queued, sending, stuck, sent, failed, in_doubt = rows.accept_many(service, 6)
    rows.lease(sending)
    rows.sent(sent)
    rows.failed(failed)
    rows.in_doubt(in_doubt)
    Pending.objects.filter(pk=stuck.pk).update(due_at=datetime.now(UTC) - timedelta(minutes=6))
    expected = {
        "": texts(queued, sending, stuck, sent, failed, in_doubt),
        "queued": texts(queued, stuck),
        "sending": [sending.pk],
        OVERDUE: [stuck.pk],
        "sent": [sent.pk],
        "failed": [failed.pk],
        "in_doubt": [in_doubt.pk],
        "read": [],
        "no such status": [],
    }
    assert {state: find(replace(wanted, state=state), 50) for state in expected} == expected
    narrow = {state: find(replace(wanted, state=state, narrowed=True), 50) for state in expected}
    assert narrow == expected


def test_a_message_that_waits_for_its_time_is_not_stuck(service: Service, wanted: Wanted) -> None:
    rows.accept(service, send_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    rows.accept_many(service, 2, ordering_key="k")
    Pending.objects.update(due_at=datetime.now(UTC) - timedelta(seconds=30))
    assert find(replace(wanted, state=OVERDUE), 50) == []


@pytest.mark.parametrize("state", ["", "queued"])
def test_pages_follow_each_other_without_gap_or_repetition(service: Service, wanted: Wanted, state: str) -> None:
    everything = texts(*rows.accept_many(service, 25))
    seen: list[UUID] = []
    for _ in range(3):
        seen += find(replace(wanted, state=state, after=seen[-1] if seen else None), 10)
    assert seen == everything


def statements(wanted: Wanted) -> dict[str, Wanted]:
    since = datetime.now(UTC) - timedelta(days=7)
    wanted = replace(wanted, since=since, after=UUID(int=2**127))
    return {
        "newest": wanted,
        "merged": replace(wanted, state="failed"),
        "narrowed": replace(wanted, narrowed=True),
        "sending": replace(wanted, state="sending"),
        "stuck": replace(wanted, state=OVERDUE),
        "text": replace(wanted, text="order-1"),
        "text of a state": replace(wanted, text=str(uuid4()), state="queued"),
    }


@pytest.mark.parametrize("walk", ["newest", "merged", "narrowed", "sending", "stuck", "text", "text of a state"])
def test_no_walk_reads_a_whole_table(service: Service, wanted: Wanted, walk: str, monkeypatch: Any) -> None:
    rows.accept_many(service, 5)
    asked = statements(wanted)[walk]
    parameters = {**finding._parameters(asked), "limit": 51}
    where = finding._WHERE.get(asked.state, finding._BY_STATUS)
    sql = finding._statement(asked).format(where=where, range=finding._RANGE)
    with connection.cursor() as cursor:
        # With so few rows a scan is the cheapest plan; where an index can serve, this makes the planner show it.
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN (COSTS OFF) " + sql, parameters)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan" not in plan, plan


def test_the_window_leaves_other_months_alone(service: Service, wanted: Wanted) -> None:
    future = datetime.now(UTC) + timedelta(days=62)
    sql = finding._statement(wanted).format(where="true", range=finding._RANGE)
    with connection.cursor() as cursor:
        parameters = {**finding._parameters(replace(wanted, since=future)), "limit": 51}
        cursor.execute("EXPLAIN (COSTS OFF) " + sql, parameters)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert f"message_y{datetime.now(UTC):%Ym%m}" not in plan, plan


def test_without_filters_a_message_needs_no_account_to_be_seen(service: Service) -> None:
    message = rows.accept(service)
    assert find(Wanted(services=(), channels=()), 50) == [message.pk]
