"""F36: content that nobody can keep, render or encode is refused at the door or ends with its reason; others go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3

from chaski.identifiers import uuid7
from config.management import ManagementError
from tests.faults.evidence import Evidence
from tests.faults.hostile import Vendors, vendors
from tests.faults.meetings import SECRET
from tests.faults.system import FaultSystem
from tests.faults.tenants import tenant
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

POOL = urllib3.PoolManager(retries=False, timeout=20.0)
TO = "+56912345678"


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendors]:
    """Vendors that accept whatever reaches them."""
    with vendors() as found:
        yield found


@pytest.fixture(scope="module")
def shop(running: FaultSystem, vendor: Vendors) -> Tenant:
    """A service with an account for SMS and one for webhooks there."""
    sid, base = f"account_sid=AC{'0' * 32}", f"base_url={vendor.url}"
    return tenant(
        running,
        ("sms", "twilio", base, sid, "auth_token=t", "from_number=+15005550006"),
        ("webhook", "webhook", base, f"secret={SECRET}"),
    )


def posted(shop: Tenant, body: bytes) -> tuple[int, dict[str, Any]]:
    """POST /messages with ``body`` as it is; status and problem."""
    headers = {"Authorization": f"Bearer {shop.key}", "Content-Type": "application/json"}
    got = POOL.request("POST", f"{shop.system.url}/api/v1/messages", body=body, headers=headers)
    return got.status, got.json()


@pytest.mark.row(
    "F36", "poison at the door: NUL, half characters, 1 MB variable, broken template", "422 with its field"
)
def test_content_that_cannot_be_kept_is_refused_at_the_door(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    put = ("template", "put", shop.name)
    with pytest.raises(ManagementError, match="no tags, filters or expressions"):
        system.manage.run(*put, "broken", "sms", "--text", "Hola {% if %}")
    system.manage.run(*put, "many", "sms", "--text", "{{ v }}" * 100)
    large = json.dumps("x" * 999_000).encode()  # with the rest just under what a body may have
    poison = {
        b'"text": "a\\u0000b"': "text",
        b'"text": "half a \\ud83d"': "text",
        b'"text": "x", "metadata": {"a": "\\udc00"}': "metadata",
        b'"text": "x", "metadata": {"a\\u0000": 1}': "metadata",
        b'"text": "x", "reference": "a\\u0000"': "reference",
        b'"text": "x", "options": {"media_url": "\\ud800"}': "options",
        b'"text": "x", "metadata": {"n": 1e999}': "metadata",
        b'"template": "broken"': "template",
        b'"template": "many"': "context",
        b'"template": "many", "context": {"v": "a\\u0000"}': "context",
        b'"template": "many", "context": {"v": {"v": 1}}': "context",
        b'"template": "many", "context": {"v": %s}' % large: "context",
        b'"template": "many", "context": {"v": %s}' % json.dumps("x" * 60_000).encode(): "context",
        b'"text": %s' % large: "text",
    }
    for fields, field in poison.items():
        status, problem = posted(shop, b'{"channel": "sms", "to": "%s", %s}' % (TO.encode(), fields))
        shown = fields[:60].decode()
        assert status in (400, 413, 422), (shown, status, problem)
        if status == 422:
            assert field in problem["errors"], (shown, problem)
    ids = [str(uuid7()) for _ in range(3)]
    texts = zip(ids, ("good", "bad\0", "good"), strict=True)
    result = shop.client.send_many([{"id": id_, "channel": "sms", "to": TO, "text": text} for id_, text in texts])
    assert (result.accepted, [row.index for row in result.rejected]) == (2, [1])
    shop.system.told.note(shop.name, ids[::2])
    assert shop.settled() == {"sent": 2}, "nothing else was accepted, and the queue moves"
    seen(f"{len(poison) + 2} kinds refused with their field; of a batch only the bad row; the others sent")


#: What a row may hold when something else than intake has written it, by statement.
ODD = {
    "content is a list": "content = '[]'",
    "content is a string": "content = '\"x\"'",
    "content is null": "content = 'null'",
    "text is an object": 'content = \'{"text": {"a": 1}}\'',
    "text is null": "content = '{\"text\": null}'",
    "text is three megabytes": "content = jsonb_build_object('text', repeat('x', 3000000))",
    "options are a list": "options = '[1]'",
    "options are wrong": 'options = \'{"media_url": {"a": 1}, "validity_seconds": "soon"}\'',
    "metadata is a string": "metadata = '\"x\"'",
    "recipient has lines": "recipient = E'+569\\r\\nX: y'",
    "recipient is rubbish": "recipient = '\u202e\u0001 <>'",
    "reference is long": "reference = repeat('r', 100000)",
}


SENT = ("sent", "")
UNREADABLE = ("failed", "unreadable_row")
#: How each ends; what is not here is sent.
END = {
    **{
        (channel, name): UNREADABLE
        for channel in ("sms", "webhook")
        for name in ODD
        if name.startswith(("content is", "text is an", "text is null", "options are a", "metadata is"))
    },
    ("sms", "options are wrong"): ("failed", "invalid_message"),
    ("webhook", "recipient has lines"): ("failed", "url_refused"),
    ("webhook", "recipient is rubbish"): ("failed", "url_refused"),
}


@pytest.mark.row("F36", "poison that reached its row by other ways", "failed or in doubt with its reason; others flow")
def test_rows_that_no_provider_can_encode_end_with_their_reason(
    system: FaultSystem, shop: Tenant, vendor: Vendors, seen: Evidence
) -> None:
    recipients = {"sms": TO, "webhook": "https://shop.example/hooks/1"}
    ids = {f"{ch}: {name}": waiting(shop, ch, to, ODD[name]) for ch, to in recipients.items() for name in ODD}
    system.query("UPDATE pending SET due_at = chaski_now() WHERE service_id = %s RETURNING 1", shop.id)
    good = [id_ for channel in recipients for id_ in shop.send_many(50, channel)]
    with seen.recovery():
        wait_for(lambda: all_sent(shop, good), 60, "the good ones")
    shop.settled()
    sql = "SELECT status, error_code FROM message WHERE id = %s"
    seen_ends = {name: tuple(system.query(sql, id_)[0]) for name, id_ in ids.items()}
    assert seen_ends == {f"{channel}: {name}": END.get((channel, name), SENT) for channel in recipients for name in ODD}
    refused = sum(got[0] == "failed" for got in seen_ends.values())
    seen(f"{len(ids)} odd rows: {refused} failed with their reason, the rest sent; 100 good ones sent")


def waiting(shop: Tenant, channel: str, to: str, change: str) -> str:
    """A message that waits for its time, then changed past every check; its id."""
    message = shop.send(channel, to, send_at=datetime.now(UTC) + timedelta(hours=1))
    shop.system.query(f"UPDATE message SET {change} WHERE id = %s RETURNING 1", str(message.id))
    return str(message.id)


def all_sent(shop: Tenant, ids: list[str]) -> bool:
    sql = "SELECT count(*) FROM message WHERE id = ANY(%s::uuid[]) AND status = 'sent'"
    return bool(shop.system.query(sql, ids)[0][0] == len(ids))
