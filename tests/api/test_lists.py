"""GET /messages: every filter, paging while rows are added, refused combinations, and the plans of its statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import getrandbits as randbits
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chaski.vocabulary import Status
from deliveries.models import Account, Batch, Message
from tests.api.calls import SMS, Api, lease, move, problem


def minted(at: datetime) -> str:
    """A UUIDv7 of a moment."""
    return str(UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | randbits(62)))


def ids(api: Api, **query: str) -> list[str]:
    answer = api.get("messages", **query)
    assert answer.status_code == 200, answer.content
    return [message["id"] for message in answer.json()["results"]]


@pytest.fixture
def some(api: Api) -> dict[str, str]:
    """Messages that each filter tells apart, by name."""
    made = {
        "plain": api.send(),
        "mail": api.send(channel="email", to="Ana@Example.com", subject="Hola"),
        "tagged": api.send(to="+56987654321", reference="order:7", tags=["news", "may"]),
        "failed": api.send(),
        "leased": api.send(),
    }
    move(made["failed"]["id"], Status.FAILED)
    lease(made["leased"]["id"])
    batch = api.post("batches", {"messages": [{**SMS, "tags": ["news"]}]}).json()["id"]
    named = {name: message["id"] for name, message in made.items()}
    return {**named, "batched": ids(api, batch=batch)[0], "batch": batch}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["batched", "leased", "failed", "tagged", "mail", "plain"]),
        ({"status": "failed"}, ["failed"]),
        ({"status": "sending"}, ["leased"]),
        ({"status": "queued"}, ["batched", "tagged", "mail", "plain"]),
        ({"status": "queued,sending"}, ["batched", "leased", "tagged", "mail", "plain"]),
        ({"status": "failed,sending"}, ["leased", "failed"]),
        ({"channel": "email"}, ["mail"]),
        ({"channel": "email,sms", "status": "failed"}, ["failed"]),
        ({"channel": "telegram"}, []),
        ({"to": "+56 9 8765 4321"}, ["tagged"]),
        ({"to": "Ana@EXAMPLE.com"}, ["mail"]),
        ({"to": "Ana@EXAMPLE.com", "channel": "sms"}, []),
        ({"to": "Ana@EXAMPLE.com", "channel": "email"}, ["mail"]),
        ({"reference": "order:7"}, ["tagged"]),
        ({"reference": "order"}, []),
        ({"reference": "order:7", "status": "failed"}, []),
        ({"to": "+56987654321", "tag": "may"}, ["tagged"]),
        ({"to": "+56987654321", "tag": "june"}, []),
        ({"reference": "order:7", "tag": "news"}, ["tagged"]),
    ],
)
def test_each_filter_finds_its_messages_newest_first(
    api: Api, some: dict[str, str], query: dict[str, str], found: list[str]
) -> None:
    assert ids(api, **query) == [some[name] for name in found]


def test_a_batch_is_a_filter_and_its_tag_too(api: Api, some: dict[str, str]) -> None:
    assert ids(api, batch=some["batch"], tag="news") == [some["batched"]]
    assert ids(api, batch=some["batch"], tag="may") == []


def test_times_bound_the_list_and_the_last_week_is_meant_unless_told(api: Api) -> None:
    now = datetime.now(UTC)
    early = api.send(id=minted(now - timedelta(hours=2)))["id"]
    late = api.send()["id"]
    hour_ago, day_ago = ((now - timedelta(hours=hours)).isoformat() for hours in (1, 24))
    assert ids(api, created_after=hour_ago) == [late]
    assert ids(api, created_before=hour_ago) == [early]
    assert ids(api, created_after=day_ago, created_before=hour_ago) == [early]
    with connection.cursor() as cursor:
        old = minted(now - timedelta(days=8))
        cursor.execute("CREATE TEMP TABLE old AS SELECT * FROM message WHERE id = %s", [early])
        cursor.execute("UPDATE old SET id = %s", [old])
        cursor.execute("INSERT INTO message SELECT * FROM old")
    assert ids(api) == [late, early]
    assert ids(api, created_after=(now - timedelta(days=9)).isoformat()) == [late, early, old]


def test_pages_lose_and_double_nothing_while_messages_come_in(api: Api) -> None:
    sent = api.post("batches", {"messages": [SMS] * 450}).json()
    assert sent["accepted"] == 450
    before = set(ids_of_all(api))
    seen: list[str] = []
    cursor, pages = "", 0
    while True:
        page = api.get("messages", limit="47", **({"cursor": cursor} if cursor else {})).json()
        seen += [message["id"] for message in page["results"]]
        pages += 1
        api.send()  # somebody else goes on sending
        if page["next"] is None:
            break
        cursor = page["next"]
    assert pages == 10
    assert len(seen) == len(set(seen)) == 450
    assert set(seen) == before
    assert seen == sorted(seen, reverse=True)


def ids_of_all(api: Api) -> Iterator[str]:
    yield from (str(pk) for pk in Message.objects.filter(service=api.caller.service).values_list("pk", flat=True))


def test_a_page_never_counts_and_costs_the_same_number_of_queries_whatever_its_size(api: Api) -> None:
    api.post("batches", {"messages": [SMS] * 60})
    api.get("messages", limit="1")
    with CaptureQueriesContext(
        connection,
    ) as one:
        api.get("messages", limit="1")
    with CaptureQueriesContext(connection) as many:
        body = api.get("messages", limit="60").json()
    assert len(one) == len(many)
    assert set(body) == {"results", "next"}
    assert not any("count(" in query["sql"].lower() for query in many.captured_queries)


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"tag": "x"}, "no_index", "tag"),
        ({"tag": "x", "channel": "sms"}, "no_index", "tag"),
        ({"tag": "x", "status": "failed"}, "no_index", "tag"),
        ({"recipient": "x"}, "unknown_filter", "recipient"),
        ({"service": "1"}, "unknown_filter", "service"),
        ({"status": "done"}, "invalid_filter", "status"),
        ({"channel": "pigeon"}, "invalid_filter", "channel"),
        ({"channel": "sms\0"}, "invalid_filter", "channel"),
        ({"to": "\0"}, "invalid_filter", "to"),
        ({"reference": "a\0"}, "invalid_filter", "reference"),
        ({"reference": "x" * 300}, "invalid_filter", "reference"),
        ({"tag": "a\0", "reference": "x"}, "invalid_filter", "tag"),
        ({"batch": "7"}, "invalid_filter", "batch"),
        ({"cursor": "x"}, "invalid_filter", "cursor"),
        ({"created_after": "yesterday"}, "invalid_filter", "created_after"),
        ({"created_before": "2030-01-01T00:00:00"}, "invalid_filter", "created_before"),
        ({"limit": "0"}, "invalid_filter", "limit"),
        ({"limit": "201"}, "invalid_filter", "limit"),
        ({"limit": "-1"}, "invalid_filter", "limit"),
        ({"limit": "²"}, "invalid_filter", "limit"),
        ({"limit": "9" * 5000}, "invalid_filter", "limit"),
    ],
)
def test_what_no_index_serves_or_nobody_understands_is_refused_by_name(
    api: Api, query: dict[str, str], code: str, field: str
) -> None:
    found = problem(api.get("messages", **query), 422, code)
    assert list(found["errors"]) == [field]


FILL = """
INSERT INTO message (id, service_id, account_id, batch_id, channel, provider, lane, status, origin, recipient, "to", reference,
    ordering_key, idempotency_key, request_id, tags, content, options, metadata, event_sequence, attempt_count, in_doubt_count,
    redelivery_count, provider_message_id, error_class, error_code, error_detail, created_at, updated_at, expires_at)
SELECT (lpad(to_hex(((extract(epoch FROM now()) - n) * 1000)::bigint), 12, '0') || '7000a' || lpad(to_hex(n), 15, '0'))::uuid,
    CASE WHEN n %% 3 = 0 THEN %(mine)s ELSE -1 END, %(account)s, CASE WHEN n %% 50 = 0 THEN %(batch)s::uuid END,
    (ARRAY['sms', 'email', 'whatsapp'])[n %% 3 + 1], 'sandbox', 1, (ARRAY['sent', 'failed', 'queued', 'delivered'])[n %% 4 + 1],
    'api', '+5691234' || lpad((n %% 2000)::text, 4, '0'), 'x', CASE WHEN n %% 10 = 0 THEN 'r' || n %% 500 ELSE '' END,
    '', '', '', ARRAY['t' || n %% 7], '{"text": "x"}', '{}', '{}', 1, 0, 0, 0, '', '', '', '', now(), now(), now() + '1 day'
FROM generate_series(1, %(rows)s) AS n
"""


@pytest.fixture
def many(api: Api) -> str:
    """Thirty thousand messages of two services; the id of a batch among them."""
    batch = Batch.objects.create(service=api.caller.service)
    account = Account.objects.filter(channel="sms").get()
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"mine": api.caller.service.pk, "account": account.pk, "batch": batch.pk, "rows": 30_000})
        cursor.execute("ANALYZE message")
        cursor.execute("SHOW enable_seqscan")
        assert cursor.fetchone()[0] == "on"
    return str(batch.pk)


@contextmanager
def plans() -> Iterator[list[str]]:
    """How each table is read by the statements on messages that run inside: the node, the table and the index."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as captured:
        yield found
    with connection.cursor() as cursor:
        for query in captured.captured_queries:
            if " message " in query["sql"] and query["sql"].lstrip().startswith("SELECT"):
                cursor.execute("EXPLAIN (FORMAT JSON) " + query["sql"])
                found += scans(cursor.fetchone()[0][0]["Plan"])


def scans(plan: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in plan:
        yield f"{plan['Node Type']} {plan['Relation Name']} {plan.get('Index Name') or ''}".strip()
    elif "Index Name" in plan:  # below a bitmap
        yield f"{plan['Node Type']} {plan['Index Name']}"
    for inner in plan.get("Plans", ()):
        yield from scans(inner)


def assert_indexed(found: list[str], *indexes: str) -> None:
    """No partition with messages in it is read from end to end, and ``indexes`` are used (their names end so)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT tableoid::regclass::text FROM message")
        filled = {name for (name,) in cursor.fetchall()}
    assert any(name in scan for scan in found for name in filled)
    assert not [scan for scan in found if scan in {f"Seq Scan {name}" for name in filled}], found
    for index in indexes:
        assert any(scan.endswith(index) for scan in found), (index, found)


LIST = "_service_id_channel_status_id_idx"
RECIPIENT, REFERENCE, BATCH = "_recipient_id_idx", "_service_id_reference_id_idx", "_batch_id_id_idx"


def test_every_filter_is_served_by_its_index(api: Api, many: str) -> None:
    now = datetime.now(UTC)
    hour, day = ((now - timedelta(hours=hours)).isoformat() for hours in (1, 24))
    queries: list[tuple[str, dict[str, str]]] = [
        (LIST, {}),
        (LIST, {"status": "failed"}),
        (LIST, {"status": "queued"}),
        (LIST, {"status": "sending"}),
        (LIST, {"channel": "sms"}),
        (LIST, {"channel": "sms,email", "status": "failed,sent"}),
        (RECIPIENT, {"to": "+56912340006"}),
        (RECIPIENT, {"to": "+56912340006", "channel": "sms", "status": "sent"}),
        (REFERENCE, {"reference": "r30"}),
        (REFERENCE, {"reference": "r30", "tag": "t3"}),
        (BATCH, {"batch": many}),
        (BATCH, {"batch": many, "status": "failed"}),
        (BATCH, {"batch": many, "tag": "t1"}),
        (LIST, {"created_after": day}),
        (LIST, {"created_before": hour}),
        (LIST, {"created_after": day, "created_before": hour, "channel": "sms"}),
    ]
    for index, query in queries:
        for page in ({}, {"cursor": minted(now - timedelta(minutes=1))}, {"cursor": minted(now - timedelta(hours=2))}):
            with plans() as found:
                assert api.get("messages", **query, **page).status_code == 200, query
            assert_indexed(found, index)


def test_a_batch_and_the_usage_are_served_by_an_index_too(api: Api, many: str) -> None:
    with plans() as found:
        assert sum(api.get(f"batches/{many}").json()["counts"].values()) == 600
        api.get("me")
    assert_indexed(found, BATCH)
