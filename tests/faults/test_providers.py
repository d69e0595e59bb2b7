"""F27-F33: vendors that refuse, hang, drip, throttle, fail, reset, talk rubbish, flood or redirect.

What one answer means is tested channel by channel elsewhere. Here real workers meet them: the class is kept with the
attempt, the place is free again by the deadline, memory stays flat, and once the vendor is well the message goes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from chaski.errors import Conflict
from config.ports import any_free
from tests.channels.certificates import Authority
from tests.channels.wire import Server, answer
from tests.faults.evidence import Evidence
from tests.faults.hostile import Vendors, accepts, drips, floods, hangs, says, served, stops_after, vendors
from tests.faults.meetings import (
    SECRET,
    Meeting,
    all_sent_at_the_second_attempt,
    as_expected,
    firsts,
    longest_call,
    meet,
    numbers,
    outcomes,
    post,
    slowest,
    throttles,
)
from tests.faults.proxy import Proxy
from tests.faults.system import FaultSystem
from tests.faults.tenants import tenant
from tests.faults.watching import forget_peaks, resident_mb
from tests.processes.system import SCALE, Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

DEADLINE_SECONDS = 20 * SCALE
#: What a busy machine may add to anything.
NOISE_SECONDS = 4.0


@pytest.fixture(scope="module")
def hostile() -> Iterator[Vendors]:
    """All HTTP vendors of this module."""
    with vendors() as found:
        yield found


@pytest.fixture(scope="module")
def shop(running: FaultSystem, hostile: Vendors) -> Tenant:
    """A service with an account at each of them."""
    return tenant(
        running,
        ("webhook", "webhook", f"secret={SECRET}"),
        (
            "sms",
            "twilio",
            f"base_url={hostile.url}",
            f"account_sid=AC{'0' * 32}",
            "auth_token=t",
            "from_number=+15005550006",
        ),
        ("telegram", "telegram", f"base_url={hostile.url}", "token=123456:abcdefghijklmnopqrstuvwxyzABCDEFGHI"),
    )


def canceled(shop: Tenant, message_id: str) -> bool:
    """Withdraw a message that is tried again and again; False at the moment of a try."""
    with suppress(Conflict):
        shop.client.cancel(message_id)
        return True
    return False


@pytest.mark.row("F27", "provider refuses connections, has no name, fails at TLS", "not_sent, no doubt; sent when well")
def test_a_vendor_that_cannot_be_reached_costs_waiting_only(
    system: FaultSystem, shop: Tenant, hostile: Vendors, seen: Evidence, tmp_path: Path
) -> None:
    port = any_free()
    tls = Authority.made().server_context("localhost", tmp_path)
    with served(lambda: Server.started(tls)) as unknown_issuer:
        urls = {
            "refused": f"http://127.0.0.1:{port}/",
            "dns": "https://no-such-host.invalid/",
            "tls": f"https://127.0.0.1:{unknown_issuer.port}/",
        }
        ids = dict(zip(urls, post(shop, "webhook", list(urls.values())), strict=True))
        assert firsts(shop, ids) == {name: ("not_sent", name) for name in urls}
    with seen.recovery(), Proxy(port, ("127.0.0.1", hostile.server.port)):
        shop.client.wait(ids["refused"], until="sent", timeout=30)
    for name in ("dns", "tls"):
        wait_for(lambda id_=ids[name]: canceled(shop, id_), 10, "an end between two attempts")  # type: ignore[misc]
    doubts = shop.doubts()
    assert {doubts[id_] for id_ in ids.values()} == {0}
    seen("refused, dns and tls kept as not_sent; none in doubt; sent when the port opened")


@pytest.mark.row("F28", "provider hangs or drips, 500 calls at once", "in_doubt at the deadline; its places free again")
def test_hanging_calls_end_at_their_deadline_and_stop_nobody_else(
    system: FaultSystem, shop: Tenant, hostile: Vendors, seen: Evidence
) -> None:
    """500 calls fill the account's windows in both workers, 200 each. No other account waits for them."""
    head = b"HTTP/1.1 200 OK\r\nX: "
    hostile.answers |= {
        "/hangs/": hangs,
        "/drips-head/": drips(head, SCALE),
        "/drips-body/": drips(head + b"y\r\nContent-Length: 1000\r\n\r\n", SCALE),
    }
    other = tenant(system, ("webhook", "webhook", f"secret={SECRET}"))
    kinds = [*["hangs"] * 400, *["drips-head"] * 50, *["drips-body"] * 50]
    ids = post(shop, "webhook", [f"{hostile.url}/{kind}/{n}" for n, kind in enumerate(kinds)])
    wait_for(lambda: shop.under_way() >= 300, 20, "full windows")
    same = post(other, "webhook", [f"{hostile.url}/well/{n}" for n in range(20)])
    elsewhere = post(shop, "sms", [f"+5691{next(numbers)}" for _ in range(20)])
    assert set(other.settled()) == {"sent"}
    wait_for(lambda: slowest(shop, elsewhere) > 0, 20, "the other channel")
    held_up, unmoved = slowest(other, same), slowest(shop, elsewhere)
    wait_for(lambda: len(outcomes(shop, ids)) == len(ids), 20, "the end of every first call")
    # "deadline" and "no_time_left" where the claim itself took so long that the call's own patience would come too late.
    ends = Counter(outcomes(shop, ids).values())
    assert set(ends) <= {("in_doubt", "timeout"), ("in_doubt", "deadline"), ("not_sent", "no_time_left")}
    assert ends["in_doubt", "timeout"] > 250
    assert longest_call(shop, ids) < DEADLINE_SECONDS + 1
    for word in ("/hangs/", "/drips-head/", "/drips-body/"):
        hostile.answers[word] = accepts
    with seen.recovery():
        assert set(shop.settled(60)) <= {"sent", "canceled"}
    assert unmoved < DEADLINE_SECONDS + NOISE_SECONDS
    assert held_up < 2 * DEADLINE_SECONDS + NOISE_SECONDS
    seen(
        f"longest call {longest_call(shop, ids):.1f} s of {DEADLINE_SECONDS:.0f} s; "
        f"another account of the channel waited {held_up:.1f} s, another channel {unmoved:.1f} s; all sent afterwards"
    )


@pytest.mark.row("F29", "provider throttles: 429 in all its forms", "throttled, no doubt; never earlier than it asked")
def test_a_throttle_is_waited_out_in_whatever_form_it_comes(
    system: FaultSystem, shop: Tenant, hostile: Vendors, seen: Evidence
) -> None:
    meetings = throttles()
    with seen.recovery():
        ids = meet(shop, hostile, meetings)
        assert firsts(shop, ids) == as_expected(meetings)
        all_sent_at_the_second_attempt(shop, ids, doubts=0)
    for meeting in meetings:
        (_, _, _, _, refused_at), (_, _, _, begun_at, _) = shop.attempts(ids[meeting.name])
        waited = (begun_at - refused_at).total_seconds()
        least, most = meeting.waits
        assert least <= waited < most + NOISE_SECONDS, (meeting.name, waited)
    seen(f"{len(meetings)} forms, each kept as throttled and waited for as asked; all sent, none in doubt")


@pytest.mark.row("F30", "provider answers 5xx", "transient, counted as a doubt; tried again")
def test_a_failure_of_the_vendor_is_tried_again_and_counted_as_a_doubt(
    system: FaultSystem, shop: Tenant, hostile: Vendors, seen: Evidence
) -> None:
    html, said = b"<html>Bad gateway</html>", b'{"code": 20500, "message": "Internal Server Error", "status": 500}'
    meetings = [
        *(
            Meeting(f"webhook {status}", "webhook", says(answer(status, html)), "transient", f"http_{status}")
            for status in (500, 502, 503, 504, 520, 599)
        ),
        Meeting("twilio 500", "sms", says(answer(500, said)), "transient", "20500"),
        Meeting("twilio 503", "sms", says(answer(503, html, "Retry-After: 1")), "transient", "http_503", (1.0, 1.1)),
        Meeting("telegram 502", "telegram", says(answer(502, html)), "transient", "http_502"),
    ]
    with seen.recovery():
        ids = meet(shop, hostile, meetings)
        assert firsts(shop, ids) == as_expected(meetings)
        all_sent_at_the_second_attempt(shop, ids, doubts=1)
    (_, _, _, _, failed_at), (_, _, _, begun_at, _) = shop.attempts(ids["twilio 503"])
    assert (begun_at - failed_at).total_seconds() >= 1
    seen(f"{len(meetings)} kept as transient, one doubt each, all sent at the second attempt")


@pytest.mark.row("F31", "provider resets in mid-answer", "in_doubt; repeated once, the repeat counted")
def test_an_answer_that_breaks_off_is_in_doubt(
    system: FaultSystem, shop: Tenant, hostile: Vendors, seen: Evidence
) -> None:
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"sid": '
    chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    acts = {"before": b"", "in the head": b"HTTP/1.1 200 OK\r\nContent-", "in the body": half, "between chunks": chunk}
    meetings = [
        Meeting(f"{channel} {place}", channel, stops_after(data), "in_doubt", "connection_lost")
        for channel in ("webhook", "sms", "telegram")
        for place, data in acts.items()
    ]
    with seen.recovery():
        ids = meet(shop, hostile, meetings)
        assert firsts(shop, ids) == as_expected(meetings)
        all_sent_at_the_second_attempt(shop, ids, doubts=1)
    seen(f"{len(meetings)} kept as in_doubt, repeated once, one doubt each")


@pytest.mark.row("F32", "provider answers 200 with rubbish", "in_doubt where its success must say something")
def test_a_success_that_cannot_be_read_is_in_doubt(
    system: FaultSystem, shop: Tenant, hostile: Vendors, seen: Evidence
) -> None:
    bodies = {
        "html": b"<html>It works!</html>",
        "empty": b"",
        "half": b'{"sid": "SM0',
        "a list": b"[1, 2]",
        "a deep list": b"[" * 50_000,
        "no id": b'{"status": "queued"}',
        "half a character": b'{"sid": "\\ud800"}',
        "not UTF-8": b'{"sid": "\xff\xfe"}',
    }
    meetings = [
        *(
            Meeting(f"{channel} {name}", channel, says(answer(200, body)), "in_doubt", "unreadable_answer")
            for channel in ("sms", "telegram")
            for name, body in bodies.items()
        ),
        *(
            Meeting(f"{channel} another protocol", channel, stops_after(b"SSH-2.0-OpenSSH_9.2\r\n"), "in_doubt", code)
            for channel, code in (("sms", "unreadable_answer"), ("webhook", "unreadable_answer"))
        ),
    ]
    with seen.recovery():
        ids = meet(shop, hostile, meetings)
        assert firsts(shop, ids) == as_expected(meetings)
        all_sent_at_the_second_attempt(shop, ids, doubts=1)
    seen(f"{len(meetings)} kept as in_doubt, repeated once, one doubt each")


@pytest.mark.row("F33", "provider floods: bodies and headers without end", "cut off; memory flat")
def test_answers_without_end_are_cut_off_and_cost_no_memory(
    system: FaultSystem, shop: Tenant, hostile: Vendors, seen: Evidence
) -> None:
    kinds = {
        "floods-yes": floods(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"),
        "floods-no": floods(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n"),
        "floods-head": floods(b"HTTP/1.1 200 OK\r\nX: "),
    }
    recipients = [f"{hostile.url}/{kind}/{n}" for n in range(40) for kind in kinds]
    post(shop, "webhook", [f"{hostile.url}/warm/{n}" for n in range(len(recipients))])
    shop.settled()
    before = resident_mb(system)
    hostile.answers |= {f"/{kind}/": act for kind, act in kinds.items()}
    forget_peaks(system)
    ids = post(shop, "webhook", recipients)
    wait_for(lambda: len(outcomes(shop, ids)) == len(ids), 30, "the end of the calls")
    peak = resident_mb(system, "VmHWM")
    found = outcomes(shop, ids)
    assert {kind: found[id_] for kind, id_ in zip(kinds, ids, strict=False)} == {
        "floods-yes": ("accepted", ""),
        "floods-no": ("transient", "http_500"),
        "floods-head": ("in_doubt", "unreadable_answer"),
    }
    hostile.answers |= {f"/{kind}/": accepts for kind in kinds}
    with seen.recovery():
        shop.settled()
    assert peak < before + 64
    seen(f"{len(ids)} floods at once: cut off; a worker held {before:.0f} MB before, {peak:.0f} MB at most; all sent")


@pytest.mark.row("F33", "provider redirects", "refused for good, never followed")
def test_a_redirect_is_not_followed(system: FaultSystem, shop: Tenant, hostile: Vendors, seen: Evidence) -> None:
    hostile.answers["/redirect-target/"] = accepts
    where = f"Location: {hostile.url}/redirect-target/"
    meetings = [
        Meeting(f"webhook {status}", "webhook", says(answer(status, b"", where)), "recipient_refused", f"http_{status}")
        for status in (301, 302, 303, 307, 308)
    ]
    ids = meet(shop, hostile, meetings)
    assert firsts(shop, ids) == as_expected(meetings)
    shop.settled()
    assert {str(shop.client.get(id_).status) for id_ in ids.values()} == {"failed"}
    assert hostile.asked["/redirect-target/"] == 0
    seen("301, 302, 303, 307 and 308: failed at the first attempt, the target was never asked")
