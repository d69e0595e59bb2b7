"""The sweep: what a vanished worker, a passed deadline or a lost predecessor means."""

from __future__ import annotations

from base64 import b64encode
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection

from deliveries import acts, ledger
from deliveries.conf import limits
from deliveries.models import Attempt
from deliveries.models.accounts import InDoubtPolicy
from deliveries.retry import blind_bound
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db
OVER = timedelta(seconds=steps.LEASE_SECONDS + 1)


def crash(*, solitary: bool = False, begun: bool = True) -> None:
    """A worker claims, begins and is never seen again; its lease ends; the sweep looks. Call it inside ``later``."""
    claimed = steps.claim(solitary=solitary)
    assert claimed
    if begun:
        steps.begun(claimed)
    with steps.later(OVER):
        steps.swept()


def test_a_lease_that_still_runs_is_left_alone(shop: Caller) -> None:
    make_account("sms")
    steps.accept(shop.service)
    steps.begun(steps.claim())
    assert steps.swept() == 0


def test_a_worker_that_vanished_before_the_call_costs_nothing(shop: Caller) -> None:
    make_account("sms", in_doubt_policy=InDoubtPolicy.HOLD)
    (message_id,) = steps.accept(shop.service)
    crash(begun=False)
    message, attempt = steps.message(message_id), Attempt.objects.get()
    assert (message.status, message.in_doubt_count) == ("queued", 0)
    assert (attempt.outcome, attempt.code) == ("not_sent", "worker_vanished")
    assert attempt.finished_at is not None


def test_one_crash_sends_again_at_once_and_counts_a_doubt(shop: Caller) -> None:
    make_account("sms")
    ids = steps.accept(shop.service, 5)
    crash()
    with steps.later(OVER):
        assert {claimed.id for claimed in steps.claim()} == set(ids), "together, as any other"
    assert {steps.message(message_id).in_doubt_count for message_id in ids} == {1}


@pytest.mark.parametrize("policy", [InDoubtPolicy.HOLD, InDoubtPolicy.RECONCILE])
def test_a_policy_that_does_not_repeat_holds_the_message_in_sight(shop: Caller, policy: InDoubtPolicy) -> None:
    make_account("sms", in_doubt_policy=policy)
    (message_id,) = steps.accept(shop.service)
    crash()
    with steps.later(timedelta(days=3)):
        steps.swept()
        message, pending = steps.message(message_id), steps.pending(message_id)
        assert message.status == "in_doubt", "it does not expire: somebody must look"
        assert pending is not None
        assert (pending.blocked, pending.waiting_for) == (True, "operator")


def test_a_message_that_kills_its_workers_fails_alone_and_the_innocent_beside_it_flow(shop: Caller) -> None:
    make_account("sms")
    poison, innocent = steps.accept(shop.service)[0], steps.accept(shop.service)[0]
    crash()  # both in flight
    with steps.later(OVER):
        crash()  # both again: now they are suspects, each sent alone
        with steps.later(OVER):
            assert not steps.claim(), "suspects of two crashes are no ordinary claim's"
            _only(innocent)
            for crashes in range(3):
                with steps.later(crashes * OVER):
                    _only(poison, survives=False)
    dead, alive = steps.message(poison), steps.message(innocent)
    assert alive.status == "sent"
    assert (dead.status, dead.error_class) == ("failed", "poison")
    assert "3 times while sending it alone" in dead.error_detail
    assert dead.in_doubt_count == 5


def _only(message_id: UUID, *, survives: bool = True) -> None:
    """The suspect ``message_id`` alone: it is sent, or its worker dies too."""
    (claimed,) = steps.claim(1, ids=[message_id], solitary=True)
    steps.begun([claimed])
    if survives:
        steps.record(claimed, steps.ACCEPTED)
        return
    with steps.later(OVER):
        steps.swept()


def _vanishing(message_id: UUID) -> int:
    """Its worker vanishes during each of its calls; how many calls there were before it is sent no more."""
    for calls in range(30):
        with steps.later(calls * OVER):
            claimed = steps.claim(ids=[message_id]) or steps.claim(1, ids=[message_id], solitary=True)
            if not claimed:
                return calls
            steps.begun(claimed)
            with steps.later(OVER):
                steps.swept()
    raise AssertionError("it is sent for ever")


@pytest.mark.parametrize(("blind", "calls", "then"), [(0, 1, "in_doubt"), (1, 5, "failed"), (2, 5, "failed")])
def test_a_message_whose_workers_vanish_is_repeated_no_more_than_its_account_and_the_search_for_poison_allow(
    shop: Caller, blind: int, calls: int, then: str
) -> None:
    make_account("sms", blind_retries=blind)
    (message_id,) = steps.accept(shop.service)
    assert _vanishing(message_id) == calls <= 1 + blind_bound(blind, alone=limits().crashes)
    message = steps.message(message_id)
    assert (message.status, message.in_doubt_count) == (then, calls)
    with connection.cursor() as cursor:
        assert ledger.examine(cursor).balanced


def test_a_repeat_after_an_answer_that_never_came_counts_as_one_after_a_vanished_worker(shop: Caller) -> None:
    make_account("sms")
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, steps.REFUSALS["in_doubt"])
    with steps.later(timedelta(minutes=1)):
        assert _vanishing(message_id) == 1
    assert steps.message(message_id).status == "in_doubt", "its one blind repeat is spent"


def test_a_provider_that_knows_our_key_is_asked_again_whatever_the_account_allows(shop: Caller) -> None:
    make_account("webhook", "webhook", secrets={"secret": f"whsec_{b64encode(bytes(32)).decode()}"}, blind_retries=0)
    (message_id,) = steps.accept(shop.service, channel="webhook", to="https://example.com/hook")
    steps.begun(steps.claim(channel="webhook"))
    with steps.later(timedelta(minutes=3)):
        steps.swept()
    assert steps.message(message_id).status == "queued"


def test_a_message_whose_time_passes_while_it_waits_expires_with_its_reason(shop: Caller) -> None:
    make_account("sms")
    (message_id,) = steps.accept(shop.service)
    with steps.later(timedelta(hours=5)):
        steps.swept()
    message = steps.message(message_id)
    assert (message.status, message.error_class) == ("expired", "expired")
    assert steps.pending(message_id) is None


def test_an_expired_head_lets_its_successor_go(shop: Caller) -> None:
    make_account("sms")
    soon = (steps.now() + timedelta(seconds=30)).isoformat()
    steps.accept(shop.service, ordering_key="k", expires_at=soon)
    (second,) = steps.accept(shop.service, ordering_key="k")
    with steps.later(timedelta(seconds=31)):
        steps.swept()
        assert [claimed.id for claimed in steps.claim()] == [second]


def test_a_doubt_that_is_resolved_as_retry_gets_a_new_deadline(shop: Caller) -> None:
    make_account("sms", in_doubt_policy=InDoubtPolicy.HOLD)
    (message_id,) = steps.accept(shop.service)
    crash()
    with steps.later(timedelta(hours=5)):
        acts.resolve(steps.message(message_id), "retry", actor="somebody", reason="it did not come")
        steps.swept()
        assert [claimed.id for claimed in steps.claim()] == [message_id]
