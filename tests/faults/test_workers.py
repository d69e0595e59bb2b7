"""F1-F8: worker processes that are killed or frozen at any point of a message's path. Four of them run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from chaski.identifiers import uuid7
from tests.faults.evidence import Evidence
from tests.faults.hostile import hangs, vendors
from tests.faults.load import Load
from tests.faults.system import FaultSystem
from tests.faults.watching import (
    CALL_SECONDS,
    NOISE_SECONDS,
    RECOVERY_SECONDS,
    Fate,
    all_sent,
    bells,
    busy_worker,
    explained,
    fate,
    out_of_order,
    row,
    statuses,
)
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

CREW = ("worker1", "worker2", "worker3", "worker4")
HOOK = "https://shop.example/hooks/"
HELD = {"account": "hold"}


@pytest.fixture(scope="module", autouse=True)
def crew(running: FaultSystem) -> Iterator[None]:
    """Two workers more, so that one always lives; how long a new process takes to start is not measured here."""
    with running.more_workers(3, 4):
        yield


@dataclass(frozen=True, slots=True)
class Killed:
    """The messages' ids by the name of the point at which their workers were killed."""

    ids: dict[str, str]
    #: When those workers were killed that never claimed the message of ``before_claim``.
    before_claim_at: datetime


@pytest.fixture(scope="module")
def killed(running: FaultSystem, shop: Tenant) -> Killed:
    """One worker after the other killed at each point, two at a time: no repeat may be under way in the next victim."""
    before, at = before_the_claim(running, shop)
    ids = {"before_claim": before}
    for pair in (("after_claim", "after_begin"), ("before_record", "after_record")):
        for point in pair:
            ids[point] = killed_at(running, shop, point)[0]
        shop.settled()
    for point in ("in_send", "after_answer"):
        ids[point], ids[f"{point}, hold"] = killed_at(running, shop, point, {}, HELD)
    shop.settled()
    ids["after_answer, receipt"] = killed_at(running, shop, "after_answer", channel="sms")[0]
    shop.settled()
    ids["written"] = killed_with_its_request_written(running, shop)
    shop.settled()
    return Killed(ids, at)


def before_the_claim(system: FaultSystem, shop: Tenant) -> tuple[str, datetime]:
    """A message whose bells went to frozen workers, of which all but one are killed before they look at them; when."""
    doomed = [system.pids()[name] for name in CREW[:3]]
    with system.frozen(system.pids()[CREW[3]]):
        for pid in doomed:
            os.kill(pid, signal.SIGSTOP)
        message = shop.send("webhook", f"{HOOK}before_claim")
        wait_for(lambda: bells(system), 10, "a bell that nobody is left to take")
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        ((at,),) = system.query("SELECT clock_timestamp()")
    all_sent(system, [str(message.id)])
    return str(message.id), at


def killed_with_its_request_written(system: FaultSystem, shop: Tenant) -> str:
    """A message whose worker is killed once the vendor has read all of its request, and has accepted nothing."""
    system.workers_are_ready(2)
    with vendors() as silent:
        silent.answers["written/"] = hangs
        system.vendor.lead_to(("127.0.0.1", silent.server.port))
        message = str(shop.send("webhook", f"{HOOK}written/0").id)
        crew = {name: pid for name, pid in system.pids().items() if name in CREW}
        wait_for(lambda: silent.asked["written/"], 10, "a request that was read")
        for pid in crew.values():  # so that the call cannot time out before its worker is found
            os.kill(pid, signal.SIGSTOP)
        ((worker,),) = system.query("SELECT split_part(worker, '@', 1) FROM attempt WHERE message_id = %s", message)
        killed = system.kill(worker)
        for name in crew.keys() - {worker}:
            os.kill(crew[name], signal.SIGCONT)
        system.vendor.heal()  # before the lease ends: the repeat shall meet a vendor that answers
        system.restarted(worker, killed)
    return message


def killed_at(
    system: FaultSystem, shop: Tenant, point: str, *fields: dict[str, str], channel: str = "webhook"
) -> list[str]:
    """A batch of messages, one for each of ``fields``, whose worker is killed at ``point``."""
    system.workers_are_ready(2)
    to = {"webhook": f"{HOOK}{point}/{{}}", "sms": "+5692000000{}"}[channel]
    system.crash_at(point, to.format(0) if point in ("in_send", "after_answer") else "")
    ids = batch(shop, [{"channel": channel, "to": to.format(n), **each} for n, each in enumerate(fields or ({},))])
    (pid,) = system.crashed(point)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 10, "the end of the process")
    for file in system.crashes.glob("taken.*"):
        file.unlink()
    return ids


def batch(shop: Tenant, rows: list[dict[str, str]]) -> list[str]:
    """Send ``rows`` as one batch, which one worker claims as a whole; their ids."""
    ids = [str(uuid7()) for _ in rows]
    result = shop.client.send_many(
        [{"id": id_, "text": "Tu pedido", **each} for id_, each in zip(ids, rows, strict=True)]
    )
    assert not result.rejected, result.rejected
    shop.system.told.note(shop.name, ids)
    return ids


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        pytest.param(
            "before_claim",
            Fate("sent", 1, 0, 1, None),
            marks=row("F1", "kill -9 before the claim", "sent; 1 accept, no doubt"),
        ),
        pytest.param(
            "after_claim",
            Fate("sent", 1, 0, 2, None),
            marks=row("F2", "kill -9 after the claim", "sent; 1 accept, no doubt"),
        ),
        pytest.param(
            "after_begin",
            Fate("sent", 1, 1, 2, None),
            marks=row("F3", "kill -9 after the begin", "sent; 1 accept, 1 doubt"),
        ),
        pytest.param(
            "in_send",
            Fate("sent", 1, 1, 2, None),
            marks=row("F3", "kill -9 in the call, before its request is written", "sent; 1 accept, 1 doubt"),
        ),
        pytest.param(
            "written",
            Fate("sent", 1, 1, 2, None),
            marks=row("F3", "kill -9 in the call, request written, not accepted", "sent; 1 accept, 1 doubt"),
        ),
        pytest.param(
            "after_answer",
            Fate("sent", 2, 1, 2, None),
            marks=row("F4", "kill -9 in the call, accepted", "sent; 2 accepts, 1 doubt"),
        ),
        pytest.param(
            "after_answer, receipt",
            Fate("delivered", 1, 1, 1, None),
            marks=row(
                "F4", "kill -9 in the call, accepted, receipts come", "delivered; 1 accept: the receipt settles it"
            ),
        ),
        pytest.param(
            "before_record",
            Fate("sent", 2, 1, 2, None),
            marks=row("F5", "kill -9 before recording", "sent; 2 accepts, 1 doubt"),
        ),
        pytest.param(
            "after_record",
            Fate("sent", 1, 0, 1, None),
            marks=row("F6", "kill -9 after recording", "sent; 1 accept, no doubt"),
        ),
    ],
)
def test_a_worker_killed_at_a_point_of_the_path(
    system: FaultSystem, killed: Killed, seen: Evidence, point: str, expected: Fate
) -> None:
    found = fate(system, killed.ids[point], killed.before_claim_at if point == "before_claim" else None)
    assert replace(found, seconds=None) == expected
    if found.attempts > 1 or point == "before_claim":  # otherwise nothing had to be done again
        assert found.seconds is not None
        assert seen.took(found.seconds) < RECOVERY_SECONDS + NOISE_SECONDS
    seen(f"{found.status}; accepts {found.accepts}, doubts {found.doubts}")


@row("F3, F4", "kill -9 in the call, policy `hold`", "in_doubt, nothing sent again; an operator resolves it")
def test_a_message_of_a_killed_worker_is_held_in_doubt_where_the_account_says_so(
    system: FaultSystem, shop: Tenant, killed: Killed, seen: Evidence
) -> None:
    held = [killed.ids["in_send, hold"], killed.ids["after_answer, hold"]]
    assert [(fate(system, id_).status, fate(system, id_).attempts) for id_ in held] == [("in_doubt", 1)] * 2
    assert max(system.accepted(*held).values(), default=0) <= 1
    for id_, verdict in zip(held, ("retry", "sent"), strict=True):
        system.manage.run("resolve", id_, verdict, "--reason", "the vendor's own list was looked at")
    all_sent(system, held)
    assert [fate(system, id_).attempts for id_ in held] == [2, 1]
    assert {id_: n for id_, n in system.accepted(*held).items() if n > 2} == {}
    seen("in_doubt; resolved as `retry` it was sent, resolved as `sent` it was not sent again")


@row(
    "F1-F6",
    "kill -9 of two workers and a relay with calls under way, under load",
    "all sent; repeats only with a doubt; keys in their order",
)
def test_workers_and_a_relay_killed_under_load_double_nothing_in_silence(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    system.vendor.delay(CALL_SECONDS / 4)
    with Load(shop, channel="webhook", rows=20) as load, Load(shop, channel="webhook", rows=8, keys=8) as orderly:
        for _ in range(2):
            name = wait_for(lambda: busy_worker(system), 20, "calls under way")
            system.restarted(name, system.kill(name))
        system.restarted("relay1", system.kill("relay1"))
        load.more(100)
    with seen.recovery():
        all_sent(system, load.told + orderly.told)
    doubts = sum(shop.doubts()[id_] for id_ in load.told)
    assert doubts, "calls were under way, so they are counted as doubts"
    repeated = explained(system, shop, load.told + orderly.told).total() - len(load.told + orderly.told)
    assert not out_of_order(system, orderly.told, keys=8)
    seen(
        f"{len(load.told + orderly.told)} sent, {doubts} doubts, {repeated} repeated, {len(orderly.told)} in order by key"
    )


@pytest.mark.thorough
@row("F7", "one message kills its worker again and again", "failed as poison; nothing beside it is blamed")
def test_a_message_that_kills_its_workers_fails_alone(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    words = [*map(str, range(20)), "poison"]
    system.crash_at("in_send", "poison", times=9)
    with seen.recovery():
        *innocent, poison = batch(shop, [{"channel": "webhook", "to": HOOK + word} for word in words])
        wait_for(lambda: statuses(system, [poison])["failed"], 120, "the end of the poison")
    after = shop.send_many(20, "webhook")
    all_sent(system, [*innocent, *after])
    ((code, detail),) = system.query("SELECT error_code, error_detail FROM message WHERE id = %s", poison)
    kills = len(list(system.crashes.glob("taken.*")))
    assert code == "poison", detail
    assert kills == 5, "two with others beside it, which make it a suspect, and three alone"
    explained(system, shop, innocent)
    seen(f"poison failed after {kills} workers, {len(innocent)} beside it sent")


@row("F8", "SIGSTOP at three points for longer than a lease, then SIGCONT", "fenced; the fact is kept on its attempt")
def test_a_frozen_worker_changes_nothing_when_it_wakes_and_what_it_knows_is_kept(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    with ExitStack() as frozen:
        ids = {point: frozen_at(system, shop, frozen, point) for point in ("after_begin", "before_record")}
        ids["after_answer"] = frozen_at(system, shop, frozen, "after_answer", account="hold")
        with seen.recovery():
            all_sent(system, [ids["after_begin"], ids["before_record"]])
            wait_for(lambda: statuses(system, [ids["after_answer"]])["in_doubt"], 10, "the doubt")
        assert seen.recovery_seconds is not None
        assert seen.recovery_seconds < RECOVERY_SECONDS + NOISE_SECONDS
        events = events_of(system, ids.values())
    late = wait_for(lambda: found if len(found := late_facts(system, ids)) == 3 else None, 10, "three late facts")
    assert late == {"after_begin": "not_sent", "before_record": "accepted", "after_answer": "accepted"}
    all_sent(system, ids.values())
    assert events_of(system, ids.values()) == events + 1, "only the held message moved: a late acceptance is a proof"
    assert {point: system.accepted(id_)[id_] for point, id_ in ids.items()} == {
        "after_begin": 1,  # the call's deadline had passed, so it was not made any more
        "before_record": 2,
        "after_answer": 1,
    }
    seen("sent by another worker; woken, three kept their facts and the held message became sent")


def frozen_at(system: FaultSystem, shop: Tenant, until: ExitStack, point: str, **fields: str) -> str:
    """A message whose worker is stopped at ``point`` until the end of the block."""
    system.crash_at(point, "frozen" if point == "after_answer" else "", number=signal.SIGSTOP)
    message = shop.send("webhook", f"{HOOK}frozen/{point}", **fields)
    (pid,) = system.crashed(point)
    until.callback(os.kill, pid, signal.SIGCONT)
    return str(message.id)


def late_facts(system: FaultSystem, ids: dict[str, str]) -> dict[str, str]:
    """What the first attempts found out after their lease, by the point at which they were frozen."""
    sql = "SELECT late ->> 'outcome' FROM attempt WHERE message_id = %s AND number = 1 AND late IS NOT NULL"
    found = {point: system.query(sql, id_) for point, id_ in ids.items()}
    return {point: rows[0][0] or "accepted" for point, rows in found.items() if rows}


def events_of(system: FaultSystem, ids: object) -> int:
    """How often the messages moved."""
    return int(system.query("SELECT count(*) FROM event WHERE message_id = ANY(%s::uuid[])", list(ids))[0][0])  # type: ignore[call-overload]
