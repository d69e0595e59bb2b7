"""The sweep: what nobody else finishes. Leases whose worker vanished, and deadlines that passed.

Called by the relay every five seconds; any number may run, each takes other rows. A lease is ended only here, so that
one place decides what a vanished worker means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from channels.registry import UnknownProvider, provider_class
from chaski.vocabulary import ErrorClass, Status, WaitingFor
from deliveries import lifecycle
from deliveries.apart import Apart
from deliveries.conf import limits, timings
from deliveries.delivery.leases import JUDGEABLE
from deliveries.delivery.settle import Settlement, release, settle
from deliveries.lifecycle import Move
from deliveries.models.accounts import InDoubtPolicy
from deliveries.retry import Decision, Outcome, blind_bound
from deliveries.sql import Cursor

#: Found by the open attempts, which are few: the lease columns are in no index on purpose. A message of which anything is
#: held by somebody else is left to a later sweep: waiting for it would keep all the others waiting. It takes no seat either:
#: LIMIT counts what is locked, the message included, so that any number of held ones stands before no other.
ENDED = f"""
SELECT ended.* FROM (
    SELECT p.message_id, a.number, a.token, a.opened_at, a.begun_at, p.account_id, p.tries, p.blind_count, p.crash_count,
           p.solitary, p.suspicion, p.expires_at, coalesce(acc.in_doubt_policy, 'hold'), chaski_now(),
           coalesce(acc.channel, ''), coalesce(acc.provider, ''), coalesce(acc.blind_retries, 0)
    FROM attempt a JOIN pending p ON p.message_id = a.message_id AND p.lease_token = a.token
    LEFT JOIN account acc ON acc.id = p.account_id
    WHERE a.finished_at IS NULL AND p.lease_until < chaski_now() AND {JUDGEABLE}
        AND p.message_id <> ALL(%(apart)s::uuid[])
    ORDER BY p.message_id FOR UPDATE OF p, a SKIP LOCKED
) ended CROSS JOIN LATERAL (SELECT id FROM message WHERE id = ended.message_id LIMIT 1 FOR UPDATE SKIP LOCKED) m
LIMIT %(rows)s
"""

#: Read in the order of its index up to LIMIT, so that a million that expire at once are not sorted for each few hundred.
LATE = """
SELECT p.message_id, p.service_id, p.ordering_key FROM pending p
CROSS JOIN LATERAL (SELECT id FROM message WHERE id = p.message_id LIMIT 1 FOR UPDATE SKIP LOCKED) m
WHERE p.expires_at <= chaski_now() AND p.lease_until IS NULL AND NOT (p.blocked AND p.waiting_for = 'operator')
    AND p.message_id <> ALL(%(apart)s::uuid[])
ORDER BY p.expires_at LIMIT %(rows)s FOR UPDATE OF p SKIP LOCKED
"""
REMOVE = "DELETE FROM pending WHERE message_id = ANY(%(ids)s::uuid[])"

_NOT_ENDED = Apart("lease_cannot_be_ended")
_NOT_EXPIRED = Apart("message_cannot_expire")


@dataclass(frozen=True, slots=True)
class EndedLease:
    """A lease whose time ran out with its attempt still open."""

    id: UUID
    number: int
    token: UUID
    opened_at: datetime
    begun_at: datetime | None
    account_id: int
    tries: int
    blind_count: int
    crash_count: int
    solitary: bool
    suspicion: int
    expires_at: datetime
    policy: str
    now: datetime
    channel: str
    provider: str
    blind_retries: int = 0

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again without knowing."""
        if self.policy != InDoubtPolicy.RETRY or self.expires_at <= self.now:
            return False
        # From its second crash in a row on it goes out as the one suspect of its process.
        alone = limits().crashes if self.suspicion else 0
        return self.blind_count < blind_bound(self.blind_retries, alone=alone) or self._repeats_are_known()

    def _repeats_are_known(self) -> bool:
        try:
            return provider_class(self.channel, self.provider).idempotent
        except UnknownProvider:
            return False

    @property
    def ask_at(self) -> datetime | None:
        """When its provider can be asked whether it has the message; None where policy or provider do not allow it."""
        try:
            wait = timings().ask(provider_class(self.channel, self.provider))
        except UnknownProvider:
            return None
        asks = self.policy == InDoubtPolicy.RECONCILE and wait is not None
        return self.now + timedelta(seconds=wait or 0.0) if asks else None


def end_leases(cursor: Cursor) -> int:
    """Decide every lease that ended; how many there were. None from an outage until ``leases.watch`` has seen it.

    Runs in the caller's transaction. One that cannot be written is left out for some minutes.
    """
    values = {"rows": limits().claim_rows, "gap": timings().outage_seconds, "apart": _NOT_ENDED.ids()}
    cursor.execute(ENDED, values)
    ended = [EndedLease(*row) for row in cursor.fetchall()]
    _NOT_ENDED.write(cursor, ended, partial(_end, cursor), lambda lease: lease.id)
    return len(ended)


def _end(cursor: Cursor, leases: Sequence[EndedLease]) -> None:
    settle(cursor, [judge(lease) for lease in leases], by_its_worker=False)


def judge(lease: EndedLease) -> Settlement:
    """What a vanished worker means for one message: due again if its call had not begun, else as its account allows."""
    if lease.begun_at is None:
        outcome = Outcome(ErrorClass.NOT_SENT, "worker_vanished", "the worker vanished before the call began")
        return settlement(lease, outcome, _due_now(lease, (Status.QUEUED,)), suspicion=lease.suspicion)
    crashes = lease.crash_count + (1 if lease.solitary else 0)
    if crashes >= limits().crashes:
        outcome = Outcome(ErrorClass.POISON, "poison", f"its worker vanished {crashes} times while sending it alone")
        return settlement(lease, outcome, Decision((Status.FAILED,), in_doubt=1), crash=1)
    outcome = Outcome(ErrorClass.IN_DOUBT, "worker_vanished", "the worker vanished during the call")
    if not lease.may_repeat:
        return settlement(lease, outcome, held(lease))
    again = _due_now(lease, (Status.IN_DOUBT, Status.QUEUED), blind=1)
    return settlement(lease, outcome, again, crash=crashes - lease.crash_count, suspicion=lease.suspicion + 1)


def held(lease: EndedLease) -> Decision:
    """In doubt, for people to decide."""
    return Decision(
        (Status.IN_DOUBT,),
        held=True,
        ask_at=lease.ask_at,
        waiting_for=WaitingFor.OPERATOR,
        tries=lease.tries,
        blind=lease.blind_count,
        in_doubt=1,
    )


def _due_now(lease: EndedLease, path: tuple[Status, ...], blind: int = 0) -> Decision:
    return Decision(
        path,
        due_at=lease.now,
        waiting_for=WaitingFor.RETRY,
        tries=lease.tries,
        blind=lease.blind_count + blind,
        in_doubt=blind,
    )


def settlement(
    lease: EndedLease, outcome: Outcome, decision: Decision, *, crash: int = 0, suspicion: int = 0
) -> Settlement:
    """What is written of a lease that its worker will not settle."""
    return Settlement(
        id=lease.id,
        number=lease.number,
        token=lease.token,
        account_id=lease.account_id,
        opened_at=lease.opened_at,
        outcome=outcome,
        decision=decision,
        crash=crash,
        suspicion=suspicion,
    )


@dataclass(frozen=True, slots=True)
class Late:
    """A place in the queue of a message whose time has passed."""

    id: UUID
    service_id: int
    ordering_key: str


def expire(cursor: Cursor) -> int:
    """End every waiting message whose time has passed; how many there were. Runs in the caller's transaction.

    One that cannot be written keeps its place, and is left out for some minutes.
    """
    cursor.execute(LATE, {"rows": limits().claim_rows, "apart": _NOT_EXPIRED.ids()})
    late = [Late(*row) for row in cursor.fetchall()]
    _NOT_EXPIRED.write(cursor, late, partial(_expire, cursor), lambda each: each.id)
    return len(late)


def _expire(cursor: Cursor, late: Sequence[Late]) -> None:
    cursor.execute(REMOVE, {"ids": [each.id for each in late]})
    lifecycle.apply(cursor, [_expired(each) for each in late])
    release(cursor, [(each.service_id, each.ordering_key) for each in late])


def _expired(late: Late) -> Move:
    return Move(
        id=late.id,
        path=(Status.EXPIRED,),
        reason="its time passed while it waited",
        error_class=ErrorClass.EXPIRED,
        error_code="expired",
        error_detail="expires_at passed before it could be sent",
    )
