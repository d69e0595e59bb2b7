"""Everything that may happen to messages, in any order that hypothesis can think of: never an illegal move.

After every step the ledger's whole check runs, so a lost row, a gap in the events or a wrong count fails here too.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from channels.base import ReceiptKind
from chaski.vocabulary import Status
from deliveries import acts, ledger
from deliveries.delivery.claim import Claimed
from deliveries.lifecycle import ASIDE, MOVES
from deliveries.models import Event, Service
from deliveries.models.accounts import InDoubtPolicy
from deliveries.models.services import OrderThen
from deliveries.retry import Policy
from deliveries.setting_up import set_order
from tests.deliveries import steps
from tests.factories import make_account, make_caller

OUTCOMES = {"accepted": steps.ACCEPTED, **{name: o for name, o in steps.REFUSALS.items() if name != "misconfigured"}}


class Life(RuleBasedStateMachine):
    """One service, a few messages, workers that vanish, clocks that jump, receipts that come as they like."""

    messages = Bundle("messages")
    leases = Bundle("leases")
    policy = InDoubtPolicy.RETRY
    then: OrderThen | None = None

    def __init__(self) -> None:
        super().__init__()
        self.accepted = 0
        self.under_way: set[tuple[UUID, UUID]] = set()
        self.stack = ExitStack()
        self.point = transaction.atomic()
        self.point.__enter__()
        self.service: Service = make_caller(f"life-{id(self)}").service
        make_account("sms", "sandbox", service=self.service, in_doubt_policy=self.policy)
        if self.then is not None:
            set_order(self.service, timedelta(seconds=30), self.then, actor="somebody")

    def teardown(self) -> None:
        self.stack.close()
        transaction.set_rollback(True)
        self.point.__exit__(None, None, None)

    @initialize(target=messages)
    def begin_with_one(self) -> UUID:
        return self._accept("")

    @precondition(lambda self: self.accepted < 3)
    @rule(target=messages, key=st.sampled_from(["", "one-key"]))
    def accept(self, key: str) -> UUID:
        return self._accept(key)

    def _accept(self, key: str) -> UUID:
        self.accepted += 1
        deadline = steps.now() + timedelta(hours=4)  # by the clock that this machine moves
        return steps.accept(self.service, ordering_key=key, expires_at=deadline)[0]

    @rule(target=leases, n=st.integers(1, 3), alone=st.booleans(), goes_on=st.booleans())
    def claim(self, n: int, alone: bool, goes_on: bool) -> object:
        claimed = ([] if alone else steps.claim(n)) or steps.claim(1, solitary=True)
        if claimed and goes_on:
            self._begin(claimed)
        return multiple(*claimed)

    def _begin(self, claimed: list[Claimed]) -> None:
        go = steps.begun(claimed).go
        self.under_way |= {(lease.token, lease.id) for lease in claimed if lease.id in go}

    @rule(target=leases, outcome=st.sampled_from(sorted(OUTCOMES)))
    def another_worker_takes_over(self, outcome: str) -> object:
        """The first worker froze beyond its lease; it may still record, before or after the second does."""
        first = steps.claim(1)
        if first:
            self._begin(first)
        self.time_passes(61)
        second = steps.claim(1) or steps.claim(1, solitary=True)
        if second:
            self._begin(second)
        if first:
            self.record(first[0], outcome)
        return multiple(*first, *second)

    @rule(lease=leases, outcome=st.sampled_from(sorted(OUTCOMES)))
    def record(self, lease: Claimed, outcome: str) -> None:
        """Perhaps long after its lease; only what has begun is sent, and each call gives one outcome."""
        if (lease.token, lease.id) in self.under_way:
            self.under_way.remove((lease.token, lease.id))
            steps.record(lease, OUTCOMES[outcome], Policy(max_tries=3))

    @rule(message=messages, kind=st.sampled_from(ReceiptKind), again=st.integers(0, 1))
    def receipt(self, message: UUID, kind: ReceiptKind, again: int) -> None:
        steps.receive(steps.message(message), kind, event_id=f"{message}:{kind}:{again}")

    @rule(message=messages, act=st.sampled_from(["cancel", "redeliver", "sent", "failed", "retry"]))
    def act(self, message: UUID, act: str) -> None:
        before = steps.message(message).status
        try:
            if act in ("cancel", "redeliver"):
                getattr(acts, act)(steps.message(message), actor="somebody")
            else:
                acts.resolve(steps.message(message), act, actor="somebody", reason="asked")
        except acts.NotCancelable:
            assert before != Status.QUEUED or _leased(message)
        except acts.NotRedeliverable:
            assert before not in (Status.FAILED, Status.UNDELIVERED, Status.EXPIRED)
        except acts.NotInDoubt:
            assert before != Status.IN_DOUBT

    @rule(seconds=st.sampled_from([1, 61, 61, 5 * 3600]))
    def time_passes(self, seconds: int) -> None:
        self.stack.enter_context(steps.later(timedelta(seconds=seconds)))
        steps.swept()

    @invariant()
    def every_move_is_allowed(self) -> None:
        before: dict[UUID, Status] = {}
        for event in Event.objects.filter(service_id=self.service.pk).order_by("message_id", "sequence"):
            status = Status(event.status)
            if event.message_id in before and not event.reason.startswith(ASIDE):
                assert status in MOVES[before[event.message_id]]
            before[event.message_id] = status

    @invariant()
    def the_ledger_balances(self) -> None:
        found = _examined()
        # A sweep may be due: what only waits for it is no fault.
        violations = [violation for violation in found.violations if "ended long ago" not in violation.detail]
        violations = [violation for violation in violations if "waits beyond its deadline" not in violation.detail]
        assert not violations
        assert found.accepted == found.final + found.handed_over + found.waiting + found.in_flight + found.in_doubt


def _leased(message: UUID) -> bool:
    waiting = steps.pending(message)
    return waiting is not None and waiting.lease_until is not None


#: Lives of one run. Ask for more when this part was changed: each takes a second or two.
EXAMPLES = 3


def _examined() -> ledger.Ledger:
    with connection.cursor() as cursor:
        return ledger.examine(cursor)


@pytest.mark.django_db
@pytest.mark.parametrize("then", [None, *OrderThen])
@pytest.mark.parametrize("policy", [InDoubtPolicy.RETRY, InDoubtPolicy.HOLD])
def test_no_order_of_events_makes_an_illegal_move_or_loses_a_message(
    policy: InDoubtPolicy, then: OrderThen | None
) -> None:
    machine = type("LifeUnder" + policy.name.title(), (Life,), {"policy": policy, "then": then})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            phases=(Phase.generate,),  # shrinking takes minutes: ask for it when a failure is to be understood
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
