"""S9: receipts, from the provider's request to the message that is marked delivered."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from benchmarks import load, verify
from benchmarks.drain import PATIENCE_SECONDS, now, wait_until_dry
from benchmarks.figures import Finding, Measure, alone, percentile
from benchmarks.run import Run, Stage, say, stage
from benchmarks.subject import TOKEN, Service
from benchmarks.taking_in import CONNECTIONS, FORWARDED
from channels.twilio import signature

RECEIPTS = 10_000
SENT = "SELECT id, provider_message_id FROM message WHERE service_id = %s"
APPLIED = """
SELECT count(*) FILTER (WHERE applied_at IS NOT NULL), max(pg_xact_commit_timestamp(xmin)) FROM receipt
WHERE account_id = %s
"""


def measure(run: Run) -> list[Finding]:
    """One receipt for each message, each signed, from several connections at once, until the last is applied."""
    count = run.count(RECEIPTS)
    rates: list[float] = []
    stored: list[float] = []
    slowest: list[float] = []
    with stage(run) as on, on.chaski.running(web=True) as running:
        for turn in range(1, run.turns() + 1):
            service, account = _sent(on, count)
            calls = [_receipt(account["receipts_url"], *each) for each in on.servers.query(SENT, service.id)]
            on.servers.settle()
            begun = now(on)
            answers = load.send(on.chaski.url, calls, connections=CONNECTIONS)
            ended = _applied(on, int(account["id"]), count)
            running.all_alive()
            _verify(on, service, answers, count)
            rates.append(count / (ended - begun).total_seconds())
            stored.append(count / answers.seconds)
            slowest.append(percentile(answers.latencies, 0.99) * 1000)
            say(f"receipts {turn}/{run.turns()}: {rates[-1]:,.0f}/s, answers p99 {slowest[-1]:.0f} ms")
    others = Measure("stored", "/s", tuple(stored)), Measure("answered, p99", "ms", tuple(slowest))
    return [alone("S9", Measure("stored and applied", "/s", tuple(rates)), *others)]


def _sent(on: Stage, count: int) -> tuple[Service, dict[str, str]]:
    """A service whose ``count`` messages have been sent, and its account."""
    service = on.chaski.new_service()
    account = on.chaski.sms(service, on.sink.url("d0"))
    on.chaski.inside("fill", str(service.id), str(count))
    wait_until_dry(on, service.id)
    return service, account


def _receipt(receipts_url: str, message_id: UUID, sid: str) -> bytes:
    """Twilio's request, signed for the address that it was given."""
    url = f"{receipts_url}?{urlencode({'message': str(message_id)})}"
    form = [("MessageSid", sid), ("MessageStatus", "delivered")]
    signed = signature(TOKEN, url, form).decode()
    kind = "application/x-www-form-urlencoded"
    headers = {"X-Twilio-Signature": signed, "Content-Type": kind, **FORWARDED}
    return load.request(
        f"http://127.0.0.1{urlsplit(url).path}?{urlsplit(url).query}", urlencode(form).encode(), headers
    )


def _applied(on: Stage, account_id: int, count: int) -> datetime:
    """When the last was applied, by PostgreSQL's clock."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        applied, at = on.servers.query(APPLIED, account_id)[0]
        if applied == count:
            moment: datetime = at
            return moment
        if time.monotonic() > until:
            raise verify.Unsound(f"{applied} of {count} receipts were applied")
        time.sleep(0.2)


def _verify(on: Stage, service: Service, answers: load.Answers, count: int) -> None:
    statuses = on.servers.query(verify.STATUSES, service.id)
    if answers.statuses != Counter({200: count}) or statuses != [("delivered", count)]:
        raise verify.Unsound(f"{count} receipts: answers {dict(answers.statuses)}, messages {statuses}")
