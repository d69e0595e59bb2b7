"""The claim: who gets what, in which order, and at what cost to the table."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from channels.base import ReceiptKind
from chaski.vocabulary import Lane
from deliveries import acts
from deliveries.delivery.claim import HELP_SECONDS, Claimer, Taken
from deliveries.delivery.turns import Room
from deliveries.models import Account, Attempt, Pending
from deliveries.models.control import PauseScope
from tests.deliveries import steps
from tests.deliveries.backlog import fill
from tests.factories import Caller, make_account, make_caller

pytestmark = pytest.mark.django_db
#: The urgent wait so long before others help.
LEFT_ALONE = timedelta(seconds=HELP_SECONDS + 0.1)


@pytest.fixture(autouse=True)
def _account(shop: Caller) -> None:
    make_account("sms")


def test_a_claim_leases_the_row_and_opens_its_attempt(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    (claimed,) = steps.claim()
    pending, attempt = steps.pending(message_id), Attempt.objects.get()
    assert pending is not None
    assert pending.lease_token == claimed.token == attempt.token
    assert timedelta(seconds=59) < pending.lease_until - steps.now() <= timedelta(seconds=60)
    assert (attempt.number, attempt.worker, attempt.task_id) == (1, "worker-of-a-test", "task-of-a-test")
    assert attempt.begun_at is None


def test_what_is_leased_is_not_claimed_again_even_when_its_lease_has_ended(shop: Caller) -> None:
    steps.accept(shop.service)
    assert steps.claim()
    assert not steps.claim()
    with steps.later(timedelta(hours=1)):
        assert not steps.claim(), "the sweep alone ends a lease, so that one place decides what it means"


def test_a_bell_with_ids_claims_those_and_nothing_else(shop: Caller) -> None:
    first, second, third = steps.accept(shop.service, 3)
    assert [claimed.id for claimed in steps.claim(ids=[third, first])] == [first, third]
    assert [claimed.id for claimed in steps.claim()] == [second]


def test_a_forged_bell_can_only_make_a_due_message_go(shop: Caller) -> None:
    (later,) = steps.accept(shop.service, send_at=(steps.now() + timedelta(hours=1)).isoformat())
    (email,) = steps.accept(shop.service)
    assert not steps.claim(ids=[later]), "not due"
    assert not steps.claim(ids=[email], channel="telegram"), "another channel's worker"


def test_the_urgent_go_first_and_a_lane_never_takes_a_lazier_one(shop: Caller) -> None:
    (bulk,) = steps.accept(shop.service, priority="bulk")
    (normal,) = steps.accept(shop.service, priority="normal")
    (urgent,) = steps.accept(shop.service, priority="urgent")
    with steps.later(LEFT_ALONE):
        assert [claimed.id for claimed in steps.claim(1, lane=Lane.NORMAL)] == [urgent]
        assert [claimed.id for claimed in steps.claim(lane=Lane.NORMAL)] == [normal]
        assert [claimed.id for claimed in steps.claim(lane=Lane.BULK)] == [bulk]


def test_the_urgent_are_left_to_those_who_are_there_for_them_for_a_moment(shop: Caller) -> None:
    (normal,) = steps.accept(shop.service)
    (urgent,) = steps.accept(shop.service, priority="urgent")
    assert [claimed.id for claimed in steps.claim(lane=Lane.BULK)] == [normal]
    assert [claimed.id for claimed in steps.claim(lane=Lane.URGENT)] == [urgent]
    (urgent,) = steps.accept(shop.service, priority="urgent")
    with steps.later(LEFT_ALONE):
        assert [claimed.id for claimed in steps.claim(lane=Lane.BULK)] == [urgent]


def test_the_urgent_do_not_stand_in_a_claim_of_hundreds(shop: Caller) -> None:
    fill(shop.service.pk, 20_000)
    urgent = set(steps.accept(shop.service, 3, priority="urgent"))
    claimer = Claimer()
    with steps.later(LEFT_ALONE), transaction.atomic(), connection.cursor() as cursor:
        first = claimer.claim(cursor, steps.request(cursor))
        second = claimer.claim(cursor, steps.request(cursor))
    assert ({message.id for message in first.messages}, first.all_of_it) == (urgent, False)
    assert len(second.messages) == 250


def test_many_urgent_take_no_more_than_every_other_claim(shop: Caller) -> None:
    fill(shop.service.pk, 2_000)
    claimer, lanes = Claimer(), []
    for _ in range(4):
        steps.accept(shop.service, 3, priority="urgent")
        with steps.later(LEFT_ALONE), transaction.atomic(), connection.cursor() as cursor:
            lanes.append(len(claimer.claim(cursor, steps.request(cursor)).messages))
    assert lanes == [3, 250, 6, 250]


def test_a_small_service_gets_its_turn_beside_a_large_one(shop: Caller) -> None:
    fill(shop.service.pk, 20_000)
    small = make_caller("small").service
    ids = set(steps.accept(small, 10))
    claimed = steps.claim(250)
    assert ids <= {message.id for message in claimed}
    assert len(claimed) == 250, "what the small one leaves over the large one may have"


def test_an_account_takes_no_more_than_it_may_and_the_others_of_its_service_get_the_rest(shop: Caller) -> None:
    slow, quick = Account.objects.get(), make_account("sms", name="quick")
    fill(shop.service.pk, 300)
    steps.accept(shop.service, 60, account="quick")
    claimed = steps.claim(250, room=Room(usual=1_000, free={slow.pk: 20}))
    assert Counter(message.account_id for message in claimed) == {slow.pk: 20, quick.pk: 60}


def test_a_full_account_keeps_nobody_elses_rows_out_of_sight(shop: Caller) -> None:
    emptied()
    full, other = Account.objects.get(), make_account("sms", name="other")
    fill(shop.service.pk, 20_000)
    behind = set(steps.accept(shop.service, 5, account="other"))
    before = rows_read()
    claimed = steps.claim(250, room=Room(usual=1_000, full=frozenset({full.pk})))
    assert {message.id for message in claimed} == behind
    assert {message.account_id for message in claimed} == {other.pk}
    assert rows_read() - before < 200, "the claim looked through the rows of the full account"


def test_a_claim_by_what_was_known_a_moment_ago_does_not_say_that_it_saw_all(shop: Caller) -> None:
    """A service that has just begun to send is not among the turns that are remembered."""
    steps.accept(shop.service, 2)
    claimer = Claimer()

    def claim(n: int) -> Taken:
        with transaction.atomic(), connection.cursor() as cursor:
            return claimer.claim(cursor, steps.request(cursor, n))

    assert len(claim(1).messages) == 1
    new = set(steps.accept(make_caller("new").service, 3))
    known = claim(250)
    assert (len(known.messages), known.all_of_it) == (1, False)
    fresh = claim(250)
    assert {message.id for message in fresh.messages} == new
    assert fresh.all_of_it


@pytest.mark.parametrize("scope", [PauseScope.SERVICE, PauseScope.ACCOUNT])
def test_what_is_paused_keeps_nobody_elses_rows_out_of_sight(shop: Caller, scope: PauseScope) -> None:
    emptied()
    fill(shop.service.pk, 20_000)
    paused = shop.service.pk if scope is PauseScope.SERVICE else Account.objects.get().pk
    acts.pause(scope, str(paused), actor="somebody")
    make_account("sms", name="other")
    behind = set(steps.accept(make_caller("small").service, 5, account="other"))
    before = rows_read()
    assert {message.id for message in steps.claim(250)} == behind
    assert rows_read() - before < 200


def test_a_look_for_a_suspect_reads_no_backlog(shop: Caller) -> None:
    emptied()
    fill(shop.service.pk, 20_000)
    (suspect,) = steps.accept(shop.service)
    Pending.objects.filter(pk=suspect).update(suspicion=2)
    before = rows_read()
    assert [message.id for message in steps.claim(1, solitary=True)] == [suspect]
    assert rows_read() - before < 50


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        (PauseScope.ALL, lambda shop: ""),
        (PauseScope.CHANNEL, lambda shop: "sms"),
        (PauseScope.SERVICE, lambda shop: str(shop.service.pk)),
        (PauseScope.ACCOUNT, lambda shop: str(Pending.objects.get().account_id)),
    ],
)
def test_what_is_paused_is_not_claimed_until_it_is_resumed(shop: Caller, scope: PauseScope, value: Any) -> None:
    steps.accept(shop.service)
    acts.pause(scope, value(shop), actor="somebody")
    assert not steps.claim()
    acts.resume(scope, value(shop), actor="somebody")
    assert len(steps.claim()) == 1


@pytest.mark.django_db(transaction=True)
def test_four_claimers_at_once_share_the_work_and_none_waits_for_another(shop: Caller) -> None:
    steps.accept(shop.service, 120)
    taken: Counter[Any] = Counter()

    def work() -> None:
        while claimed := steps.claim(10):
            taken.update(message.id for message in claimed)
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    with transaction.atomic():  # a fifth claimer that has not committed holds ten rows all the time
        held = {message.id for message in steps.claim(10)}
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(20)
        assert not any(worker.is_alive() for worker in workers)
    assert len(held) == 10
    assert set(taken.values()) == {1}
    assert len(taken) == 110


def test_the_last_look_before_the_call_finds_what_expired_or_was_suppressed_meanwhile(shop: Caller) -> None:
    fine, expiring, unwanted = (
        steps.accept(shop.service)[0],
        steps.accept(shop.service, expires_at=(steps.now() + timedelta(seconds=30)).isoformat())[0],
        steps.accept(shop.service, to="+56987654321")[0],
    )
    claimed = steps.claim()
    acts.suppress("sms", "+56987654321", service_id=shop.service.pk, actor="somebody", reason="STOP")
    with steps.later(timedelta(seconds=31)):
        begun = steps.begun(claimed)
    assert (begun.go, begun.expired, begun.suppressed) == ({fine}, {expiring}, {unwanted})
    assert {a.message_id for a in Attempt.objects.filter(begun_at__isnull=False)} == {fine}


def test_what_a_receipt_proved_delivered_since_the_claim_does_not_begin(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, steps.REFUSALS["in_doubt"])
    with steps.later(timedelta(seconds=30)):
        claimed = steps.claim()
        steps.receive(steps.message(message_id), ReceiptKind.DELIVERED)
        assert message_id not in steps.begun(claimed).go
    with steps.later(timedelta(seconds=120)):
        steps.swept()
    assert steps.message(message_id).status == "delivered"
    assert steps.pending(message_id) is None, "and nothing makes it go again"


def test_a_lease_that_ended_before_the_call_lets_nothing_begin(shop: Caller) -> None:
    steps.accept(shop.service)
    claimed = steps.claim()
    with steps.later(timedelta(seconds=61)):
        begun = steps.begun(claimed)
    assert not (begun.go | begun.expired | begun.suppressed)


# -- what it costs


@pytest.mark.django_db(transaction=True)
def test_a_claim_changes_rows_in_place(shop: Caller) -> None:
    """Heap-only updates: no index learns of a lease, so a backlog does not bloat what finds it."""
    emptied()
    fill(shop.service.pk, 5_000)
    before = updates()
    claimed = steps.claim(250)
    after = updates()
    assert len(claimed) == 250
    assert after[0] - before[0] == 250
    assert after[1] - before[1] >= 0.95 * 250, "the fillfactor leaves room beside nearly every row"


def emptied() -> None:
    """An empty queue without what earlier tests left behind, dead rows too."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE pending")


def rows_read() -> int:
    """Entries of the queue's indexes that this transaction went through so far. It plans as the engine from now on."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_index WHERE indrelid = 'pending'::regclass"
        )
        return int(cursor.fetchone()[0])


def updates() -> tuple[int, int]:
    """(updates, heap-only updates) of the queue table so far."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT 1")  # the flush happens when the transaction before it has ended
        cursor.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'pending'")
        found: tuple[int, int] = cursor.fetchone()
        return found
