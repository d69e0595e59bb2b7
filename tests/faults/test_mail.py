"""F34: a mail server that refuses, drops or hangs at each verb; doubt begins after the final dot and not before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.channels.smtp_wire import Act
from tests.faults.evidence import Evidence
from tests.faults.hostile import Mailroom, mailroom
from tests.faults.system import FaultSystem
from tests.faults.tenants import tenant
from tests.processes.system import SCALE, Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

DEADLINE_SECONDS = 120 * SCALE
SOON = "try again in 1 second"


@pytest.fixture(scope="module")
def mails() -> Iterator[Mailroom]:
    """The mail server."""
    with mailroom() as found:
        yield found


@pytest.fixture(scope="module")
def shop(running: FaultSystem, mails: Mailroom) -> Tenant:
    """A service whose mails go there."""
    where = ("host=127.0.0.1", f"port={mails.server.port}", "security=none")
    return tenant(running, ("email", "smtp", *where, "from=Shop <shop@shop.example>"))


@dataclass(frozen=True)
class Reply:
    """What is answered to one verb once, and what it means: class, code and status in the end."""

    verb: str
    said: str | Act
    error_class: str
    code: str
    ends: str = "sent"

    @property
    def name(self) -> str:
        """Also the recipient's name."""
        said = self.said.value if isinstance(self.said, Act) else "-".join(self.said.split()[:2])
        return f"{self.verb}-{said}".lower().replace("!", "")


def put_off(verb: str, code: str, enhanced: str) -> Reply:
    """A 4yz reply: nothing was done, so the next attempt is no doubt."""
    return Reply(verb, f"{code} {enhanced} Not now, {SOON}", "throttled", enhanced)


BY_RECIPIENT = (
    put_off("RCPT", "450", "4.2.1"),
    put_off("RCPT", "451", "4.7.1"),
    put_off("RCPT", "452", "4.2.2"),
    put_off("RCPT", "421", "4.3.2"),
    put_off("DATA", "451", "4.3.0"),
    put_off("dot", "451", "4.3.0"),
    put_off("dot", "452", "4.3.1"),
    put_off("dot", "421", "4.4.2"),
    Reply("RCPT", "550 5.1.1 No such user", "recipient_refused", "5.1.1", "failed"),
    Reply("RCPT", "553 5.1.3 Bad address", "recipient_refused", "5.1.3", "failed"),
    Reply("RCPT", "552 5.3.4 Too big", "content_refused", "5.3.4", "failed"),
    Reply("DATA", "554 5.6.0 Not this", "content_refused", "5.6.0", "failed"),
    Reply("dot", "554 5.7.1 Spam", "content_refused", "5.7.1", "failed"),
    Reply("dot", "550 No", "content_refused", "550", "failed"),
    *(Reply(verb, act, "not_sent", "connection_lost") for verb in ("RCPT", "DATA") for act in (Act.DROP, Act.RESET)),
    *(Reply("dot", act, "in_doubt", "connection_lost") for act in (Act.DROP, Act.RESET)),
    Reply("dot", "Moin!", "in_doubt", "unreadable_answer"),
)
HANGS = (
    Reply("RCPT", Act.HANG, "not_sent", "timeout"),
    Reply("DATA", Act.HANG, "not_sent", "timeout"),
    Reply("dot", Act.HANG, "in_doubt", "timeout"),
)


def send(shop: Tenant, mails: Mailroom, reply: Reply) -> str:
    """A mail whose recipient's server answers so once; its id."""
    to = f"{reply.name}@shop.example"
    mails.replies[to] = {reply.verb: reply.said}
    return str(shop.send("email", to, subject="Order 7").id)


def first(shop: Tenant, message_id: str) -> tuple[str, str]:
    """Outcome and code of the first attempt, once it has ended."""
    rows = wait_for(
        lambda: found if (found := shop.attempts(message_id)) and found[0][4] else [], 30, "the first attempt's end"
    )
    return rows[0][1], rows[0][2]


def check(shop: Tenant, mails: Mailroom, replies: tuple[Reply, ...], seconds: float) -> None:
    """Send one mail into each reply; class, code, end and doubts must be as the table says."""
    ids = {reply.name: send(shop, mails, reply) for reply in replies}
    assert {name: first(shop, id_) for name, id_ in ids.items()} == {
        reply.name: (reply.error_class, reply.code) for reply in replies
    }
    shop.settled(seconds)
    found = {name: shop.client.get(id_) for name, id_ in ids.items()}
    doubtful = {reply.name for reply in replies if reply.error_class == "in_doubt"}
    assert {name: (str(got.status), got.in_doubt_count) for name, got in found.items()} == {
        reply.name: (reply.ends, int(reply.name in doubtful)) for reply in replies
    }
    took = {reply.name: mails.mails[f"{reply.name}@shop.example"] for reply in replies}
    assert {name for name, n in took.items() if n > 1} >= doubtful


@pytest.mark.row("F34", "SMTP: 4yz, 5yz, drop and reset at RCPT, DATA and the final dot", "in_doubt after the dot only")
def test_each_verbs_answer_means_what_it_says(
    system: FaultSystem, shop: Tenant, mails: Mailroom, seen: Evidence
) -> None:
    with seen.recovery():
        check(shop, mails, BY_RECIPIENT, 30)
    seen(f"{len(BY_RECIPIENT)} replies classed; in_doubt after the dot only; what may be repeated was sent")


@pytest.mark.thorough
@pytest.mark.row("F34", "SMTP: silence at RCPT, DATA and after the final dot", "ends by the deadline; others go on")
def test_silence_ends_by_the_deadline(system: FaultSystem, shop: Tenant, mails: Mailroom, seen: Evidence) -> None:
    ids = [send(shop, mails, reply) for reply in HANGS]
    wait_for(lambda: shop.under_way() == len(HANGS), 20, "the silence")
    other = shop.send("email", "somebody@shop.example", subject="Order 8")
    shop.client.wait(other.id, until="sent", timeout=DEADLINE_SECONDS / 2)
    assert [first(shop, id_) for id_ in ids] == [(reply.error_class, reply.code) for reply in HANGS]
    sql = "SELECT extract(epoch FROM max(finished_at - opened_at))::float8 FROM attempt WHERE message_id = ANY(%s::uuid[])"
    longest = system.query(sql, ids)[0][0]
    assert longest < DEADLINE_SECONDS + 1
    assert shop.settled() == {**shop.statuses(), "sent": shop.statuses()["sent"]}
    assert [shop.client.get(id_).in_doubt_count for id_ in ids] == [0, 0, 1]
    seen(f"longest call {longest:.1f} s of {DEADLINE_SECONDS:.0f} s; another mail passed meanwhile; all sent")


#: Before a recipient is known: what the server says concerns the account, not the mail.
BY_SESSION = (
    put_off("greeting", "421", "4.3.2"),
    Reply("EHLO", f"421 4.3.2 Busy, {SOON}", "throttled", "4.3.2"),
    put_off("MAIL", "451", "4.3.1"),
    *(
        Reply(v, act, "not_sent", "connection_lost")
        for v in ("greeting", "EHLO", "MAIL")
        for act in (Act.DROP, Act.RESET)
    ),
    Reply("greeting", "SSH-2.0-OpenSSH_9.2", "not_sent", "unreadable_answer"),
)
STOPS = (
    Reply("greeting", "554 5.7.1 You are blocked", "misconfigured", "5.7.1"),
    Reply("MAIL", "550 5.7.1 Sender refused", "misconfigured", "5.7.1"),
    Reply("MAIL", "530 5.7.0 Authentication required", "misconfigured", "5.7.0"),
)


@pytest.mark.thorough
@pytest.mark.row(
    "F34", "SMTP: 4yz, 5yz, drop and reset at greeting, EHLO and MAIL", "nothing in doubt, no message burnt"
)
def test_what_is_said_before_a_recipient_is_known_burns_no_mail(
    system: FaultSystem, shop: Tenant, mails: Mailroom, seen: Evidence
) -> None:
    for reply in BY_SESSION:
        mails.replies[""] = {reply.verb: reply.said}
        message = shop.send("email", f"session-{reply.name}@shop.example", subject="Order 7")
        assert first(shop, str(message.id)) == (reply.error_class, reply.code), reply
        sent = shop.client.wait(message.id, until="sent", timeout=20)
        assert (sent.attempt_count, sent.in_doubt_count) == (2, 0), reply
    seen(f"{len(BY_SESSION)} replies classed; every mail sent at the second attempt, none in doubt")


@pytest.mark.thorough
@pytest.mark.row(
    "F34", "SMTP: the sender or the login is refused", "the account stops; no message burnt, none in doubt"
)
def test_a_refused_sender_stops_the_account_and_burns_no_mail(
    system: FaultSystem, shop: Tenant, mails: Mailroom, seen: Evidence
) -> None:
    asked = []
    for reply in STOPS:
        mails.stands = {reply.verb: str(reply.said)}
        message = shop.send("email", f"stop-{reply.name}@shop.example", subject="Order 7")
        assert first(shop, str(message.id)) == (reply.error_class, reply.code), reply
        wait_for(lambda id_=message.id: shop.client.get(id_).waiting_for == "operator", 10, "the stop")  # type: ignore[misc]
        mails.stands = {}
        asked.append(shop.client.get(message.id).attempt_count)
        system.manage.run("resume", "--account", "email", "--service", shop.name)
        sent = shop.client.wait(message.id, until="sent", timeout=20)
        assert sent.in_doubt_count == 0, reply
    seen(f"asked {max(asked)} times at most until the account stood; sent once it was resumed, none in doubt")
