"""F35: receipts doubled, reversed, early, forged, replayed, for another service, ten thousand at once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp
import pytest
import urllib3

from channels.twilio import signature
from tests.channels.wire import answer
from tests.faults.evidence import Evidence
from tests.faults.hostile import Vendors, says, vendors
from tests.faults.load import Load
from tests.faults.system import FaultSystem
from tests.faults.tenants import receipts_url, tenant
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

TOKEN, OTHER_TOKEN = "token-of-the-shop", "token-of-the-other"
POOL = urllib3.PoolManager(retries=False, timeout=20.0)
#: What a client may have to wait while all threads of the web process answer a vendor.
SLOW_SECONDS = 5.0
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendors]:
    """A Twilio that accepts and sends no receipts: the tests send them."""
    with vendors() as found:
        yield found


def account(vendor: Vendors, token: str) -> tuple[str, ...]:
    """An account there."""
    sid = f"account_sid=AC{'0' * 32}"
    return ("sms", "twilio", f"base_url={vendor.url}", sid, f"auth_token={token}", "from_number=+15005550006")


@pytest.fixture(scope="module")
def shop(running: FaultSystem, vendor: Vendors) -> Tenant:
    """Whose receipts they are."""
    return tenant(running, account(vendor, TOKEN))


@pytest.fixture(scope="module")
def other(running: FaultSystem, vendor: Vendors) -> Tenant:
    """Another service with an account of its own."""
    return tenant(running, account(vendor, OTHER_TOKEN))


@dataclass(frozen=True)
class Callback:
    """One status callback as Twilio posts it."""

    url: str
    sid: str
    status: str
    token: str = TOKEN

    @property
    def form(self) -> list[tuple[str, str]]:
        return [("MessageSid", self.sid), ("MessageStatus", self.status), ("AccountSid", "AC" + "0" * 32)]

    @property
    def headers(self) -> dict[str, str]:
        return {**FORM, "X-Twilio-Signature": signature(self.token, self.url, self.form).decode()}

    def post(self) -> int:
        """The answer's status."""
        return POOL.request("POST", self.url, body=urlencode(self.form), headers=self.headers).status


def sent(shop: Tenant, to: str = "+56912345678") -> tuple[str, str]:
    """A message that is sent; its id and its vendor's."""
    message = shop.client.wait(shop.send("sms", to).id, until="sent", timeout=20)
    return str(message.id), str(message.provider_message_id)


def kept(shop: Tenant) -> Counter[tuple[str, str]]:
    """(kind, effect) of the receipts of the service's accounts; an effect is empty until it is applied."""
    sql = "SELECT r.kind, r.effect FROM receipt r JOIN account a ON a.id = r.account_id WHERE a.service_id = %s"
    return Counter((row[0], row[1]) for row in shop.system.query(sql, shop.id))


def events(shop: Tenant, message_id: str) -> list[str]:
    """The statuses that a message went through."""
    sql = "SELECT status FROM event WHERE message_id = %s ORDER BY sequence"
    return [row[0] for row in shop.system.query(sql, message_id)]


def all_applied(shop: Tenant, count: int) -> bool:
    """Are ``count`` receipts kept, and all of them applied?"""
    found = kept(shop)
    return found.total() == count and not any(effect == "" for _, effect in found)


@pytest.mark.row("F35", "receipts doubled, reversed and contradicting", "status forward only; each kept once")
def test_receipts_in_any_order_and_number_move_a_message_forward_only(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    before = kept(shop).total()
    message_id, sid = sent(shop)
    url = f"{receipts_url(shop, 'sms')}?message={message_id}"
    with seen.recovery():
        for status in ("delivered", "delivered", "sent", "read", "sent", "delivered", "undelivered", "read"):
            assert Callback(url, sid, status).post() == 200
        wait_for(lambda: all_applied(shop, before + 4), 20, "four receipts kept and applied")
    assert str(shop.client.get(message_id).status) == "read"
    told = events(shop, message_id)
    assert told in (["queued", "sending", "sent", "delivered", "read"], ["queued", "sending", "sent", "read"])
    assert kept(shop)["undelivered", "contradiction"] == 1
    seen("8 posted, 4 kept: delivered, read; the late undelivered shown as a contradiction")


@pytest.mark.row(
    "F35", "receipts before the send is recorded (worker frozen)", "parked or applied; sent once, no doubt"
)
def test_receipts_that_come_before_their_send_is_recorded(
    system: FaultSystem, shop: Tenant, vendor: Vendors, seen: Evidence
) -> None:
    """One names our id and is applied at once, the other only the vendor's, which nobody knows yet."""
    recipients = {"ours": "+56911110001", "theirs": "+56911110002"}
    sids = {name: f"SM{uuid4().hex}" for name in recipients}
    for name, to in recipients.items():
        vendor.answers[to[1:]] = says(answer(201, f'{{"sid": "{sids[name]}"}}'.encode()))
        system.crash_at("after_answer", to, number=signal.SIGSTOP)
    ids = {}
    for name, to in recipients.items():  # one after the other: the first stops the worker that has it
        ids[name] = str(shop.send("sms", to).id)
        system.crashed("after_answer", len(ids))
    url = receipts_url(shop, "sms")
    assert Callback(f"{url}?message={ids['ours']}", sids["ours"], "delivered").post() == 200
    assert Callback(url, sids["theirs"], "delivered").post() == 200
    with seen.recovery():
        wait_for(lambda: str(shop.client.get(ids["ours"]).status) == "delivered", 10, "the early receipt")
        assert kept(shop)["delivered", ""] == 1, "the other waits for its message"
        assert str(shop.client.get(ids["theirs"]).status) != "delivered"
        for pid in system.crashed("after_answer", 2):
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: str(shop.client.get(ids["theirs"]).status) == "delivered", 20, "the parked receipt")
    shop.settled()
    for name, id_ in ids.items():
        got = shop.client.get(id_)
        assert (got.attempt_count, got.in_doubt_count, got.provider_message_id) == (1, 0, sids[name])
    assert {vendor.asked[to[1:]] for to in recipients.values()} == {1}
    seen("by our id applied at once, by the vendor's parked until the send was recorded; one attempt each, no doubt")


@pytest.mark.row("F35", "receipts forged, replayed, for another service", "401 and nothing changed; kept once")
def test_forged_and_foreign_receipts_change_nothing(
    system: FaultSystem, shop: Tenant, other: Tenant, seen: Evidence
) -> None:
    message_id, sid = sent(shop)
    url = f"{receipts_url(shop, 'sms')}?message={message_id}"
    before, told = kept(shop), events(shop, message_id)
    good = Callback(url, sid, "delivered")
    body = urlencode(good.form)
    forged = {
        "unsigned": (url, body, FORM),
        "signed with rubbish": (url, body, {**FORM, "X-Twilio-Signature": "\xff\xfe=="}),
        "signed by another account": (url, body, Callback(url, sid, "delivered", OTHER_TOKEN).headers),
        "signed for another status": (url, body.replace("delivered", "read"), good.headers),
        "signed for another message": (url.replace(message_id, str(uuid4())), body, good.headers),
        "for no account": (f"{system.url}/receipts/{uuid4()}?message={message_id}", body, good.headers),
    }
    answers = {
        name: POOL.request("POST", where, body=text, headers=headers).status
        for name, (where, text, headers) in forged.items()
    }
    assert answers == dict.fromkeys(forged, 401)
    foreign = Callback(f"{receipts_url(other, 'sms')}?message={message_id}", sid, "delivered", OTHER_TOKEN)
    assert foreign.post() == 200, "it is the other's own account that signed"
    wait_for(lambda: kept(other).total() == 1, 10, "the other's receipt")
    # A receipt of ours that is applied shows that the relay has looked at all that came before it.
    control_id, control_sid = sent(shop)
    Callback(f"{receipts_url(shop, 'sms')}?message={control_id}", control_sid, "delivered").post()
    wait_for(lambda: str(shop.client.get(control_id).status) == "delivered", 20, "the receipt of another message")
    assert kept(shop).total() == before.total() + 1
    assert (str(shop.client.get(message_id).status), events(shop, message_id)) == ("sent", told)
    assert {good.post() for _ in range(5)} == {200}, "replayed"
    wait_for(lambda: str(shop.client.get(message_id).status) == "delivered", 20, "the true receipt")
    assert kept(shop).total() == before.total() + 2
    assert events(shop, message_id) == [*told, "delivered"]
    seen("6 kinds of forgery: 401; another service's own moved nothing; 5 replays kept as one")


@pytest.mark.thorough
@pytest.mark.row(
    "F35", "10,000 receipts at once, shuffled, half of them repeats", "all 200; all applied; acceptance goes on"
)
def test_ten_thousand_receipts_at_once(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    before = kept(shop).total()
    ids = shop.send_many(2_500)
    shop.settled(60)
    sql = "SELECT id::text, provider_message_id FROM message WHERE id = ANY(%s::uuid[])"
    url = receipts_url(shop, "sms")
    callbacks = [
        Callback(f"{url}?message={id_}", sid, status)
        for id_, sid in system.query(sql, ids)
        for status in ("sent", "sent", "delivered", "delivered")
    ]
    random.Random(35).shuffle(callbacks)
    with Load(shop, rows=5) as load:
        load.more(5)
        begun = time.monotonic()
        assert asyncio.run(_posted(callbacks)) == {200: 10_000}
        took = time.monotonic() - begun
    assert not load.errors
    slowest = max(load.seconds)
    assert slowest < SLOW_SECONDS
    with seen.recovery():
        wait_for(lambda: all_applied(shop, before + 5_000), 60, "5,000 receipts applied")
    marks = "SELECT status, count(*) FROM message WHERE id = ANY(%s::uuid[]) GROUP BY status"
    assert dict(system.query(marks, ids)) == {"delivered": 2_500}
    accepted = f"{len(load.told)} messages accepted meanwhile, the slowest five within {slowest:.1f} s"
    seen(f"10,000 answered 200 within {took:.0f} s, 5,000 kept, 2,500 messages delivered; {accepted}")


async def _posted(callbacks: Sequence[Callback]) -> dict[int, int]:
    """Post them, a hundred at a time; how often each status was answered."""
    gate = asyncio.Semaphore(100)
    answers: Counter[int] = Counter()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def one(callback: Callback) -> None:
            async with gate, session.post(callback.url, data=urlencode(callback.form), headers=callback.headers) as got:
                answers[got.status] += 1

        await asyncio.gather(*(one(callback) for callback in callbacks))
    return dict(answers)
