"""How a message meets a hostile vendor, and what is kept of it. Used by the tests of providers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count

from chaski.identifiers import uuid7
from tests.channels.wire import answer
from tests.faults.hostile import Answer, Vendors, accepts, says
from tests.processes.system import SCALE, Tenant, wait_for

BASE_SECONDS = 2.0 * SCALE  # the first wait after a failure
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
numbers = count(1_000_000)


@dataclass(frozen=True)
class Meeting:
    """What a vendor does at the first attempt of a message, and how that is to be kept."""

    name: str
    channel: str
    act: Answer
    error_class: str
    code: str
    waits: tuple[float, float] = (0.8 * BASE_SECONDS, 1.2 * BASE_SECONDS)


def meet(shop: Tenant, hostile: Vendors, meetings: Sequence[Meeting]) -> dict[str, str]:
    """Send one message into each meeting; their ids by name. The second attempt of each is accepted."""
    ids = {}
    for meeting in meetings:
        number = next(numbers)
        to, word = {
            "webhook": (f"{hostile.url}/to-{number}/", f"/to-{number}/"),
            "sms": (f"+5691{number}", f"5691{number}"),
            "telegram": (f"-77{number}", f"-77{number}"),
        }[meeting.channel]
        hostile.answers[word] = [meeting.act, accepts]
        ids[meeting.name] = str(shop.send(meeting.channel, to).id)
    return ids


def post(shop: Tenant, channel: str, recipients: Sequence[str]) -> list[str]:
    """Send one message to each of ``recipients`` in one request; their ids."""
    ids = [str(uuid7()) for _ in recipients]
    rows = [{"channel": channel, "to": to, "text": "x", "id": id_} for to, id_ in zip(recipients, ids, strict=True)]
    assert not shop.client.send_many(rows).rejected
    shop.system.told.note(shop.name, ids)
    return ids


def firsts(shop: Tenant, ids: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Wait for the end of each message's first attempt; its outcome and code by name."""
    found = wait_for(lambda: _closed(shop, ids), 30, "the first attempts")
    return {name: (found[id_][0][1], found[id_][0][2]) for name, id_ in ids.items()}


def _closed(shop: Tenant, ids: dict[str, str]) -> dict[str, list[tuple[object, ...]]]:
    found = {id_: shop.attempts(id_) for id_ in ids.values()}
    return found if all(rows and rows[0][4] for rows in found.values()) else {}


def as_expected(meetings: Sequence[Meeting]) -> dict[str, tuple[str, str]]:
    """What ``firsts`` should find."""
    return {meeting.name: (meeting.error_class, meeting.code) for meeting in meetings}


def all_sent_at_the_second_attempt(shop: Tenant, ids: dict[str, str], *, doubts: int) -> None:
    """The vendor is well again: everything went out, and what may have been doubled is counted."""
    shop.settled()
    found = {name: shop.client.get(id_) for name, id_ in ids.items()}
    seen = {name: (str(got.status), got.attempt_count, got.in_doubt_count) for name, got in found.items()}
    assert seen == dict.fromkeys(ids, ("sent", 2, doubts))


def outcomes(shop: Tenant, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Of the first attempts that have ended."""
    sql = "SELECT message_id::text, outcome, code FROM attempt WHERE message_id = ANY(%s::uuid[]) AND number = 1"
    return {row[0]: (row[1], row[2]) for row in shop.system.query(f"{sql} AND finished_at IS NOT NULL", list(ids))}


def longest_call(shop: Tenant, ids: Sequence[str]) -> float:
    """Seconds from an attempt's claim to its end."""
    sql = "SELECT extract(epoch FROM max(finished_at - opened_at))::float8 FROM attempt WHERE message_id = ANY(%s::uuid[])"
    return float(shop.system.query(sql, list(ids))[0][0])


def slowest(shop: Tenant, ids: Sequence[str]) -> float:
    """Seconds from acceptance to sending of the last of ``ids``; 0 while one is not sent."""
    sql = (
        "SELECT extract(epoch FROM max(sent_at - created_at))::float8, count(sent_at) FROM message"
        " WHERE id = ANY(%s::uuid[])"
    )
    seconds, count_sent = shop.system.query(sql, list(ids))[0]
    return float(seconds) if count_sent == len(ids) else 0.0


def throttles() -> list[Meeting]:
    """A 429 in all its forms, each with the least and the most that may pass before the next attempt."""
    twilio = b'{"code": 20429, "message": "Too Many Requests", "status": 429}'
    other_code = b'{"code": 14107, "message": "Message rate exceeded", "status": 400}'
    telegram = b'{"ok": false, "error_code": 429, "description": "Too Many Requests", "parameters": {"retry_after": 1}}'

    def dated() -> bytes:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
        return answer(429, b"", f"Retry-After: {date}")

    rows: list[tuple[str, str, Answer, str, tuple[float, float] | None]] = [
        ("in seconds", "webhook", says(answer(429, b"", "Retry-After: 1")), "http_429", (1.0, 1.1)),
        ("as a date", "webhook", says(dated), "http_429", (1.9, 3.3)),
        ("at once", "webhook", says(answer(429, b"", "Retry-After: 0")), "http_429", (0.0, 0.0)),
        ("without a wait", "webhook", says(answer(429)), "http_429", None),
        ("with a wait that is none", "webhook", says(answer(429, b"", "Retry-After: soon")), "http_429", None),
        ("with a negative wait", "webhook", says(answer(429, b"", "Retry-After: -5")), "http_429", None),
        (
            "with half an answer in HTML",
            "webhook",
            says(answer(429, b"<html>", "Retry-After: 1")),
            "http_429",
            (1.0, 1.1),
        ),
        ("twilio's", "sms", says(answer(429, twilio, "Retry-After: 1")), "20429", (1.0, 1.1)),
        ("twilio's as a 400", "sms", says(answer(400, other_code)), "14107", None),
        ("twilio's without a body", "sms", says(answer(429, b"", "Retry-After: 1")), "http_429", (1.0, 1.1)),
        ("telegram's", "telegram", says(answer(429, telegram)), "429", (1.0, 1.1)),
        ("telegram's as a 200", "telegram", says(answer(200, telegram)), "429", (1.0, 1.1)),
    ]
    usual = (0.8 * BASE_SECONDS, 1.2 * BASE_SECONDS)
    return [Meeting(name, channel, act, "throttled", code, waits or usual) for name, channel, act, code, waits in rows]
